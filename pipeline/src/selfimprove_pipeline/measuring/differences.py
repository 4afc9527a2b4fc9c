"""Two models on the same prompts of one suite: the difference, its interval, its p value.

Pure: answers in, differences out. Both models have answered the same prompts, so the interval is
the paired one of `intervals`. `models.comparison` tells them, `gates` acts on them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.measuring.intervals import (
    CONFIDENCE,
    FEWEST,
    Difference,
    holm,
    mean_over,
    paired_bootstrap,
    sign_flip,
)

FRACTIONS: Final = 10
"""Scores between 0 and 1 are tested as multiples of one tenth."""
Measure = Literal["score", "offTarget"]
"""What a suite is judged by: right answers, or without gold answers those in a wrong language."""

Values = Mapping[str, float]
"""What a measure says of each prompt, by id."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """B minus A in one language of a suite, or in the mean over the languages."""

    language: str | None
    """language, None for the mean."""
    a: float
    b: float
    """a and b are the models' means over the prompts that both have answered."""
    difference: Difference | None
    """difference is None for a mean of languages whose ids are not the same."""
    p: float | None
    """p of no difference, None where `difference` is."""
    adjusted: float | None = None
    """adjusted is p corrected over the suite's languages; the mean is not one of them."""

    @property
    def value(self) -> float:
        """B minus A."""
        return self.b - self.a

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is significant, else 0; 0 for very few prompts."""
        p = self.p if self.language is None else self.adjusted
        if self.difference is None or p is None or self.difference.n < FEWEST:
            return 0
        is_real = p < 1 - CONFIDENCE
        return ((self.value > 0) - (self.value < 0)) if is_real else 0


ContrastT = TypeVar("ContrastT", bound=Contrast)


def contrast(language: str, a: Values, b: Values, *, steps: int = 1) -> Contrast:
    """Return the difference in one language; both have a value for each id.

    Values are multiples of 1 / steps, or are rounded to such for p; fractions to tenths at least.
    """
    steps = max(steps, _steps_of([a, b]))
    return Contrast(
        language=language,
        a=mean_of([a]),
        b=mean_of([b]),
        difference=paired_bootstrap(a, b),
        p=sign_flip(a, b, steps=steps),
    )


def of_means(a: Sequence[Values], b: Sequence[Values], *, steps: int) -> Contrast:
    """Return the difference of the means; a prompt's mean over the languages is one value."""
    steps = max(steps, _steps_of([*a, *b]))
    means = [found for found in (mean_over(a), mean_over(b)) if found is not None]
    is_parallel = len(means) == 2  # noqa: PLR2004  A and B
    return Contrast(
        language=None,
        a=mean_of(a),
        b=mean_of(b),
        difference=paired_bootstrap(*means) if is_parallel else None,
        p=sign_flip(*means, steps=steps) if is_parallel else None,
    )


def _steps_of(values: Iterable[Values]) -> int:
    """Return into how many steps p needs one to be cut: none where all values are whole."""
    is_whole = all(value.is_integer() for rows in values for value in map(float, rows.values()))
    return 1 if is_whole else FRACTIONS


def corrected(contrasts: Sequence[ContrastT]) -> tuple[ContrastT, ...]:
    """Return the languages of a suite with p values corrected for their number."""
    adjusted = holm([found.p for found in contrasts if found.p is not None])
    return tuple(
        replace(found, adjusted=value) for found, value in zip(contrasts, adjusted, strict=True)
    )


def measure_of(rows: Iterable[Evaluated], *, counts_languages: bool = False) -> Measure:
    """Return what answers are judged by: whether they are right, where gold answers tell.

    A suite that counts languages is about them also where its rows have gold answers.
    """
    is_scored = any(row.score is not None for row in rows)
    return "score" if is_scored and not counts_languages else "offTarget"


def values_of(by_id: Mapping[str, Evaluated], measure: Measure) -> dict[str, float]:
    """Return what a measure says of each id, nothing of those that it does not judge."""
    if measure == "offTarget" and not are_identified(by_id.values()):
        return {}
    if measure == "offTarget":
        return {identifier: float(row.is_off_target) for identifier, row in by_id.items()}
    return {identifier: row.score for identifier, row in by_id.items() if row.score is not None}


def values_of_both(
    a: Mapping[str, Evaluated], b: Mapping[str, Evaluated], ids: Collection[str], measure: Measure
) -> tuple[Values, Values]:
    """Return what a measure says of those of some ids that it judges for both models."""
    of_a, of_b = (values_of({name: rows[name] for name in ids}, measure) for rows in (a, b))
    both = sorted(of_a.keys() & of_b.keys())
    return {name: of_a[name] for name in both}, {name: of_b[name] for name in both}


def common_ids(a: Mapping[str, Evaluated], b: Mapping[str, Evaluated]) -> list[str]:
    """Return the ids of the prompts that both have answered; the same id must mean the same."""
    return sorted(name for name in a.keys() & b.keys() if a[name].prompt == b[name].prompt)


def are_identified(rows: Collection[Evaluated]) -> bool:
    """Return whether a language was found in any of some answers."""
    return any(row.identified is not None for row in rows)


def mean_of(languages: Sequence[Values]) -> float:
    """Return the mean of the languages' means: every language counts the same."""
    return sum(sum(rows.values()) / len(rows) for rows in languages) / len(languages)
