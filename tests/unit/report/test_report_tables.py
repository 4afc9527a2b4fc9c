# ruff: noqa: RUF001 - dashes and minus signs as the report writes them
"""The paper's tables: what they are called, what stands in a cell, and how wide they are."""

import csv
import io
import json
from dataclasses import replace

import pytest

from selfimprove_pipeline.contract.rows import GatedLanguage
from selfimprove_pipeline.measuring.intervals import Rate, wilson
from selfimprove_pipeline.report import publish
from selfimprove_pipeline.report.forms import markdown, page, terminal
from selfimprove_pipeline.report.story.making import Agreement, Promotion
from selfimprove_pipeline.report.story.story import BaselineStory
from selfimprove_pipeline.report.tables import grids
from selfimprove_pipeline.report.words import headings
from support.stories import change, judged_suite, measured, read, story, suite, words


def test_head_to_head_is_win_tie_and_lose() -> None:
    """In percent as in the paper, with the win rate; M0 is the opponent and has no row."""
    found = story(suites=(judged_suite(),))
    shown = grids.trained(found, judged_suite())
    ((name, (german, english, others, every)),) = shown.rows

    assert name == "M1"
    assert german.text == "50/30/20 (.65) .55–.74 +.15 better"
    assert (english.value, others.value, every.value) == ("not yet", ".65", "not yet")
    assert german.text in words(read(page.render(found)).cells)
    assert f"| M1 | {german.text} |" in markdown.render(found)
    assert "Head-to-head: win / tie / lose against M0" in page.render(found)


def test_win_rates_have_the_rate_at_equal_length_in_brackets() -> None:
    """M0 meets the references as every model does, so it has a row; a tie counts half."""
    named = judged_suite("xAlpacaEval")
    found = grids.trained(story(suites=(named,)), named)
    (_, before), (_, after) = found.rows

    assert [cell.value for cell in before] == ["not yet"] * 4
    assert after[0].text == ".65 (.61) .55–.74 +.15 better"
    assert headings.title(named) == "X-AlpacaEval: win rate"
    assert "percent" in headings.caption(named)


def test_verdicts_in_full_stand_below_their_suite() -> None:
    """All that the judge came to, in Markdown and on the page; without a judge nothing of it."""
    found = story(suites=(suite(), judged_suite()))
    row = [".65 (.55–.74)", ".61", ".50", ".30", ".20", ".25", "97", "3"]
    cells = words(read(page.render(found)).cells)
    place = cells.index(row[0])

    assert cells[place : place + 8] == row
    assert "| M1 | de | .65 (.55–.74) | .61 | .50 | .30 | .20 | .25 | 97 | 3 |" in markdown.render(
        found
    )
    assert "Win, tie, lose" not in markdown.render(story()) + page.render(story())


def test_a_baseline_that_no_judge_has_seen_has_no_row() -> None:
    """It is said in words that it was not judged, where it would stand."""
    told = BaselineStory(name="languageInstruction", measured={}, mean=None, changes=())
    found = story(suites=(judged_suite(baselines=(told,)),))
    cells = words(read(page.render(found)).cells)

    assert "M0, told the language" not in cells
    assert "Not judged: M0, told the language." in page.render(found)
    assert "M0, told the language" in words(
        read(page.render(story(suites=(suite(baselines=(told,)),)))).cells
    )


def test_the_mean_of_all_is_the_papers() -> None:
    """The dominant language counts as the others: of .65 and .81 it is .73."""
    (_, before), (_, after) = grids.trained(story(), suite()).rows
    assert (before[-1].text, after[-1].text) == (".54", ".73")
    assert (before[-2].text, after[-2].text) == (".30", ".65 +.35 better")


def test_a_wide_table_is_continued_below() -> None:
    """Thirty languages and two means stand in four parts of eight columns, each with all rows."""
    tags = tuple(f"l{number:02}" for number in range(29))
    cells = {(model, tag): measured(30 + model) for model in (0, 1) for tag in (*tags, "en")}
    wide = suite(measured=cells, changes=(change(0, 1, "l28", 0.1, 0.2),))
    found = story(others=tags, suites=(wide,))
    parts = list(grids.trained(found, wide).parts)

    assert [len(part.headings) for part in parts] == [8, 8, 8, 8]
    assert [heading.text for part in parts for heading in part.headings] == [
        *tags,
        "en dominant",
        "Mean of the others",
        "Mean of all",
    ]
    assert {name for part in parts for name, _ in part.rows} == {"M0", "M1"}
    assert parts[3].rows[1][1][4].text == ".31 (.00) .23–.41 +.15 better"
    assert len(list(grids.trained(story(), suite()).parts)) == 1
    assert markdown.render(found).count("| Model | l") == 4
    assert terminal.terminal(found).row_count == 2


@pytest.mark.parametrize(
    ("name", "kind", "title"),
    [
        ("mgsm", None, "MGSM: accuracy, with the off-target rate in brackets"),
        ("sums", "mgsm", "MGSM: accuracy, with the off-target rate in brackets (sums)"),
        ("offTarget", None, "Off-target rate: answers in a wrong language"),
        ("exactMatch", None, "Exact match: right answers, with the off-target rate in brackets"),
    ],
)
def test_a_suite_is_headed_in_the_papers_words(name: str, kind: str | None, title: str) -> None:
    """A name of its own stands behind it, and the page has a link to it."""
    found = suite(name=name, kind=kind)
    assert headings.title(found) == title
    assert ("suite-1", title) in list(headings.contents(story(suites=(found,))))


