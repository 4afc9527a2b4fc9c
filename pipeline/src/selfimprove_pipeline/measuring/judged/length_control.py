"""The win rate that a model would have if its answers were as long as those of its opponent.

Judges like long answers. A logistic model explains each preference by the model and by the
difference in length, and the length's part is then left out: Dubois et al., "Length-Controlled
AlpacaEval" (2024), without their term for the difficulty of English instructions. `contests` puts
it beside the plain win rate. Pure.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

RIDGE: Final = 0.1
"""Penalty on the square of the length's weight, for verdicts that length alone would explain."""
STEPS: Final = 100
CLOSE: Final = 1e-10


@dataclass(frozen=True)
class _Fit:
    """The model's strength and the weight of the length."""

    strength: float = 0.0
    weight: float = 0.0


def win_rate(preferences: Sequence[float], differences: Sequence[int]) -> float:
    """Return the win rate at equal lengths.

    `differences` are the lengths of the model's answers minus those of its opponent's. Without
    any difference, and where all preferences are the same extreme, it is the plain win rate.
    """
    plain = math.fsum(preferences) / len(preferences)
    spread = statistics.pstdev(differences)
    if spread == 0 or plain in (0.0, 1.0):
        return plain
    terms = [math.tanh(difference / spread) for difference in differences]
    fit = _Fit()
    for _ in range(STEPS):
        better = _step(fit, preferences, terms)
        moved = abs(better.strength - fit.strength) + abs(better.weight - fit.weight)
        fit = better
        if moved < CLOSE:
            break
    return _logistic(fit.strength)


def _step(fit: _Fit, preferences: Sequence[float], terms: Sequence[float]) -> _Fit:
    """Return the fit after one step of Newton's method, halved until the loss falls."""
    expected = [_logistic(fit.strength + fit.weight * term) for term in terms]
    errors = [p - q for p, q in zip(expected, preferences, strict=True)]
    slopes = [p * (1 - p) for p in expected]
    gradient = (
        math.fsum(errors),
        math.fsum(e * t for e, t in zip(errors, terms, strict=True)) + RIDGE * fit.weight,
    )
    mixed = math.fsum(s * t for s, t in zip(slopes, terms, strict=True))
    first = math.fsum(slopes)
    second = math.fsum(s * t * t for s, t in zip(slopes, terms, strict=True)) + RIDGE
    determinant = first * second - mixed * mixed
    strength = (second * gradient[0] - mixed * gradient[1]) / determinant
    weight = (first * gradient[1] - mixed * gradient[0]) / determinant
    before = _loss(fit, preferences, terms)
    for halvings in range(STEPS):
        part = 0.5**halvings
        found = _Fit(fit.strength - part * strength, fit.weight - part * weight)
        if _loss(found, preferences, terms) <= before:
            return found
    return fit


def _loss(fit: _Fit, preferences: Sequence[float], terms: Sequence[float]) -> float:
    """Return the cross-entropy of the preferences, with the penalty."""
    scores = [fit.strength + fit.weight * term for term in terms]
    entropy = math.fsum(
        max(score, 0.0) - score * preference + math.log1p(math.exp(-abs(score)))
        for score, preference in zip(scores, preferences, strict=True)
    )
    return entropy + RIDGE / 2 * fit.weight**2


def _logistic(score: float) -> float:
    if score < 0:
        return math.exp(score) / (1 + math.exp(score))
    return 1 / (1 + math.exp(-score))
