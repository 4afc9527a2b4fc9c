"""Length control: what of a win rate is left when answers are as long as the opponent's."""

import math
import random

import pytest

from selfimprove_pipeline.measuring.judged import length_control


def drawn(
    strength: float, weight: float, mean: float, n: int = 4000
) -> tuple[list[float], list[int]]:
    """Return verdicts of a judge that likes length, and the differences in length."""
    coin = random.Random(7)
    differences = [round(coin.gauss(mean, 100)) for _ in range(n)]
    spread = math.sqrt(sum((d - sum(differences) / n) ** 2 for d in differences) / n)
    chances = [1 / (1 + math.exp(-strength - weight * math.tanh(d / spread))) for d in differences]
    return [float(coin.random() < chance) for chance in chances], differences


@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.7])
def test_the_strength_is_found_below_the_length(strength: float) -> None:
    """A model that writes at length wins by it; at equal lengths it wins by its answers alone."""
    preferences, differences = drawn(strength, 2.0, 120)
    plain = sum(preferences) / len(preferences)
    truth = 1 / (1 + math.exp(-strength))

    assert length_control.win_rate(preferences, differences) == pytest.approx(truth, abs=0.04)
    assert plain > truth + 0.1


def test_exchanged_answers_turn_it_into_one_minus_it() -> None:
    """Preferences and differences change their signs together."""
    preferences, differences = drawn(0.4, 1.0, 50, n=60)
    there = length_control.win_rate([1 - p for p in preferences], [-d for d in differences])

    assert length_control.win_rate(preferences, differences) == pytest.approx(1 - there)


PLAIN = [
    ("equal lengths", [1.0, 0.0, 0.5, 1.0], [3, 3, 3, 3], 0.625),
    ("only wins", [1.0, 1.0], [5, -9], 1.0),
    ("only losses", [0.0, 0.0], [5, -9], 0.0),
    ("only ties", [0.5, 0.5, 0.5], [5, -9, 2], 0.5),
]


@pytest.mark.parametrize(
    ("preferences", "differences", "rate"), [row[1:] for row in PLAIN], ids=[r[0] for r in PLAIN]
)
def test_where_length_explains_nothing_it_is_the_win_rate(
    preferences: list[float], differences: list[int], rate: float
) -> None:
    """There is nothing to control for."""
    assert length_control.win_rate(preferences, differences) == pytest.approx(rate)


def test_verdicts_that_length_alone_explains_are_even() -> None:
    """The longer answer always wins: of answers as long nothing is known."""
    differences = [-300, -200, -100, 100, 200, 300]
    preferences = [float(d > 0) for d in differences]

    assert length_control.win_rate(preferences, differences) == pytest.approx(0.5)
