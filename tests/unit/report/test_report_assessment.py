"""One model on its suites: the numbers and how they are written."""

import csv
import io
import json

import pytest
from rich.console import Console

from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe import Languages, Suite
from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.measuring.intervals import wilson
from selfimprove_pipeline.report.forms.records import as_csv
from selfimprove_pipeline.report.forms.terminal import of_sheet
from selfimprove_pipeline.report.models import handouts
from selfimprove_pipeline.report.models.assessment import (
    Assessment,
    suite_assessment,
    with_verdicts,
)
from selfimprove_pipeline.report.models.records import assessment_json, assessment_records

LANGUAGES = Languages(dominant="en", others=("es", "de"))
SUITE = Suite(name="s", kind="exactMatch", uri="s3://eval/s")
EVIL = "[red]| `m0` |<b>"


def rows(right: int | None, n: int = 100, *, off: int = 0, known: bool = True) -> list[Evaluated]:
    """Return answers of which the first ones are right, and the first ones off target."""
    return [
        Evaluated(
            id=f"p{place}",
            language="xx",
            prompt="q",
            completion="a",
            finish_reason="stop",
            completion_tokens=1,
            score=None if right is None else float(place < right),
            identified="en" if known else None,
            is_off_target=place < off,
            is_empty=False,
            is_evasive=False,
        )
        for place in range(n)
    ]


def assessed(*unseen: str) -> Assessment:
    """Return a model with right answers of .40, .20 and .90 in en, es and de, else of .10."""
    found = {("s", "en"): rows(40, off=3), ("s", "es"): rows(20), ("s", "de"): rows(90)}
    found |= {("s", tag): rows(10) for tag in unseen}
    own = (*unseen, *LANGUAGES.all()) if unseen else None
    suite = suite_assessment(SUITE.model_copy(update={"languages": own}), found, LANGUAGES)
    return Assessment(label=EVIL, digest="d", suites=(suite,), rows=found, keys={"s.en": "k"})


def test_every_rate_is_written_with_n_and_its_wilson_interval() -> None:
    """In the JSON by suite, language and measure, in the CSV as one line each, not rounded."""
    found = assessed()
    nested = json.loads(assessment_json(found))["suites"]["s"]
    lines = list(csv.DictReader(io.StringIO(as_csv(list(assessment_records(found))))))
    expected = wilson(20, 100)

    assert nested["es"]["score"] == {
        "value": 0.2,
        "n": 100,
        "low": expected.low,
        "high": expected.high,
    }
    assert nested["en"]["offTarget"]["value"] == 0.03
    assert len(lines) == 3 * 5 + 1
    assert {
        "suite": "s",
        "language": "es",
        "measure": "score",
        "value": "0.2",
        "n": "100",
        "low": str(expected.low),
        "high": str(expected.high),
    } in lines


def test_the_mean_has_an_interval_over_the_prompts() -> None:
    """The dominant language counts as the others; a resample draws a prompt in all languages."""
    (suite,) = assessed().suites

    assert suite.languages == ("es", "de", "en")
    assert suite.mean is not None
    assert suite.mean.value == pytest.approx(0.5)
    assert (suite.mean.languages, suite.mean.n) == (3, 100)
    assert suite.mean.interval is not None
    # 20 prompts have 1, 20 have 2/3, 50 have 1/3, 10 have 0: a deviation of .30.
    assert suite.mean.interval.low == pytest.approx(0.5 - 1.96 * 0.030, abs=0.01)
    assert suite.mean.interval.high == pytest.approx(0.5 + 1.96 * 0.030, abs=0.01)


