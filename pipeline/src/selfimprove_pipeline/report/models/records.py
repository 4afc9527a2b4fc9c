"""Assessments and comparisons for programs, as CSV and JSON; `handouts` has them for people.

Numbers are not rounded. A CSV has one line a number, so that files of many models
can be put below each other; the JSON nests them by suite and language.
"""

from collections.abc import Iterator
from typing import Any

from selfimprove_pipeline.measuring.differences import Contrast
from selfimprove_pipeline.report.forms.records import (
    MEAN,
    Record,
    as_json,
    bounds,
    harness_records,
    nested,
    of_rate,
    rates_of,
    verdict_records,
    without,
)
from selfimprove_pipeline.report.models.assessment import Assessment
from selfimprove_pipeline.report.models.comparison import Comparison, SuiteContrast
from selfimprove_pipeline.report.words import wording


def assessment_records(found: Assessment) -> Iterator[Record]:
    """Yield each rate of a model with its interval."""
    for one in found.suites:
        for tag in (*one.languages, *one.unseen):
            for measure, rate in rates_of(one.measured(tag), one.suite).items():
                yield {
                    "suite": one.suite.name,
                    "language": tag,
                    "measure": measure,
                    **of_rate(rate),
                }
        for verdicts in one.judged:
            yield from verdict_records(verdicts)
        yield from ({"suite": one.suite.name, **found} for found in harness_records(one.suite, 0))
        if one.mean is not None:
            yield {
                "suite": one.suite.name,
                "language": MEAN,
                "measure": one.suite.measure,
                "value": one.mean.value,
                "n": one.mean.n,
                **bounds(one.mean.interval),
            }


def comparison_records(found: Comparison) -> Iterator[Record]:
    """Yield each difference between two models."""
    for suite in found.suites:
        means = [suite.mean] if suite.mean else []
        for contrast in (*suite.languages, *suite.unseen, *means):
            yield {
                "suite": suite.name,
                "language": contrast.language or MEAN,
                "measure": suite.measure,
                "a": contrast.a,
                "b": contrast.b,
                "difference": contrast.value,
                "n": contrast.difference.n if contrast.difference else None,
                **bounds(contrast.difference.interval if contrast.difference else None),
                "p": contrast.p,
                "pHolm": contrast.adjusted,
                "verdict": verdict_of(contrast, suite),
            }


def duel_records(found: Comparison) -> Iterator[Record]:
    """Yield what a judge prefers of B to A."""
    for duel in found.duels:
        yield from verdict_records(duel)


def assessment_json(found: Assessment) -> str:
    """Return an assessment as JSON."""
    model = {"model": found.label, "digest": found.digest, "artifacts": dict(found.keys)}
    return as_json({**model, "suites": nested(assessment_records(found))})


def comparison_json(found: Comparison) -> str:
    """Return a comparison as JSON."""
    suites: dict[str, dict[str, Any]] = {}
    for record in comparison_records(found):
        languages = suites.setdefault(record["suite"], {})
        languages[record["language"]] = without(record, "suite", "language")
    duels = {"headToHead": nested(duel_records(found))} if found.duels else {}
    notes = list(found.notes)
    return as_json({"a": found.a, "b": found.b, "suites": suites, **duels, "notes": notes})


def verdict_of(found: Contrast, suite: SuiteContrast) -> str:
    """Say in words what a difference means."""
    n = found.difference.n if found.difference else None
    return wording.judgement(found.sign, n, suite.measure)
