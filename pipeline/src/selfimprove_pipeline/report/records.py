"""Assessments and comparisons as they leave: sheets for people, CSV and JSON for programs.

Numbers for programs are not rounded. A CSV has one line a number, so that files of many models
can be put below each other; the JSON nests them by suite and language.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from selfimprove_pipeline.report import markdown, sheets, wording
from selfimprove_pipeline.report.assessment import Assessment, Mean, SuiteAssessment
from selfimprove_pipeline.report.comparison import Comparison, Contrast, SuiteContrast
from selfimprove_pipeline.report.sheets import Cells, Sheet
from selfimprove_pipeline.report.story import Judged, Measure, Measured
from selfimprove_pipeline.statistics import Interval, Rate

Record = Mapping[str, Any]

MEAN = "mean"
"""Stands for the language in the records of a mean over the languages."""


def assessment_sheets(found: SuiteAssessment) -> Iterator[tuple[str, Sheet]]:
    """Yield a model's rates on a suite and what its answers were like, below a title."""
    measure = found.suite.measure
    means = [_mean_cells(found.mean)] if found.mean else []
    both = (
        Sheet(
            texts=("Language",),
            numbers=(f"Share of {wording.MEASURES[measure]}", *_rest(sheets.ANSWERS, measure)),
            rows=rows,
            absent="Nothing was measured.",
        )
        for rows in (
            (*(_language_cells(found, tag) for tag in found.languages), *means),
            tuple(_language_cells(found, tag) for tag in found.unseen),
        )
    )
    yield from _titled(found.suite.name, measure, *both)
    judged = sheets.judged(found.judged, found.suite.name, (*found.languages, *found.unseen))
    if judged.rows:
        rows = tuple(cells[1:] for cells in judged.rows)  # there is one model
        title = f"{found.suite.name}: win, tie, lose"
        yield title, replace(judged, texts=judged.texts[1:], rows=rows)


def comparison_sheets(found: SuiteContrast) -> Iterator[tuple[str, Sheet]]:
    """Yield the differences between two models on a suite, below a title."""
    means = [found.mean] if found.mean else []
    both = (
        Sheet(
            texts=("Language", "B against A"),
            numbers=("A", "B", "B − A", "95 % interval", "p", "p (Holm)", "Prompts"),  # noqa: RUF001
            rows=tuple(_contrast_cells(contrast, found) for contrast in contrasts),
            absent="Nothing was compared.",
        )
        for contrasts in ((*found.languages, *means), found.unseen)
    )
    yield from _titled(found.name, found.measure, *both)


def assessment_markdown(found: Assessment) -> str:
    """Return the tables of an assessment as Markdown."""
    return _page(
        f"# {markdown.plain(found.label)}",
        *(
            f"## {title}\n\n{markdown.table(sheet)}"
            for one in found.suites
            for title, sheet in assessment_sheets(one)
        ),
        wording.ASSESSED,
        f"Model {found.digest}",
    )


def comparison_markdown(found: Comparison) -> str:
    """Return the tables of a comparison as Markdown."""
    return _page(
        f"# {markdown.plain(found.b)} against {markdown.plain(found.a)}",
        f"A is {markdown.plain(found.a)}, B is {markdown.plain(found.b)}.",
        *(
            f"## {title}\n\n{markdown.table(sheet)}"
            for one in found.suites
            for title, sheet in comparison_sheets(one)
        ),
        wording.COMPARED,
        *(f"- {markdown.plain(note)}" for note in found.notes),
    )


def assessment_records(found: Assessment) -> Iterator[Record]:
    """Yield each rate of a model with its interval."""
    for one in found.suites:
        for tag in (*one.languages, *one.unseen):
            for measure, rate in _rates(one.measured(tag)).items():
                yield {
                    "suite": one.suite.name,
                    "language": tag,
                    "measure": measure,
                    **_of_rate(rate),
                }
        for verdicts in one.judged:
            yield from _verdict_records(verdicts)
        if one.mean is not None:
            yield {
                "suite": one.suite.name,
                "language": MEAN,
                "measure": one.suite.measure,
                "value": one.mean.value,
                "n": one.mean.n,
                **_bounds(one.mean.interval),
            }


