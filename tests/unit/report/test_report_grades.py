# ruff: noqa: RUF001 - dashes and minus signs as the report writes them
"""What the report makes of grades from 0 to 10 and of tasks of lm-eval, of two models."""

from collections.abc import Sequence

import pytest

from selfimprove_pipeline.contract.recipe import Languages, Suite
from selfimprove_pipeline.contract.rows import Evaluated, Grade
from selfimprove_pipeline.measuring.judged import turns
from selfimprove_pipeline.report.charts import changes, rates_and_curves
from selfimprove_pipeline.report.forms import page, records, run_records
from selfimprove_pipeline.report.story import evaluation, judgements
from selfimprove_pipeline.report.story.judgements import Ruling
from selfimprove_pipeline.report.story.story import Entry, Judged, SuiteStory
from selfimprove_pipeline.report.tables import grids, results
from selfimprove_pipeline.report.words import wording
from support.stories import evaluated, story

LANGUAGES = Languages(dominant="en", others=("de",))
COUNT = 12


def grades(first: float, second: float) -> tuple[Grade, ...]:
    """Return the grades of twelve conversations that are all alike."""
    return tuple(
        Grade(id=f"{n}{end}", conversation=str(n), language="de", grade=grade)
        for n in range(COUNT)
        for end, grade in (("", first), ("/2", second))
    )


def ruling(model: int, language: str, rows: Sequence[Grade], *, baseline: str = "") -> Ruling:
    counts = turns.counts(rows)
    judged = Judged(
        suite=f"mtBench{baseline}",
        iteration=model,
        language=language,
        measures=turns.measures(rows),
        decided=counts["conversations"],
        malformed=counts["malformed"],
    )
    return Ruling(judged, grades=rows)


def graded() -> SuiteStory:
    """Return M0 and M1 in two languages: in German half a grade better on each conversation."""
    suite = Suite(name="mtBench", uri="s3://eval/mt")
    rulings: dict[tuple[Entry, str], Ruling] = {
        (0, "de"): ruling(0, "de", grades(6, 4)),
        (1, "de"): ruling(1, "de", grades(7, 4)),
        (0, "en"): ruling(0, "en", grades(8, 8)),
        (1, "en"): ruling(1, "en", grades(8, 8)),
    }
    empty = evaluation.suite_story(suite, LANGUAGES, {})
    return judgements.with_verdicts(empty, suite, LANGUAGES, rulings)


def test_a_change_of_grades_is_told_in_grades() -> None:
    """M0 is graded itself, and half a grade on each conversation is a clear change."""
    made = graded()
    (german,) = [change for change in made.shown_changes if change.language == "de"]
    assert (german.a, german.b, german.value) == (5.0, 5.5, 0.5)
    assert german.sign == 1
    assert made.shown == "grade"
    grid = grids.trained(story(suites=(made,)), made)
    rows = {name: [cell.text for cell in cells] for name, cells in grid.rows}
    assert rows["M0"] == ["5.00 5.00–5.00", "8.00 8.00–8.00", "5.00", "6.50"]
    assert rows["M1"][0] == "5.50 5.50–5.50 +.50 better"


def test_grades_have_an_axis_of_their_own() -> None:
    """It ends above the highest grade, at ten at most; rates keep theirs."""
    made = graded()
    told = story(suites=(made,))
    (chart, _) = rates_and_curves.rates(told, made)
    assert [tick.label for tick in chart.ticks] == [".00", "4.00", "8.00"]
    assert [rates_and_curves.round_up(value) for value in (0.05, 0.97, 1.0, 1.2, 7.9, 9.5)] == [
        *(0.1, 1.0, 1.0, 2.0, 8.0, 10.0)
    ]
    assert changes.gains(told, made)
    html = page.render(told)
    assert "Mean grade by model; bars are 95 % intervals." in html
    assert "win, tie and lose by model" not in html


def test_the_numbers_of_turns_are_of_half_the_answers() -> None:
    """So that of the mean of one turn no count stands, and no interval."""
    rows = [row for row in run_records.rates(story(suites=(graded(),))) if row["model"] == "M1"]
    told = {row["measure"]: (row["value"], row["n"]) for row in rows if row["language"] == "de"}
    assert told["grade"] == (5.5, COUNT)
    assert told["gradeOfTurn1"] == (7.0, None)
    (mean,) = [row for row in rows if row["language"] == run_records.MEAN_OF_OTHERS]
    assert (mean["measure"], mean["value"]) == ("grade", 5.5)


def test_a_baseline_stands_under_its_own_name_below_the_models() -> None:
    """It was answered beside M0, and is not M0."""
    baseline = "languageInstruction"
    judged = [
        ruling(0, "de", grades(3, 3), baseline=f"+{baseline}").judged,
        ruling(1, "de", grades(7, 4)).judged,
        ruling(0, "de", grades(6, 4)).judged,
    ]
    rows = results.judged(judged, ["de"]).rows
    assert [row[0] for row in rows] == ["M0", "M1", "M0, told the language"]
    assert rows[2][2:4] == ("3.00 (3.00–3.00)", "3.00")


def document(task: str, number: int, score: float | None) -> Evaluated:
    update = {"id": f"{task}/{number}", "language": task, "identified": None, "score": score}
    return evaluated("text").model_copy(update=update)


def test_tasks_stand_in_the_place_of_languages() -> None:
    """One column a task, even one that is named like a language, and one mean over all of them."""
    suite = Suite(name="nlp", uri="s3://eval/tasks")
    rows = [document("arc", n, float(n < 6)) for n in range(COUNT)]
    rows += [document("de", n, 0.25) for n in range(COUNT)]
    answers = {
        ("nlp", model, tag): by_id
        for model in (0, 1)
        for tag, by_id in evaluation.by_language("tasks", rows)
    }
    made = evaluation.suite_story(suite, LANGUAGES, answers)
    told = story(suites=(made,))
    grid = grids.trained(told, made)

    assert [heading.value for heading in grid.headings] == ["arc", "de", "Mean"]
    (m0, m1) = grid.rows
    assert [cell.value for cell in m0[1]] == [".50", ".25", ".38"]
    assert m1[1][0].verdict == "no clear change"
    assert grids.unseen(told, made) is None
    assert made.measured[0, "de"].score is not None
    assert made.measured[0, "de"].score.successes == pytest.approx(COUNT / 4)
    assert not list(records.harness_records(made, 0))
    assert wording.headline(told) == "arc .50 → .50, de .25 → .25 after one iteration"
