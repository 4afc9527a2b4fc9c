"""Numbers for programs: what a record is, and records as CSV and JSON.

Those of models without a run are made of them in `models.records`, those of a run in `run_records`.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from selfimprove_pipeline.measuring.intervals import Interval, Rate, wilson
from selfimprove_pipeline.measuring.judged.turns import OF_TURNS
from selfimprove_pipeline.report.story.story import Entry, Judged, Measured, SuiteStory
from selfimprove_pipeline.report.tables.results import OUR_OWN

Record = Mapping[str, Any]

SHARES = ("win", "tie", "lose")
GRADES = ("grade", *OF_TURNS)

MEAN = "mean"
"""Stands for the language in the records of a mean over the languages."""


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


def as_csv(records: Sequence[Record]) -> str:
    """Return records with the same fields as CSV, nothing of none."""
    if not records:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


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
        measures[record["measure"]] = without(record, "model", "suite", "language", "measure")
    return found


def without(record: Record, *names: str) -> Record:
    """Return a record without some of its fields."""
    return {name: value for name, value in record.items() if name not in names}


def as_json(value: Any) -> str:
    """Return JSON for people too."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
