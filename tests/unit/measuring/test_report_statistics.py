"""Intervals and p values against published numbers, simulated truth and scipy."""

import math
import os
import random
import subprocess
import sys
from itertools import combinations, product
from operator import mul

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from selfimprove_pipeline.measuring.differences import contrast, corrected
from selfimprove_pipeline.measuring.intervals import (
    Rate,
    bootstrap,
    holm,
    mean_over,
    paired_bootstrap,
    sign_flip,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        pytest.param(81, 263, 0.2553, 0.3662, id="Newcombe 1998, table I, method 3, 81 of 263"),
        pytest.param(15, 148, 0.0624, 0.1605, id="Newcombe 1998, table I, method 3, 15 of 148"),
        pytest.param(0, 20, 0.0000, 0.1611, id="Newcombe 1998, table I, method 3, none of 20"),
        pytest.param(1, 29, 0.0061, 0.1718, id="Newcombe 1998, table I, method 3, 1 of 29"),
    ],
)
def test_wilson_gives_the_published_intervals(
    successes: int, n: int, low: float, high: float
) -> None:
    """Four decimals agree with R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872."""
    found = wilson(successes, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_stays_within_bounds(case: tuple[int, int]) -> None:
    """The rate lies in its interval, the interval in 0 to 1, and it is its own mirror image."""
    successes, n = case
    found, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= found.low <= successes / n <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(case: tuple[int, int]) -> None:
    """Of any number of rows."""
    found, other = wilson(*case), stats.binomtest(*case).proportion_ci(method="wilson")

    assert (found.low, found.high) == pytest.approx((other.low, other.high))


def test_a_rate_of_no_rows_is_unknown() -> None:
    """No rows give no value, and every rate is possible."""
    rate = Rate(0, 0)
    assert rate.value is None
    assert (rate.interval.low, rate.interval.high) == (0, 1)


def test_the_interval_of_a_difference_covers_the_truth() -> None:
    """Of 1,000 simulated evaluations the 95 % intervals hold the true change in 93 to 97 %.

    Half of the prompts keep their score from one model to the next, so an interval that forgot
    the pairing would be far too wide.
    """
    generator = random.Random(7)
    covered = 0
    for _ in range(1000):
        before, after = _simulated(generator, prompts=60, rise=0.15)
        found = paired_bootstrap(before, after, resamples=1000)
        assert found is not None
        covered += found.interval.low <= 0.15 <= found.interval.high
    assert 930 <= covered <= 970


def _simulated(
    generator: random.Random, *, prompts: int, rise: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Return scores of two models whose true rates differ by `rise`."""
    before, after = {}, {}
    for number in range(prompts):
        was_right = generator.random() < 0.5
        is_redrawn = generator.random() < 0.5
        # Redrawn prompts are right at 0.5 + 2 rise, the others stay: 0.5 + rise in all.
        is_right = generator.random() < 0.5 + 2 * rise if is_redrawn else was_right
        before[str(number)], after[str(number)] = float(was_right), float(is_right)
    return before, after


def test_pairing_makes_the_interval_narrow() -> None:
    """Two models that agree on all prompts but a few have a narrow interval.

    Of 200 prompts ten change for the better: the standard error of the paired mean is
    sqrt(.05 * .95 / 200) = .0154; unpaired rates of .5 would have .05.
    """
    before = {str(number): float(number < 100) for number in range(200)}
    after = {str(number): float(number < 110) for number in range(200)}
    found = paired_bootstrap(before, after)
    assert found is not None
    assert found.value == pytest.approx(0.05)
    assert found.interval.low == pytest.approx(0.05 - 1.96 * 0.0154, abs=0.006)
    assert found.interval.high == pytest.approx(0.05 + 1.96 * 0.0154, abs=0.006)
    assert found.sign == 1


def test_only_common_ids_are_compared() -> None:
    """A prompt that one of the models did not see says nothing about the change."""
    found = paired_bootstrap({"a": 0, "b": 1, "c": 0}, {"a": 1, "b": 1, "d": 0})
    assert found is not None
    assert (found.n, found.value) == (2, 0.5)
    assert paired_bootstrap({"a": 0}, {"b": 1}) is None


def test_the_bootstrap_repeats_itself() -> None:
    """The same rows give the same interval in another process; another seed gives another one.

    Python orders sets of texts by a hash that differs from process to process.
    """
    program = (
        "from selfimprove_pipeline.measuring.intervals import paired_bootstrap;"
        "ids = [f'p{number}' for number in range(60)];"
        "before = {name: number ** 0.5 % 1 for number, name in enumerate(ids)};"
        "after = {name: number ** 0.7 % 1 for number, name in enumerate(ids)};"
        "print(paired_bootstrap(before, after), paired_bootstrap(before, after, seed=1))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    first, second = printed.pop().replace(") Diff", ")\nDiff").splitlines()
    assert first != second


@pytest.mark.parametrize("n", [12, 60, 400])
def test_the_bootstrap_is_that_of_scipy(n: int) -> None:
    """Both draw at random, so bounds of 2,000 and 20,000 resamples differ by little.

    A bound's own standard error is a sixteenth of the mean's.
    """
    values = np.random.default_rng(n).exponential(size=n)
    found = bootstrap([float(value) for value in values])
    other = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    )

    near = 0.2 * other.standard_error
    assert found.low == pytest.approx(other.confidence_interval.low, abs=near)
    assert found.high == pytest.approx(other.confidence_interval.high, abs=near)


def test_very_few_prompts_decide_nothing() -> None:
    """Nine prompts that all became right have an interval of no width and still no sign."""
    found = paired_bootstrap(dict.fromkeys("abcdefghi", 0), dict.fromkeys("abcdefghi", 1))
    assert found is not None
    assert (found.interval.low, found.interval.high) == (1, 1)
    assert found.sign == 0


def test_rounding_is_no_change() -> None:
    """Thirds that add up to nothing are not a rounding error above zero."""
    before = {str(number): [0.1, 0.2, 0.3][number % 3] for number in range(30)}
    after = {identifier: value + 1e-16 for identifier, value in before.items()}
    found = paired_bootstrap(before, after)
    assert found is not None
    assert found.sign == 0


def test_languages_are_averaged_by_id() -> None:
    """Each id's mean over the languages, and none where their ids differ."""
    assert mean_over([{"a": 1, "b": 0}, {"a": 0, "b": 0}]) == {"a": 0.5, "b": 0}
    assert mean_over([{"a": 1}, {"b": 0}]) is None
    assert mean_over([]) is None


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        pytest.param([0.005, 0.011, 0.02, 0.04, 0.13], [0.025, 0.044, 0.06, 0.08, 0.13], id="five"),
        pytest.param([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02], id="in any order"),
        pytest.param([0.01, 0.01, 0.01], [0.03, 0.03, 0.03], id="the same thrice"),
        pytest.param([0.6, 0.7], [1.0, 1.0], id="never above 1"),
        pytest.param([0.03], [0.03], id="one is not corrected"),
        pytest.param([], [], id="none"),
    ],
)
def test_holm_gives_the_numbers_by_hand(p_values: list[float], adjusted: list[float]) -> None:
    """The smallest of m is multiplied by m, the next by m - 1, and none falls below an earlier."""
    assert holm(p_values) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=7))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis falls where Bonferroni refuses every set of hypotheses that it is in."""
    places = range(len(p_values))
    sets = [some for size in places for some in combinations(places, size + 1)]
    smallest = {some: min(1.0, len(some) * min(p_values[i] for i in some)) for some in sets}
    by_hand = [max(p for some, p in smallest.items() if place in some) for place in places]

    assert holm(p_values) == pytest.approx(by_hand)


def flips(*changes: float, steps: int = 1) -> float:
    """Return the p value of changes from nothing."""
    after = {str(place): change for place, change in enumerate(changes)}
    return sign_flip(dict.fromkeys(after, 0.0), after, steps=steps)


@pytest.mark.parametrize(
    ("changes", "steps", "p"),
    [
        pytest.param([1, 1, 1], 1, 2 / 8, id="three of three"),
        pytest.param([1, 1, 1, 0, 0], 1, 2 / 8, id="what stays does not count"),
        pytest.param([1, 1, 1, 1, 1, -1], 1, 14 / 64, id="five of six, McNemar's exact test"),
        pytest.param([1, -1], 1, 1, id="one up, one down"),
        pytest.param([0, 0], 1, 1, id="nothing changed"),
        pytest.param([], 1, 1, id="no prompts"),
        pytest.param([2 / 3, 1 / 3], 3, 2 / 4, id="thirds, both up"),
        pytest.param([2 / 3, -1 / 3], 3, 1, id="thirds, one down"),
    ],
)
def test_the_sign_flip_test_gives_the_numbers_by_hand(
    changes: list[float], steps: int, p: float
) -> None:
    """The share of all signs that move the sum as far."""
    assert flips(*changes, steps=steps) == p
    assert flips(*(-change for change in changes), steps=steps) == p


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_sign_flip_test_counts_all_signs(changes: list[int]) -> None:
    """Counted one by one it is the same."""
    far = abs(sum(changes))
    sums = [sum(map(mul, changes, signs)) for signs in product((1, -1), repeat=len(changes))]
    share = sum(abs(total) >= far for total in sums) / len(sums)
    assert flips(*(change / 4 for change in changes), steps=4) == pytest.approx(share)


@given(st.integers(0, 500), st.integers(0, 500))
def test_of_right_and_wrong_answers_the_test_is_scipys_binomial(ups: int, downs: int) -> None:
    """McNemar's exact test asks whether as many change for the better as for the worse."""
    expected = stats.binomtest(ups, ups + downs).pvalue if ups + downs else 1.0

    assert flips(*[1.0] * ups, *[-1.0] * downs) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=8))
