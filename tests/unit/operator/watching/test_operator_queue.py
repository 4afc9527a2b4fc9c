"""The queue: one worker per run, nothing lost, nothing sooner than it should be."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove_operator.cluster.errors import Unavailable
from selfimprove_operator.watching.queue import Key, Queue
from support import fake_time

A: Key = ("default", "a")
B: Key = ("default", "b")
NEW: Key = ("default", "new")


@dataclass
class Looks:
    """Takes the time it is told for a look, and notes when each began and ended."""

    seconds: float = 0.0
    answers: dict[int, float | Exception] = field(default_factory=dict)
    began: list[tuple[float, Key]] = field(default_factory=list)
    ended: list[tuple[float, Key]] = field(default_factory=list)
    results: list[bool] = field(default_factory=list)

    async def look(self, key: Key) -> float | None:
        number = len(self.began)
        self.began.append((fake_time.now(), key))
        await asyncio.sleep(self.seconds)
        self.ended.append((fake_time.now(), key))
        answer = self.answers.get(number)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def done(self, seconds: float, is_good: bool) -> None:
        self.results.append(is_good)

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.began]


Play = Callable[[Queue], Awaitable[None]]


def play(looks: Looks, steps: Play, *, workers: int = 1, seconds: float = 200.0) -> None:
    """Run a queue for some seconds beside what the test does to it."""

    async def main() -> None:
        queue = Queue(looks.look, looks.done)
        work = asyncio.create_task(queue.work(workers))
        await steps(queue)
        await asyncio.sleep(seconds)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    fake_time.run(main())


def test_a_run_that_waits_is_put_in_once() -> None:
    """Ten events of a run before a worker is free are one look."""
    looks = Looks()

    async def steps(queue: Queue) -> None:
        for _ in range(10):
            queue.add(A)
        assert queue.depth == 1

    play(looks, steps)

    assert looks.began == [(0.0, A)]


def test_a_new_run_goes_before_those_that_wait() -> None:
    """However many runs wait for another look, a new one has the next worker."""
    looks = Looks(seconds=1.0)

    async def steps(queue: Queue) -> None:
        queue.add(A)
        queue.add(B)
        queue.add(NEW, is_new=True)

    play(looks, steps)

    assert [key for _, key in looks.began] == [NEW, A, B]


def test_others_wait_while_new_runs_arrive() -> None:
    """A run's second look begins when no new run came for a quarter of a second."""
    looks = Looks()

    async def steps(queue: Queue) -> None:
        for _ in range(3):
            queue.add(NEW, is_new=True)
            queue.add(A)
            await asyncio.sleep(0.2)

    play(looks, steps)

    assert [at for at, key in looks.began if key == A] == pytest.approx([0.65])
    assert [at for at, key in looks.began if key == NEW] == pytest.approx([0.0, 0.2, 0.4])


def test_no_run_waits_longer_than_five_seconds_for_new_ones() -> None:
    """New runs without end do not keep the others from being looked at."""
    looks = Looks()

    async def steps(queue: Queue) -> None:
        for number in range(100):
            queue.add(("default", f"new-{number}"), is_new=True)
            queue.add(A)
            await asyncio.sleep(0.2)

    play(looks, steps)

    times = [at for at, key in looks.began if key == A]
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert len(times) == 4
    assert max(gaps) < 5.5


def test_what_happens_during_a_look_is_looked_at_after_it() -> None:
    """An event during a look is not lost, and two of them are one further look."""
    looks = Looks(seconds=2.0)

    async def steps(queue: Queue) -> None:
        queue.add(A)
        await asyncio.sleep(1)
        queue.add(A)
        queue.add(A)

    play(looks, steps, workers=3)

    assert looks.times == [0.0, 2.0]


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc")), max_size=25))
def test_no_run_has_two_workers_and_every_event_is_followed_by_a_look(
    events: list[tuple[int, str]],
) -> None:
    """Whatever the order of events, looks at a run follow each other, the last one last."""
    looks = Looks(seconds=1.5)
    added: dict[Key, float] = {}

    async def steps(queue: Queue) -> None:
        for at, name in sorted(events):
            await asyncio.sleep(at - fake_time.now())
            key = ("default", name)
            queue.add(key)
            added[key] = fake_time.now()

    play(looks, steps, workers=2)

    for key, last in added.items():
        began = [at for at, each in looks.began if each == key]
        ended = [at for at, each in looks.ended if each == key]
        assert began[-1] >= last
        assert all(end <= begin for end, begin in zip(ended, began[1:], strict=False))