def _verdict_records(found: Judged) -> Iterator[Record]:
    """Yield the win rate with its interval, then the shares."""
    for measure in ("winRate", "lcWinRate", "win", "tie", "lose", "positionBias"):
        if measure in found.measures:
            yield {
                "suite": found.suite,
                "language": found.language,
                "measure": measure,
                "value": found.measures[measure],
                "n": found.decided,
                "low": found.measures.get(f"{measure}Low"),
                "high": found.measures.get(f"{measure}High"),
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
                **_bounds(contrast.difference.interval if contrast.difference else None),
                "p": contrast.p,
                "pHolm": contrast.adjusted,
                "verdict": _verdict(contrast, suite),
            }


def assessment_json(found: Assessment) -> str:
    """Return an assessment as JSON."""
    model = {"model": found.label, "digest": found.digest, "artifacts": dict(found.keys)}
    return _json({**model, "suites": _nested(assessment_records(found))})


def comparison_json(found: Comparison) -> str:
    """Return a comparison as JSON."""
    suites: dict[str, dict[str, Any]] = {}
    for record in comparison_records(found):
        languages = suites.setdefault(record["suite"], {})
        languages[record["language"]] = _without(record, "suite", "language")
    return _json({"a": found.a, "b": found.b, "suites": suites, "notes": list(found.notes)})


def as_csv(records: Sequence[Record]) -> str:
    """Return records with the same fields as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _titled(
    name: str, measure: Measure, trained: Sheet, unseen: Sheet
) -> Iterator[tuple[str, Sheet]]:
    """Yield the sheets that have rows; languages that are not trained stand apart."""
    title = f"{name}: {wording.MEASURES[measure]}"
    titled = ((title, trained), (f"{title} {wording.APART}", unseen))
    yield from (pair for pair in titled if pair[1].rows)


def _language_cells(found: SuiteAssessment, tag: str) -> Cells:
    measured, measure = found.measured(tag), found.suite.measure
    share = wording.share(measured.by(measure))
    return (tag, share, *_rest(sheets.answer_cells(measured), measure))


def _rest(cells: Cells, measure: Measure) -> Cells:
    """Return cells of `sheets.ANSWERS` without the measure, which has its own column."""
    place = {"score": 1, "offTarget": 2}[measure]
    return (*cells[:place], *cells[place + 1 :])


def _mean_cells(found: Mean) -> Cells:
    """Return the row of the mean; what the answers were like is told by language alone."""
    bounds = f" ({wording.interval(found.interval)})" if found.interval else ""
    prompts = wording.NONE if found.n is None else wording.count(found.n)
    rest = (wording.NONE,) * (len(sheets.ANSWERS) - 2)
    return (_mean_of(found.languages), f"{wording.rate(found.value)}{bounds}", prompts, *rest)


def _contrast_cells(found: Contrast, suite: SuiteContrast) -> Cells:
    difference = found.difference
    return (
        found.language or _mean_of(len(suite.languages)),
        _verdict(found, suite),
        wording.rate(found.a),
        wording.rate(found.b),
        wording.signed(found.value),
        wording.change_interval(difference.interval) if difference else wording.NONE,
        wording.probability(found.p),
        wording.probability(found.adjusted),
        wording.count(difference.n) if difference else wording.NONE,
    )


def _verdict(found: Contrast, suite: SuiteContrast) -> str:
    n = found.difference.n if found.difference else None
    return wording.judgement(found.sign, n, suite.measure)


def _mean_of(count: int) -> str:
    return f"mean of {count}"


def _rates(found: Measured) -> dict[str, Rate]:
    """Return the rates that were measured, under their names in `show -o json`."""
    named = {
        "score": found.score,
        "offTarget": found.off_target,
        "empty": found.empty,
        "evasive": found.evasive,
        "truncated": found.truncated,
    }
    return {name: rate for name, rate in named.items() if rate is not None}


def _of_rate(rate: Rate) -> Record:
    return {"value": rate.value, "n": rate.n, **_bounds(rate.interval)}


def _bounds(interval: Interval | None) -> Record:
    return {
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def _nested(records: Iterator[Record]) -> dict[str, dict[str, dict[str, Record]]]:
    """Return records by suite, language and measure."""
    found: dict[str, dict[str, dict[str, Record]]] = {}
    for record in records:
        languages = found.setdefault(record["suite"], {})
        measures = languages.setdefault(record["language"], {})
        measures[record["measure"]] = _without(record, "suite", "language", "measure")
    return found


def _without(record: Record, *names: str) -> Record:
    return {name: value for name, value in record.items() if name not in names}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _page(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"
