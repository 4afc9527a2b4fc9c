# ruff: noqa: RUF001 - dashes and minus signs as the report writes them
"""What a reader sees: the page, the Markdown and the terminal's table of a story made by hand."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from selfimprove_pipeline.measuring.intervals import Difference, Interval
from selfimprove_pipeline.report.forms import markdown, page
from selfimprove_pipeline.report.forms import terminal as table
from selfimprove_pipeline.report.story.story import Change, Story
from selfimprove_pipeline.report.words import captions, notation, wording
from support.stories import (
    change,
    hostile,
    in_progress,
    measured,
    read,
    story,
    suite,
    words,
)


def printed(found: Story) -> str:
    """Return what a wide terminal shows."""
    terminal = io.StringIO()
    Console(width=200, file=terminal).print(table.terminal(found))
    return terminal.getvalue()


def test_the_first_table_has_the_numbers_by_hand() -> None:
    """Rates, Wilson intervals and changes in words: 65 of 100 is .65 with .55 to .74."""
    cells = words(read(page.render(story())).cells)
    assert cells[:15] == [
        "Model",
        "de",
        "en dominant",
        "Mean of the others",
        "Mean of all",
        "M0",
        ".30 (.17) .22–.40",
        ".77 (.00) .68–.84",
        ".30",
        ".54",
        "M1",
        ".65 (.00) .55–.74 +.35 better",
        ".81 (.00) .72–.87 +.04 no clear change",
        ".65 +.35 better",
        ".73",
    ]


def test_the_last_model_is_judged_against_the_first() -> None:
    """M2 rose by .30 since M0 and by nothing since M1: its cell tells of the .30."""
    changes = (
        change(0, 1, "de", 0.25, 0.35),
        change(1, 2, "de", -0.1, 0.1),
        change(0, 2, "de", 0.25, 0.35),
    )
    cells = {(0, "de"): measured(30), (1, "de"): measured(59), (2, "de"): measured(60)}
    found = story(iterations=2, suites=(suite(measured=cells, changes=changes),))
    assert ".60 (.00) .50–.69 +.30 better" in words(read(page.render(found)).cells)
    assert ".60 (.00) .50–.69 +.30 better" in markdown.render(found)


def test_all_formats_tell_the_same_result() -> None:
    """The headline and the cells of the page stand in the Markdown and in the terminal too."""
    headline = "de .30 → .65, en .77 → .81 after one iteration"
    gain = "M1 minus M0: +.35 (95 % interval +.25 to +.45: better)."
    cell = ".65 (.00) .55–.74"
    shown = " ".join(printed(story()).split())
    html = read(page.render(story())).text
    assert headline in html
    assert gain in html
    for text in (markdown.render(story()), shown):
        assert headline in text
        assert gain in text
        assert cell in text
        assert "+.35 better" in text


def test_every_section_shows_its_numbers() -> None:
    """Pairs, agreement, training, time and samples of the story, on the page and in Markdown."""
    html = " ".join(read(page.render(story())).text.split())
    text = " ".join(markdown.render(story()).split())
    for shown in (html, text):
        assert "x 9, empty 3" in shown
        assert "1 170" in shown  # white space is single here, the thin one too
        assert ".75 (.65–.83)" in shown  # 60 of 80 decided pairs
        assert "3 min 20 s" in shown
        assert "1 computed, 2 found in the store" in shown
        assert "Wie viel ist 1 + 1?" in shown
        assert "vllm 0.32.0" in shown
        assert "s3://models/m0" in shown
        assert "f00d" in shown
        assert "beef" in shown
    cells = words(read(page.render(story())).cells)
    assert "120" in cells  # 24,000 completion tokens in 200 s, the engine's start left out
    assert "150" in cells  # 1,500 tokens of training in 10 s


def test_a_lower_share_in_a_wrong_language_is_better() -> None:
    """Without gold answers the sign of good turns round."""
    changes = (change(0, 1, "de", -0.3, -0.1), change(0, 1, "en", 0.1, 0.2))
    found = suite(name="offTarget", measure="offTarget", changes=changes)
    cells = words(read(page.render(story(suites=(found,)))).cells)
    assert ".00 .00–.04 −.20 better" in cells
    assert ".00 .00–.04 +.15 worse" in cells


def test_few_prompts_are_said_to_be_few() -> None:
    """An interval over nine prompts is no verdict, and a mean without interval neither."""
    few = Change(
        before=0,
        after=1,
        language="de",
        a=0.0,
        b=1.0,
        p=0.5,
        difference=Difference(1.0, Interval(1.0, 1.0), 9),
    )
    none = Change(before=0, after=1, language=None, a=0.0, b=0.5, difference=None, p=None)
    assert wording.verdict(few, "score") == "too few prompts to tell"
    assert wording.verdict(none, "score") == "no interval"


def test_nothing_from_outside_becomes_markup() -> None:
    """A completion with a script, a name with tags: shown as text, in every place."""
    plain, attacked = read(page.render(story())), read(page.render(hostile()))
    assert "script" not in attacked.tags
    assert "img" not in attacked.tags
    assert set(attacked.tags) == set(plain.tags)
    assert attacked.text.count("<script>alert(1)</script>") >= 10
    assert {name for name, _ in attacked.attributes} == {name for name, _ in plain.attributes}


def test_the_page_loads_nothing() -> None:
    """No script, no address but of its own parts; the policy forbids the rest."""
    for found in (story(), hostile(), in_progress()):
        html = page.render(found)
        reader = read(html)
        assert not {"script", "link", "iframe", "img", "object", "embed"} & set(reader.tags)
        assert not {"src", "xlink:href"} & {name for name, _ in reader.attributes}
        identifiers = {f"#{value}" for name, value in reader.attributes if name == "id"}
        assert {value for name, value in reader.attributes if name == "href"} <= identifiers
        styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
        assert "url(" not in styles
        assert "@import" not in styles
        assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes


def test_markdown_keeps_hostile_text_in_its_cell() -> None:
    """All rows of a table have the columns of its header, and no HTML or link stands outside."""
    text = markdown.render(hostile())
    fence = re.search(r"^(`{3,})yaml$.*?^\1$", text, re.DOTALL | re.MULTILINE)
    assert fence is not None
    assert fence[1] == "````"
    outside = text.replace(fence[0], "")
    assert re.sub(r"<br>", "", outside).count("<") == 0
    assert "](" not in outside
    assert "https://" not in outside
    tables = re.findall(r"(?:^\|.*\|$\n?)+", outside, re.MULTILINE)
    for found in tables:
        assert len({line.count("|") for line in found.splitlines()}) == 1
    assert sum(line.startswith("# ") for line in outside.splitlines()) == 1


@given(st.text())
def test_markdown_text_is_one_line_of_no_markup(text: str) -> None:
    """Whatever a model writes fits in a cell."""
    shown = markdown.plain(text)
    assert len(shown.splitlines()) <= 1
    assert not set("|`*_[]~$!\\<>") & set(shown.replace("<br>", ""))


def test_terminal_text_is_not_markup() -> None:
    """A language or a name in brackets is shown, not taken for a style."""
    found = story(others=("[red]de",), suites=(suite(measured={(0, "[red]de"): measured(1)}),))
    assert printed(found).count("[red]de") == 2  # the column's heading and the headline


def test_a_run_in_progress_says_not_yet() -> None:
    """Nothing is there: each part says so, in all three formats, and nothing fails."""
    found = in_progress()
    html = read(page.render(found)).text
    assert "exactMatch: nothing is measured yet." in html
    assert html.count("not yet") == 8  # two models in two languages and two means
    assert html.count("Not yet") == 9
    text = markdown.render(found)
    assert text.count("not yet") == 8
    assert printed(found).count("not yet") == 8


def test_a_model_that_is_half_measured_is_half_shown() -> None:
    """M1 has one language so far: the other and the mean are not yet, M0 stays whole."""
    half = dict(suite().measured)
    del half[1, "de"]
    changes = (change(0, 1, "en", -0.02, 0.10),)
    found = story(suites=(suite(measured=half, means={0: 0.3}, changes=changes),))
    cells = words(read(page.render(found)).cells)
    assert cells[10:15] == [
        "M1",
        "not yet",
        ".81 (.00) .72–.87 +.04 no clear change",
        "not yet",
        "not yet",
    ]
    assert wording.headline(found) == "de .30, en .77 → .81 after one iteration"


def test_untrained_languages_have_a_table_of_their_own() -> None:
    """On the page and in the terminal they stand apart from those that the mean is over."""
    cells = {**suite().measured, (0, "ja"): measured(11), (1, "ja"): measured(12)}
    found = story(suites=(suite(measured=cells, languages=("en", "de", "ja")),))
    html = page.render(found)

    trained, unseen = html.index("Mean <span"), html.index("Languages that are not trained")
    assert trained < unseen < html.index('<th scope="col">ja</th>')
    assert captions.UNSEEN in html
    assert "Languages that are not trained" not in page.render(story())
    assert "ja, not trained" in printed(found)


def test_a_recipe_without_suites_has_a_report() -> None:
    """Nothing is measured at all: the page says so, and the pairs are still told."""
    found = story(suites=(), samples=())
    assert "the recipe names no evaluation suite" in page.render(found)
    assert "1\u202f170" in markdown.render(found)
    assert table.terminal(found).row_count == 0


def test_what_is_not_measured_is_one_sentence() -> None:
    """It names what no run measures, and what this one did not."""
    sentence = wording.not_measured(story(agreements=()))
    assert sentence.startswith("Not measured: how fluent")
    assert "how often gold answers or a judge agree" in sentence
    assert sentence.count(". ") == 0
    assert "how often gold answers or a judge agree" not in wording.not_measured(story())
    assert sentence in read(page.render(story(agreements=()))).text


def test_a_refused_model_is_not_told_as_the_result() -> None:
    """The headline says so where a gate has left the run with the model before."""
    assert wording.headline(story(final=0)).endswith("after one iteration; M1 is refused")
    assert wording.headline(story(final=1)).endswith("after one iteration")


def test_many_languages_have_a_short_headline() -> None:
    """Of more than eight languages the headline gives the mean of the others."""
    others = tuple(f"l{letter}" for letter in "abcdefghij")
    cells = {(model, tag): measured(30 + model) for model in (0, 1) for tag in (*others, "en")}
    found = story(others=others, suites=(suite(measured=cells, means={0: 0.3, 1: 0.31}),))
    expected = "mean of ten languages .30 → .31, en .30 → .31 after one iteration"
    assert wording.headline(found) == expected


def test_the_same_story_gives_the_same_bytes() -> None:
    """No clock and no order of sets in it."""
    assert page.render(story()) == page.render(story())
    assert markdown.render(story()) == markdown.render(story())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.352, "+.35"),
        (-0.05, "−.05"),
        (0.0, "±.00"),
        (0.003, "+.003"),
        (-0.0004, "±.00"),
        (1, "+1.00"),
    ],
)
def test_changes_are_written_with_their_sign(value: float, text: str) -> None:
    """Two digits, a third where a change would look like none, and a true minus."""
    assert notation.signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4, "0.4 s"), (119.9, "119.9 s"), (125, "2 min 05 s"), (3600, "1 h 00 min")],
)
def test_durations_have_their_natural_unit(value: float, text: str) -> None:
    """Seconds below two minutes, then minutes, then hours."""
    assert notation.seconds(value) == text
