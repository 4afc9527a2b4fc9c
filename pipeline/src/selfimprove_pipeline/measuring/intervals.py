"""Intervals and p values: how sure a number is, given how few prompts it was taken on.

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
MOST_EXACT = 1000
"""Changes of more prompts are tested by the normal approximation, within .001 of the exact p."""
FEWEST = 10
"""With fewer prompts the bootstrap's interval is too narrow to judge by."""


@dataclass(frozen=True)
class Interval:
    """An interval with a confidence of 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """A share of rows: how many of them have a property, or the sum of values from 0 to 1."""

    successes: float
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


def wilson(successes: float, n: int) -> Interval:
    """Return the Wilson score interval of a share, from 0 to 1 when there are no rows.

    Of a mean of values between 0 and 1, whose sum is `successes`, it is rather too wide: no such
    values vary more than those of 0 and 1 with their mean.

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
    # The bounds at 0 and n successes are exact; rounding would leave 1e-17 there, or beyond.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
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
    changes = _changes(before, after)
    if not changes:
        return None
    n = len(changes)
    interval = bootstrap(changes, resamples=resamples, seed=seed)
    return Difference(math.fsum(changes) / n, interval, n)


def bootstrap(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """Return the percentile interval of a mean, of one value a prompt."""
    n = len(values)
    # Rounded, as a mean of zero must not lie a rounding error above zero.
    means = sorted(
        round(sum(map(values.__getitem__, drawn)) / n, 12)
        for drawn in _resamples(n, resamples, seed)
    )
    tail = (1 - CONFIDENCE) / 2
    return Interval(_quantile(means, tail), _quantile(means, 1 - tail))


def sign_flip(before: Mapping[str, float], after: Mapping[str, float], *, steps: int = 1) -> float:
    """Return the two-sided p value of no change, by the exact sign-flip test; 1 of no ids.

    If the models do not differ, each prompt's change is as likely as its opposite: p is the share
    of all 2^n choices of signs that move the sum at least as far as it is (R. A. Fisher, The
    design of experiments, 1935, section 21). Of right and wrong answers it is the exact test of
    Q. McNemar, Psychometrika 12 (1947). Unlike a p value of the bootstrap it holds for few
    prompts, and it is never 0, which the correction for many languages needs. Changes are
    multiples of 1 / steps, and are rounded to such.
    """
    units = [round(change * steps) for change in _changes(before, after)]
    sizes = [abs(unit) for unit in units if unit]
    moved = abs(sum(units))
    if len(sizes) <= MOST_EXACT:
        return _exact(sizes, moved)
    spread = math.sqrt(sum(size * size for size in sizes))
    return 2 * NormalDist().cdf(-max(0, moved - 1) / spread)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p values adjusted for their number, in the order given.

    Below 5 % they keep the chance of even one false finding among all below 5 %, however they
    depend on each other (S. Holm, A simple sequentially rejective multiple test procedure,
    Scandinavian Journal of Statistics 6 (1979), 65-70).
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = least
    return tuple(adjusted)


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


def _changes(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    """Return the change of each id that both have, in the order of the sorted ids."""
    ids = sorted(before.keys() & after.keys())
    return [after[identifier] - before[identifier] for identifier in ids]


def _exact(sizes: Sequence[int], moved: int) -> float:
    """Return the share of signs of some sizes whose sum is at least as far from 0 as `moved`."""
    # The sums of all subsets: their counts are the coefficients of the product of 1 + x^size,
    # kept in one integer with `width` bytes a coefficient, as each is at most 2^n.
    width = len(sizes) // 8 + 1
    counts = 1
    for size in sizes:
        counts += counts << 8 * width * size
    total = sum(sizes)
    digits = counts.to_bytes(width * (total + 1), "little")
    least = (total + moved) // 2
    extreme = sum(
        int.from_bytes(digits[width * place : width * (place + 1)], "little")
        for place in range(least, total + 1)
    )
    return min(1.0, 2 * extreme / (1 << len(sizes)))


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