def test_of_fractions_the_test_is_scipys_permutation_test(scores: list[tuple[int, int]]) -> None:
    """A contrast of two models with scores in tenths: signs of pairs are the permutations."""
    a, b = ({str(n): pair[side] / 10 for n, pair in enumerate(scores)} for side in (0, 1))
    changes = np.array([after - before for before, after in scores])
    expected = stats.permutation_test((changes,), np.sum, permutation_type="samples")

    assert contrast("de", a, b).p == pytest.approx(expected.pvalue)


def test_contrasts_of_a_suite_are_corrected_by_holm() -> None:
    """Each language keeps its place and its own p beside the corrected one."""
    changes = {"de": 9, "es": 12, "ru": 3}
    before = dict.fromkeys(map(str, range(12)), 0.0)
    found = corrected(
        [
            contrast(tag, before, {i: float(int(i) < n) for i in before})
            for tag, n in changes.items()
        ]
    )

    assert [one.language for one in found] == list(changes)
    assert [one.p for one in found] == pytest.approx([2 / 2**9, 2 / 2**12, 2 / 2**3])
    assert [one.adjusted for one in found] == pytest.approx([4 / 2**9, 6 / 2**12, 2 / 2**3])


@pytest.mark.parametrize("moved", [0, 2, 30, 66, 90, 150])
def test_many_prompts_are_tested_as_few_are(moved: int) -> None:
    """Beyond a thousand changes the normal approximation stays within .001 of the exact p."""
    ups = 600 + moved // 2
    changes = [1.0] * ups + [-1.0] * (1200 - ups)
    exact = min(1.0, 2 * sum(math.comb(1200, k) for k in range(ups, 1201)) / 2**1200)
    assert flips(*changes) == pytest.approx(exact, abs=0.001)


