"""When a checkpoint is due: a tenth of the time at most, and little lost."""

import itertools

import pytest

from selfimprove_pipeline.train.loop.pace import Pace, seconds_until_due

MINUTE = 60.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def saved(step: float, cost: float, total: float) -> tuple[list[float], float]:
    """Return when a training of so many seconds began its checkpoints, and when it ended."""
    clock = Clock()
    pace, started, found, trained = Pace(clock=clock), clock.now, list[float](), 0.0
    for number in itertools.count(1):
        if trained >= total:
            return found, clock.now - started
        trained, clock.now = trained + step, clock.now + step
        if pace.is_due(number):
            found.append(clock.now - started)
            pace.wait()
            clock.now += cost
            pace.go_on()
    raise AssertionError


@pytest.mark.parametrize(("step", "cost"), [(2.0, 0.01), (0.5, 3.0), (8.0, 90.0), (60.0, 900.0)])
def test_checkpoints_cost_a_tenth_of_the_time_at_most(step: float, cost: float) -> None:
    """Whatever a checkpoint costs and a step lasts; and they come as often as that allows."""
    begun, ended = saved(step, cost, total=24 * 3600)
    assert begun[0] == pytest.approx(20 * MINUTE, abs=step)
    assert len(begun) * cost <= ended / 10
    gaps = [later - earlier - cost for earlier, later in itertools.pairwise(begun)]
    assert max(gaps) <= max(10 * cost, MINUTE) + step


def test_a_training_of_less_than_20_minutes_has_none() -> None:
    """Most of those of a small model end before."""
    assert saved(7.0, 1.0, total=20 * MINUTE - 7)[0] == []


def test_the_next_one_follows_from_the_last_ones_cost() -> None:
    """A disk that becomes slow makes them rarer; a fast one never has them every few seconds."""
    assert seconds_until_due(None) == 20 * MINUTE
    assert seconds_until_due(90.0) == 900.0
    assert seconds_until_due(0.1) == MINUTE


def test_a_number_of_steps_is_kept_to_whatever_the_clock_says() -> None:
    """`checkpointSteps` where it is set."""
    pace = Pace(3, clock=Clock())
    assert [step for step in range(1, 10) if pace.is_due(step)] == [3, 6, 9]
