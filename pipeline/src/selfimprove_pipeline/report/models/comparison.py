"""From the answers of two models to the differences between them: the arithmetic of `compare`.

Pure: rows in, differences out. Both models have answered the same prompts, so the interval is
the paired one of `intervals`; p values are corrected over the languages of a suite, as of many
languages one will look different by chance. `contenders` reads the rows, `records` shows them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.measuring.differences import (
    Contrast,
    Measure,
    Values,
    common_ids,
    contrast,
    corrected,
    measure_of,
    of_means,
    values_of_both,
)
from selfimprove_pipeline.report.story.story import Judged

Answers = Mapping[str, Evaluated]
"""One model's answers to a suite in one language, by id."""


@dataclass(frozen=True, kw_only=True)
class SuiteContrast:
    """B minus A on one suite."""

    name: str
    measure: Measure
    languages: tuple[Contrast, ...]
    unseen: tuple[Contrast, ...]
    """unseen are the languages that the recipe of A or of B does not train."""
    mean: Contrast | None
    """mean over `languages`, each counting the same; None of fewer than two."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that `compare` tells of two models."""

    a: str
    b: str
    """a and b name the models."""
    suites: tuple[SuiteContrast, ...]
    notes: tuple[str, ...]
    """notes say what was not compared, and what was not measured in the same way."""
    duels: tuple[Judged, ...] = ()
    """duels are what a judge prefers of B to A, by suite and language."""


def suite_contrast(
    name: str,
    answers: Mapping[str, tuple[Answers, Answers]],
    notes: list[str],
    *,
    unseen: Collection[str] = (),
    counts_languages: bool = False,
) -> SuiteContrast | None:
    """Return the differences on a suite; notes tell which languages have none, and why."""
    measure = measure_of(
        (row for pair in answers.values() for rows in pair for row in rows.values()),
        counts_languages=counts_languages,
    )
    values = {}
    for language, (a, b) in answers.items():
        where = f"{name}, {language}"
        common = common_ids(a, b)
        if len(common) < max(len(a), len(b)):
            notes.append(_uncommon(where, len(common), len(a), len(b)))
        values[language] = values_of_both(a, b, common, measure)
        if common and not values[language][0]:
            notes.append(f"{where}: not compared, {_NOT_JUDGED[measure]}")
    judged = {language: pair for language, pair in values.items() if pair[0]}
    if not judged:
        return None
    contrasts = corrected([contrast(language, *pair) for language, pair in judged.items()])
    trained = [pair for language, pair in judged.items() if language not in unseen]
    return SuiteContrast(
        name=name,
        measure=measure,
        languages=tuple(found for found in contrasts if found.language not in unseen),
        unseen=tuple(found for found in contrasts if found.language in unseen),
        mean=_mean([a for a, _ in trained], [b for _, b in trained]),
    )


_NOT_JUDGED: Mapping[Measure, str] = {
    "score": "one of them was measured without gold answers",
    "offTarget": "no language was identified in the answers of one of them",
}


def _uncommon(where: str, common: int, a: int, b: int) -> str:
    if not common:
        return f"{where}: not compared, no prompt is common to both ({a} of A, {b} of B)"
    return f"{where}: compared on the {common} prompts that both have answered ({a} of A, {b} of B)"


def _mean(a: Sequence[Values], b: Sequence[Values]) -> Contrast | None:
    """Return the contrast of the means, None of fewer than two languages."""
    count = len(a)
    if count < 2:  # noqa: PLR2004  the mean over one language is the language
        return None
    # A mean of k zeros and ones is a multiple of 1 / k.
    return of_means(a, b, steps=count)