@pytest.mark.parametrize(
    ("asked", "looked"),
    [
        pytest.param([5], [5.0], id="once"),
        pytest.param([5, 9], [5.0], id="a later time does not postpone"),
        pytest.param([9, 5], [5.0], id="an earlier time wins"),
        pytest.param([0], [0.0], id="at once"),
        pytest.param([-3], [0.0], id="in the past"),
    ],
)
def test_the_earliest_time_that_was_asked_for_counts(
    asked: list[float], looked: list[float]
) -> None:
    """A run with several wishes for later is looked at once, at the first of them."""
    looks = Looks()

    async def steps(queue: Queue) -> None:
        for seconds in asked:
            queue.add_after(A, seconds)

    play(looks, steps)

    assert looks.times == looked


def test_a_look_says_when_the_next_one_is_due() -> None:
    """The seconds that a look returns are waited for, and an event does not wait for them."""
    looks = Looks(answers={0: 30.0, 1: 30.0})

    async def steps(queue: Queue) -> None:
        queue.add(A)
        await asyncio.sleep(10)
        queue.add(A)

    play(looks, steps)

    assert looks.times == [0.0, 10.0, 30.0]


def test_failing_looks_back_off_and_a_good_one_forgets_it() -> None:
    """After failures a run waits 1, 2, 4 ... up to 60 s, and 1 s again after a good look."""
    failure = Unavailable("down")
    answers: dict[int, float | Exception] = dict.fromkeys(range(9), failure)
    looks = Looks(answers=answers | {9: 0.0, 10: failure})

    async def steps(queue: Queue) -> None:
        queue.add(A)

    play(looks, steps, seconds=400)

    gaps = [b - a for a, b in zip(looks.times, looks.times[1:], strict=False)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60, 0, 1]
    assert looks.results == [False] * 9 + [True, False, True]


def test_a_failing_run_cannot_wake_itself() -> None:
    """What is put in during a failing look waits as the look does; later events do not."""
    looks = Looks(seconds=0.5, answers=dict.fromkeys(range(3), Unavailable("down")))

    async def steps(queue: Queue) -> None:
        queue.add(A)
        await asyncio.sleep(0.25)
        queue.add(A)
        await asyncio.sleep(0.5)
        queue.add(A)

    play(looks, steps)

    assert looks.times == [0.0, 0.75, 1.5, 6.0]


def test_one_run_does_not_hold_up_another() -> None:
    """With two workers a slow or failing run leaves the other alone."""
    looks = Looks(seconds=5.0, answers={0: ValueError("a defect")})

    async def steps(queue: Queue) -> None:
        queue.add(A)
        queue.add(B)

    play(looks, steps, workers=2)

    assert looks.began[:2] == [(0.0, A), (0.0, B)]


def test_only_a_defect_of_ours_leaves_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """What the API server says is one line with the run; anything else has its traceback."""
    looks = Looks(answers={0: Unavailable("down"), 1: ValueError("a defect")})

    async def steps(queue: Queue) -> None:
        queue.add(A)

    with caplog.at_level(logging.WARNING):
        play(looks, steps)

    known, defect = caplog.records
    assert (known.levelname, known.exc_info) == ("WARNING", None)
    assert (known.__dict__["namespace"], known.__dict__["run"]) == A
    assert (defect.levelname, defect.exc_info is not None) == ("ERROR", True)