def test_of_many_languages_without_a_difference_few_look_different() -> None:
    """In 1,000 simulated comparisons of ten languages Holm finds something in at most 5 %.

    Without the correction it would be in more than a quarter.
    """
    generator = random.Random(11)
    corrected = uncorrected = 0
    for _ in range(1000):
        p_values = [
            flips(*(generator.choice((-1.0, 0.0, 0.0, 1.0)) for _ in range(40))) for _ in range(10)
        ]
        uncorrected += min(p_values) < 0.05
        corrected += min(holm(p_values)) < 0.05
    assert corrected <= 50
    assert uncorrected > 200


def test_the_interval_of_a_mean_over_languages_covers_the_truth() -> None:
    """Of 1,000 simulated evaluations 93 to 97 % of the intervals hold the true mean.

    A hard prompt is hard in each of three languages: rows drawn apart would make the interval
    too narrow.
    """
    generator = random.Random(5)
    covered = 0
    for _ in range(1000):
        ease = [generator.choice((0.2, 0.8)) for _ in range(60)]
        languages = [
            {str(place): float(generator.random() < p) for place, p in enumerate(ease)}
            for _ in range(3)
        ]
        parallel = mean_over(languages)
        assert parallel is not None
        found = bootstrap(list(parallel.values()), resamples=1000)
        covered += found.low <= 0.5 <= found.high
    assert 930 <= covered <= 970