def test_tables_of_the_paper_that_are_absent_are_named() -> None:
    """A run with one suite of it says what else the paper has; its own is not among them."""
    found = story(suites=(suite(name="mgsm"),), agreements=())
    sentence = headings.absent(found)
    assert sentence.startswith("Tables of the paper that this run does not have: X-AlpacaEval")
    assert sentence.endswith("reward accuracy.")
    assert "MGSM" not in sentence
    assert sentence in markdown.render(found)
    assert sentence in read(page.render(found)).text
    with_pairs = replace(
        found, agreements=(Agreement(iteration=0, language="de", accuracy=Rate(6, 8), ties=0),)
    )
    assert "reward accuracy" not in headings.absent(with_pairs)


def test_every_number_is_written_for_programs() -> None:
    """Each rate with n and interval, each change with both p values, the same in CSV and JSON."""
    files = publish.pages(story(suites=(suite(), judged_suite())))
    rates = list(csv.DictReader(io.StringIO(files["csv"])))
    changes = list(csv.DictReader(io.StringIO(files["changes.csv"])))
    nested = json.loads(files["json"])
    expected = wilson(65, 100)

    assert list(rates[0]) == ["model", "suite", "language", "measure", "value", "n", "low", "high"]
    german = nested["models"]["M1"]["exactMatch"]["de"]["score"]
    assert german == {"value": 0.65, "n": 100, "low": expected.low, "high": expected.high}
    row = {"model": "M1", "suite": "exactMatch", "language": "de", "measure": "score"}
    numbers = {name: str(value) for name, value in german.items()}
    assert {**row, **numbers} in rates
    assert nested["models"]["M1"]["headToHead"]["de"]["winRate"]["value"] == 0.65
    assert nested["models"]["M1"]["exactMatch"]["meanOfOthers"]["score"]["value"] == 0.65
    assert nested["models"]["M0"]["pairs"]["de"]["rewardAccuracy"]["value"] == 0.75
    assert len(changes) == len(nested["changes"]) == 3 + 2
    assert (changes[0]["before"], changes[0]["after"]) == ("M0", "M1")
    assert (changes[0]["p"], changes[0]["pHolm"], changes[0]["verdict"]) == (
        "0.001",
        "0.001",
        "better",
    )
    assert changes[3]["measure"] == "winRate"


def test_a_run_without_numbers_has_no_empty_files() -> None:
    """Without suites and pairs there are pages and a JSON, and no CSV with nothing in it."""
    files = publish.pages(story(suites=(), agreements=()))
    assert sorted(files) == ["html", "json", "md"]
    assert json.loads(files["json"])["models"] == {}


def gated(language: str, decision: str, change: float | None = None) -> GatedLanguage:
    """Return what a gate says of one language, over 100 prompts."""
    numbers = {} if change is None else {"low": change - 0.1, "high": change + 0.1, "p": 0.004}
    return GatedLanguage.model_validate(
        {"language": language, "decision": decision, "n": 100, "change": change, **numbers}
    )


def test_reward_accuracy_has_languages_across() -> None:
    """As in the paper, with the decided pairs in brackets; a gate's decision stands beside it."""
    agreements = (
        Agreement(iteration=0, language="de", accuracy=Rate(60, 80), ties=20),
        Agreement(iteration=1, language="de", accuracy=Rate(20, 80), ties=0, decision="LeftOut"),
        Agreement(iteration=1, language="en", accuracy=Rate(0, 0), ties=9, decision="NotMeasured"),
    )
    found = story(iterations=2, agreements=agreements)
    shown = grids.reward_accuracy(found)
    assert shown is not None
    assert [heading.text for heading in shown.headings] == ["de", "en"]
    assert [(name, [cell.text for cell in cells]) for name, cells in shown.rows] == [
        ("M0 → M1, reward accuracy", [".75 (80) .65–.83", "–"]),
        ("M1 → M2, reward accuracy", [".25 (80) .17–.35 left out of the training", "–"]),
    ]
    assert ".25 (80) .17–.35 left out of the training" in words(read(page.render(found)).cells)
    assert grids.reward_accuracy(story(agreements=())) is None


def test_grades_of_a_judge_stand_above_the_reward_accuracy() -> None:
    """As in the paper: what was generated and what was translated, from 0 to 10."""
    graded = Agreement(
        iteration=0,
        language="de",
        accuracy=Rate(7, 10),
        ties=2,
        generation=4.69,
        translation=8.96,
        is_graded=True,
    )
    shown = grids.reward_accuracy(story(agreements=(graded,)))
    assert shown is not None
    assert [(name, cells[0].text) for name, cells in shown.rows] == [
        ("M0 → M1, generation", "4.69"),
        ("M0 → M1, translation", "8.96"),
        ("M0 → M1, reward accuracy", ".70 (10) .40–.89"),
    ]


def test_gates_show_who_is_worse_and_by_how_much() -> None:
    """Every language of every gate with its numbers; a run without gates has no such section."""
    rows = (gated("de", "Worse", -0.3), gated("en", "Passed", 0.2), gated("es", "NotMeasured"))
    found = story(promotions=(Promotion(model=1, languages=rows),))
    text = markdown.render(found)

    assert "| M1 | de | worse: refused | −.30 | −.40 to −.20 | .004 | 100 |" in text
    assert "| M1 | en | passed | +.20 | +.10 to +.30 | .004 | 100 |" in text
    assert "| M1 | es | not measured: passed | – | – | – | – |" in text
    assert headings.GATES in read(page.render(found)).text
    assert headings.GATES not in markdown.render(story()) + page.render(story())