def test_a_language_that_no_detector_knows_is_not_in_the_mean() -> None:
    """Its share in a wrong language is unknown, not zero."""
    found = {
        ("s", "en"): rows(None, off=10),
        ("s", "es"): rows(None, off=20),
        ("s", "de"): rows(None, known=False),
    }
    suite = suite_assessment(SUITE, found, LANGUAGES)

    assert suite.suite.measure == "offTarget"
    assert suite.mean is not None
    assert suite.mean.value == pytest.approx(0.15)
    assert suite.mean.languages == 2
    assert (
        "offTarget"
        not in json.loads(
            assessment_json(Assessment(label="m", digest="d", suites=(suite,), rows=found, keys={}))
        )["suites"]["s"]["de"]
    )


def test_languages_that_are_not_trained_stand_apart() -> None:
    """In a table of their own and in every file, in the suite's order, and not in the mean."""
    found = assessed("th", "bn")
    (suite,), (plain,) = found.suites, assessed().suites
    (_, trained), (title, unseen) = handouts.assessment_sheets(suite)
    nested = json.loads(assessment_json(found))["suites"]["s"]

    assert suite.mean == plain.mean
    assert [row[0] for row in trained.rows] == ["es", "de", "en", "mean of 3"]
    assert [row[0] for row in unseen.rows] == ["th", "bn"]
    assert f"## {title}\n\n| Language |" in handouts.assessment_markdown(found)
    assert list(nested) == ["es", "de", "en", "th", "bn", "mean"]
    assert nested["bn"]["score"]["value"] == 0.1
    assert len(list(handouts.assessment_sheets(plain))) == 1


def test_a_suite_without_any_trained_language_has_one_table() -> None:
    """No empty one, and no mean."""
    suite = SUITE.model_copy(update={"languages": ("bn", "th")})
    found = suite_assessment(suite, {("s", "bn"): rows(10), ("s", "th"): rows(20)}, LANGUAGES)
    ((title, sheet),) = handouts.assessment_sheets(found)

    assert found.mean is None
    assert title == "s: right answers in languages that are not trained, and in no mean"
    assert [row[0] for row in sheet.rows] == ["bn", "th"]


def test_names_are_never_read_as_markup() -> None:
    """Neither by Markdown nor by the terminal, and every row has a cell a column."""
    found = assessed()
    assert EVIL not in handouts.assessment_markdown(found)
    ((_, sheet),) = handouts.assessment_sheets(found.suites[0])
    assert {len(row) for row in sheet.rows} == {len(sheet.texts) + len(sheet.numbers)}

    terminal = io.StringIO()
    Console(width=80, file=terminal).print(of_sheet("[red]s", sheet))
    assert "[red]s" in terminal.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in terminal.getvalue()
    assert "mean of 3 " in terminal.getvalue()
    assert "characters" in terminal.getvalue()
    assert ".20 (.13\N{EN DASH}.29)" in terminal.getvalue()


def test_verdicts_are_in_the_tables_and_in_the_numbers_for_programs() -> None:
    """The win rate with its interval and the number of decided prompts."""
    shares = {"lcWinRate": 0.61, "win": 0.5, "tie": 0.3, "lose": 0.2}
    manifest = Manifest(
        stage="judge",
        key="k",
        digest="d",
        files=(),
        counts={"judged": 97, "byRule": 4, "malformed": 3},
        measures={"winRate": 0.65, "winRateLow": 0.55, "winRateHigh": 0.74, **shares},
    )
    found = with_verdicts(assessed(), {"s.de": manifest, "other.de": manifest})
    told = json.loads(assessment_json(found))["suites"]["s"]["de"]

    assert told["winRate"] == {"value": 0.65, "n": 97, "low": 0.55, "high": 0.74}
    few = wilson(29, 97)
    assert told["tie"] == {"value": 0.3, "n": 97, "low": few.low, "high": few.high}
    assert told["lcWinRate"] == {"value": 0.61, "n": 97, "low": None, "high": None}
    text = handouts.assessment_markdown(found)
    assert "| de | .65 (.55–.74) | .61 | .50 | .30 | .20 | – | 97 | 3 |" in text  # noqa: RUF001
    assert "winRate" not in assessment_json(assessed())
