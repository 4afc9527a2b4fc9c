"""What one model came to on its suites: numbers of `selfimprove evaluate`, each with its interval.

The rates and tables are those of the report (`evaluation`, `sheets`); here stands what a single
model has more: the interval of its mean over the languages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from selfimprove_pipeline.contract import rows as row_files
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe import Languages, Spec, Suite
from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.measuring import differences
from selfimprove_pipeline.measuring.intervals import Interval, bootstrap, mean_over
from selfimprove_pipeline.report.story import evaluation
from selfimprove_pipeline.report.story.story import Judged, Measured, SuiteStory
from selfimprove_pipeline.store.repository import Repository

Parts = Mapping[tuple[str, str], Sequence[Evaluated]]
"""Evaluated rows by suite and language."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of a suite's measure over the recipe's languages, each counting the same."""

    value: float
    interval: Interval | None
    """interval over the prompts, None where the languages' ids are not the same."""
    languages: int
    """languages is how many the measure judges."""
    n: int | None
    """n is the number of prompts, each in every language; None where `interval` is."""


@dataclass(frozen=True, kw_only=True)
class SuiteAssessment:
    """A model on one suite."""

    suite: SuiteStory
    languages: tuple[str, ...]
    unseen: tuple[str, ...]
    """unseen are the suite's languages that are none of the recipe's."""
    mean: Mean | None
    """mean is None of fewer than two languages that the measure judges."""
    judged: tuple[Judged, ...] = ()
    """judged holds the verdicts by language, none of a suite without a judge."""

    def measured(self, language: str) -> Measured:
        """Return the rates in one language."""
        return self.suite.measured[0, language]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """A model on all its suites."""

    label: str
    digest: str
    suites: tuple[SuiteAssessment, ...]
    rows: Parts
    keys: Mapping[str, str]
    """keys of the artifacts by part."""


def gather(
    repository: Repository,
    label: str,
    digest: str,
    manifests: Mapping[str, Manifest],
    spec: Spec,
) -> Assessment:
    """Return what a model's finished evaluations hold."""
    rows: dict[tuple[str, str], Sequence[Evaluated]] = {}
    for part, manifest in manifests.items():
        suite, language = part.split(".", 1)
        found = repository.rows(manifest, row_files.Evaluated)
        for tag, by_id in evaluation.by_language(language, found):
            rows[suite, tag] = tuple(by_id.values())
    measured = {suite for suite, _ in rows}
    return Assessment(
        label=label,
        digest=digest,
        suites=tuple(
            suite_assessment(suite, rows, spec.languages)
            for suite in spec.evaluation.suites
            if suite.name in measured
        ),
        rows=rows,
        keys={part: manifest.key for part, manifest in manifests.items()},
    )


def with_results(found: Assessment, manifests: Mapping[str, Manifest]) -> Assessment:
    """Return an assessment with what lm-eval tells of the tasks of its suites."""
    parts = [(0, part, manifest) for part, manifest in manifests.items()]
    suites = (
        replace(one, suite=replace(one.suite, results=evaluation.results(one.suite.name, parts)))
        for one in found.suites
    )
    return replace(found, suites=tuple(suites))


def with_verdicts(found: Assessment, manifests: Mapping[str, Manifest]) -> Assessment:
    """Return an assessment with the verdicts on its suites."""
    judged = [evaluation.judged(0, part, manifest) for part, manifest in manifests.items()]
    suites = (
        replace(one, judged=tuple(row for row in judged if row.suite == one.suite.name))
        for one in found.suites
    )
    return replace(found, suites=tuple(suites))


def suite_assessment(suite: Suite, rows: Parts, languages: Languages) -> SuiteAssessment:
    """Return what the answers to one suite amount to."""
    answers = {
        (name, 0, language): {row.id: row for row in found}
        for (name, language), found in rows.items()
    }
    story = evaluation.suite_story(suite, languages, answers)
    ordered = (*languages.others, languages.dominant)
    every = story.languages or () if suite.has_tasks else ordered
    tags = tuple(tag for tag in every if (0, tag) in story.measured)
    values = [differences.values_of(answers[suite.name, 0, tag], story.measure) for tag in tags]
    return SuiteAssessment(
        suite=story,
        languages=tags,
        unseen=tuple(
            tag
            for tag in suite.languages_in(languages)
            if tag not in ordered and (0, tag) in story.measured and not suite.has_tasks
        ),
        mean=_mean([found for found in values if found]),
    )


def _mean(values: Sequence[Mapping[str, float]]) -> Mean | None:
    if len(values) < 2:  # noqa: PLR2004  the mean over one language is the language
        return None
    parallel = mean_over(values)
    return Mean(
        value=differences.mean_of(values),
        interval=bootstrap([parallel[name] for name in sorted(parallel)]) if parallel else None,
        languages=len(values),
        n=len(parallel) if parallel else None,
    )
