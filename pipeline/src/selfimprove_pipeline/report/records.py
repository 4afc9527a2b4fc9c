"""Assessments and comparisons for programs, as CSV and JSON; `handouts` has them for people.

Numbers are not rounded. A CSV has one line a number, so that files of many models
can be put below each other; the JSON nests them by suite and language.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from selfimprove_pipeline.contrast import Contrast
from selfimprove_pipeline.report import wording
from selfimprove_pipeline.report.assessment import Assessment
from selfimprove_pipeline.report.comparison import Comparison, SuiteContrast
from selfimprove_pipeline.report.results import OUR_OWN
from selfimprove_pipeline.report.story import Entry, Judged, Measured, SuiteStory
from selfimprove_pipeline.statistics import Interval, Rate, wilson
from selfimprove_pipeline.turns import OF_TURNS

Record = Mapping[str, Any]

SHARES = ("win", "tie", "lose")
GRADES = ("grade", *OF_TURNS)

MEAN = "mean"
"""Stands for the language in the records of a mean over the languages."""


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


def harness_records(suite: SuiteStory, entry: Entry) -> Iterator[Record]:
    """Yield what lm-eval tells of a model or a baseline, without intervals."""
    for (found, task), told in suite.results.items():
        n = told.get("n")
        for metric, value in told.items():
            if found == entry and metric not in OUR_OWN:
                of_metric = {"language": task, "measure": metric, "value": value}
                yield {**of_metric, "n": None if n is None else int(n), **bounds(None)}


def verdict_records(found: Judged) -> Iterator[Record]:
    """Yield the win rate with its interval, then the shares; or the mean grade, then the turns'."""
    for measure in (*GRADES, "winRate", "lcWinRate", *SHARES, "positionBias"):
        if measure in found.measures:
            yield {
                "suite": found.suite,
                "language": found.language,
                "measure": measure,
                "value": found.measures[measure],
                "n": None if measure in OF_TURNS else found.decided,
                **bounds(interval_of(found, measure)),
            }


def interval_of(found: Judged, measure: str) -> Interval | None:
    """Return the interval of a win rate or a mean grade, or of wins, ties or losses."""
    if measure in SHARES:
        return wilson(round(found.measures[measure] * found.decided), found.decided)
    is_shown = measure in ("winRate", "grade")
    return found.estimate.interval if is_shown and found.estimate else None


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
        languages[record["language"]] = _without(record, "suite", "language")
    duels = {"headToHead": nested(duel_records(found))} if found.duels else {}
    notes = list(found.notes)
    return as_json({"a": found.a, "b": found.b, "suites": suites, **duels, "notes": notes})


def as_csv(records: Sequence[Record]) -> str:
    """Return records with the same fields as CSV, nothing of none."""
    if not records:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def verdict_of(found: Contrast, suite: SuiteContrast) -> str:
    """Say in words what a difference means."""
    n = found.difference.n if found.difference else None
    return wording.judgement(found.sign, n, suite.measure)


def rates_of(found: Measured, suite: SuiteStory) -> dict[str, Rate]:
    """Return the rates that were measured, under their names in `show -o json`.

    Of tasks of lm-eval, whose completions may be options, it is the score alone.
    """
    if suite.has_tasks:
        return {} if found.score is None else {"score": found.score}
    named = {
        "score": found.score,
        "offTarget": found.off_target,
        "empty": found.empty,
        "evasive": found.evasive,
        "truncated": found.truncated,
    }
    return {name: rate for name, rate in named.items() if rate is not None}


def of_rate(rate: Rate) -> Record:
    """Return a rate with its number of prompts and its interval."""
    return {"value": rate.value, "n": rate.n, **bounds(rate.interval)}


def bounds(interval: Interval | None) -> Record:
    """Return the bounds of an interval, None of none."""
    return {
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def nested(records: Iterable[Record]) -> dict[str, dict[str, dict[str, Record]]]:
    """Return records by suite, language and measure."""
    found: dict[str, dict[str, dict[str, Record]]] = {}
    for record in records:
        languages = found.setdefault(record["suite"], {})
        measures = languages.setdefault(record["language"], {})
        measures[record["measure"]] = _without(record, "model", "suite", "language", "measure")
    return found


def _without(record: Record, *names: str) -> Record:
    return {name: value for name, value in record.items() if name not in names}


def as_json(value: Any) -> str:
    """Return JSON for people too."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
