"""Intervals: how far a number may lie from the truth, given how few prompts it was taken on.

They cover the choice of prompts alone; another training seed would move the numbers too.
Pure and deterministic, the standard library only.
"""

import math
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 42
FEWEST = 10
"""With fewer prompts the bootstrap's interval is too narrow to judge by."""


@dataclass(frozen=True)
class Interval:
    """An interval with a confidence of 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """A share of rows: how many of them have a property."""

    successes: int
    n: int

    @property
    def value(self) -> float | None:
        """The share, from 0 to 1; None of no rows."""
        return self.successes / self.n if self.n else None

    @property
    def interval(self) -> Interval:
        """The Wilson interval of the share."""
        return wilson(self.successes, self.n)


@dataclass(frozen=True)
class Difference:
    """A mean after minus a mean before, over the same ids."""

    value: float
    interval: Interval
    n: int

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies above or below zero, else 0; 0 for very few prompts."""
        if self.n < FEWEST:
            return 0
        return (self.interval.low > 0) - (self.interval.high < 0)


def wilson(successes: int, n: int) -> Interval:
    """Return the Wilson score interval of a share, from 0 to 1 when there are no rows.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927), 209-212: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z·se it
    stays within 0 and 1 and has a width at p = 0 and p = 1.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    share = successes / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # The bounds at 0 and n successes are exact; rounding would leave 1e-17 there.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return Interval(low, high)


def paired_bootstrap(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference | None:
    """Return mean(after) - mean(before) over the ids that both have, None when there are none.

    Percentile interval of the paired bootstrap: ids are drawn with replacement, and both models
    answer the drawn ids, so that what makes a prompt hard cancels out (B. Efron and
    R. Tibshirani, An introduction to the bootstrap, 1993, chapter 13). The same seed draws the
    same positions for every comparison of n ids, in the order of the sorted ids.
    """
    ids = sorted(before.keys() & after.keys())
    if not ids:
        return None
    changes = [after[identifier] - before[identifier] for identifier in ids]
    n = len(changes)
    # Rounded, as a mean of zero must not lie a rounding error above zero.
    means = sorted(
        round(sum(map(changes.__getitem__, drawn)) / n, 12)
        for drawn in _resamples(n, resamples, seed)
    )
    tail = (1 - CONFIDENCE) / 2
    interval = Interval(_quantile(means, tail), _quantile(means, 1 - tail))
    return Difference(math.fsum(changes) / n, interval, n)


def mean_over(languages: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Return each id's mean over several languages, None unless all have the same ids.

    Parallel rows are as hard in each language, so a resample must draw them together.
    """
    if not languages or any(rows.keys() != languages[0].keys() for rows in languages):
        return None
    return {
        identifier: math.fsum(rows[identifier] for rows in languages) / len(languages)
        for identifier in languages[0]
    }


@lru_cache(maxsize=2)
def _resamples(n: int, resamples: int, seed: int) -> tuple["array[int]", ...]:
    """Return the drawn positions of each resample; drawing costs more than all the sums."""
    generator = random.Random(f"{seed}:{n}")  # noqa: S311 - reproducible, nothing is secret
    return tuple(array("I", generator.choices(range(n), k=n)) for _ in range(resamples))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile, linear between neighbours (type 7 of Hyndman and Fan, 1996)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
