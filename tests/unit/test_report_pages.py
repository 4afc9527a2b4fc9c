# ruff: noqa: RUF001 - dashes and minus signs as the report writes them
"""What a reader sees: the page, the Markdown and the terminal's table of a story made by hand."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typing_extensions import override

from selfimprove_pipeline.artifacts import Evaluated
from selfimprove_pipeline.report import (
    charts,
    durations,
    markdown,
    notation,
    page,
    table,
    wording,
)
from selfimprove_pipeline.report.making import Agreement, Artifact, Pairs, Step, Training, Work
from selfimprove_pipeline.report.story import (
    Change,
    Judged,
    Measured,
    Model,
    Sample,
    Story,
    SuiteStory,
)
from selfimprove_pipeline.statistics import Difference, Interval, Rate

EVIL = (
    "<script>alert(1)</script>\n| a | `b` | **c** [d](javascript:e) ![f](https://g.example/h.png)"
)


def measured(right: int, *, off_target: int = 0) -> Measured:
    """Return what 100 answers amount to."""
    return Measured(
        score=Rate(right, 100),
        off_target=Rate(off_target, 100),
        evasive=Rate(3, 100),
        empty=Rate(1, 100),
        truncated=Rate(2, 100),
        mean_length=1234.4,
    )


def change(before: int, after: int, language: str | None, low: float, high: float) -> Change:
    """Return a change in the middle of its interval."""
    value = (low + high) / 2
    difference = Difference(value, Interval(low, high), 100)
    return Change(before=before, after=after, language=language, value=value, difference=difference)


def suite(**changes: Any) -> SuiteStory:
    """Return two models in two languages: de from 30 to 65, en from 77 to 81 of 100."""
    values: dict[str, Any] = {
        "name": "exactMatch",
        "measure": "score",
        "measured": {
            (0, "de"): measured(30, off_target=17),
            (1, "de"): measured(65),
            (0, "en"): measured(77),
            (1, "en"): measured(81),
        },
        "means": {0: 0.30, 1: 0.65},
        "changes": (
            change(0, 1, "de", 0.25, 0.45),
            change(0, 1, "en", -0.02, 0.10),
            change(0, 1, None, 0.25, 0.45),
        ),
        **changes,
    }
    return SuiteStory(**values)


def step(number: int) -> Step:
    """Return one step of training, of 2 s and 300 tokens."""
    columns = {"step": number, "loss": 1 / number, "rewards/margins": number / 10}
    return Step.model_validate({**columns, "seconds": 2.0, "tokens": 300.0})


def evaluated(completion: str) -> Evaluated:
    """Return one right answer."""
    return Evaluated(
        id="p1",
        language="de",
        prompt="Wie viel?",
        completion=completion,
        finish_reason="stop",
        completion_tokens=9,
        score=1.0,
        identified="de",
        is_off_target=False,
        is_empty=False,
        is_evasive=False,
    )


def story(**changes: Any) -> Story:
    """Return a finished run of one iteration."""
    values: dict[str, Any] = {
        "name": "small",
        "outcome": "Succeeded",
        "message": "",
        "dominant": "en",
        "others": ("de",),
        "iterations": 1,
        "models": (Model(index=0, uri="s3://models/m0", digest="d0"),),
        "suites": (suite(),),
        "pairs": (
            Pairs(iteration=0, language="de", kept=1170, drops={"empty": 3, "x": 9}, untrained=2),
        ),
        "training": (
            Training(
                iteration=0,
                steps=tuple(step(number) for number in range(1, 6)),
            ),
        ),
        "agreements": (Agreement(iteration=0, language="de", accuracy=Rate(60, 80), ties=20),),
        "work": (
            Work(
                iteration=0,
                stage="generate",
                wall=200,
                engine_start=50,
                artifacts=3,
                computed=1,
                prompt_tokens=5000,
                completion_tokens=24000,
            ),
        ),
        "artifacts": (Artifact(iteration=0, stage="pair", part="", key="f00d", digest="beef"),),
        "samples": (
            Sample(
                suite="exactMatch",
                language="de",
                id="p1",
                prompt="Wie viel ist 1 + 1?",
                gold="2",
                answers={0: evaluated("Drei"), 1: evaluated("Zwei")},
            ),
        ),
        "versions": {"generate": {"vllm": "0.32.0"}},
        "recipe": "iterations: 1\n",
        "notes": (),
        **changes,
    }
    return Story(**values)


def in_progress() -> Story:
    """Return a run that has nothing yet but its recipe."""
    return story(
        outcome="Running",
        models=(),
        suites=(suite(measured={}, means={}, changes=()),),
        pairs=(),
        training=(),
        agreements=(),
        work=(),
        artifacts=(),
        samples=(),
        versions={},
    )


def hostile() -> Story:
    """Return a story in which every text that comes from outside tries to be markup."""
    (sample,) = story().samples
    return story(
        name=EVIL,
        message=EVIL,
        models=(Model(index=0, uri=EVIL, digest=EVIL),),
        pairs=(Pairs(iteration=0, language="de", kept=1, drops={EVIL: 1}, untrained=0),),
        samples=(replace(sample, id=EVIL, prompt=EVIL, gold=EVIL, answers={0: evaluated(EVIL)}),),
        versions={EVIL: {EVIL: EVIL}},
        recipe=f"{EVIL}\n```\n{EVIL}\n",
        notes=(EVIL,),
    )


class Reader(HTMLParser):
    """Collects tags, attributes, cells and texts of a page."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.text = ""

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def read(html: str) -> Reader:
    """Return what a parser finds; every tag is closed."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def words(cells: list[str]) -> list[str]:
    """Return cells with their white space made single."""
    return [" ".join(cell.split()) for cell in cells]


def printed(found: Story) -> str:
    """Return what a wide terminal shows."""
    terminal = io.StringIO()
    Console(width=200, file=terminal).print(table.terminal(found))
    return terminal.getvalue()


def test_the_first_table_has_the_numbers_by_hand() -> None:
    """Rates, Wilson intervals and changes in words: 65 of 100 is .65 with .55 to .74."""
    cells = words(read(page.render(story())).cells)
    assert cells[:12] == [
        "Model",
        "de",
        "en dominant",
        "Mean of the others",
        "M0",
        ".30 .22–.40",
        ".77 .68–.84",
        ".30",
        "M1",
        ".65 .55–.74 +.35 better",
        ".81 .72–.87 +.04 no clear change",
        ".65 +.35 better",
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
    assert ".60 .50–.69 +.30 better" in words(read(page.render(found)).cells)
    assert ".60 (.50–.69) +.30 better" in markdown.render(found)


def test_all_formats_tell_the_same_result() -> None:
    """The headline and the cells of the page stand in the Markdown and in the terminal too."""
    headline = "de .30 → .65, en .77 → .81 after one iteration"
    gain = "M1 minus M0: +.35 (95 % interval +.25 to +.45: better)."
    cell = ".65 (.55–.74)"
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
        value=1.0,
        difference=Difference(1.0, Interval(1.0, 1.0), 9),
    )
    none = Change(before=0, after=1, language=None, value=0.5, difference=None)
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
    """No script, no link, no address in any attribute or style; the policy forbids the rest."""
    for found in (story(), hostile(), in_progress()):
        html = page.render(found)
        reader = read(html)
        assert not {"script", "link", "iframe", "img", "object", "embed"} & set(reader.tags)
        assert not {"src", "href", "xlink:href"} & {name for name, _ in reader.attributes}
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
    assert html.count("not yet") == 6  # two models in two languages and their mean
    assert html.count("Not yet") == 9
    text = markdown.render(found)
    assert text.count("not yet") == 6
    assert printed(found).count("not yet") == 6


def test_a_model_that_is_half_measured_is_half_shown() -> None:
    """M1 has one language so far: the other and the mean are not yet, M0 stays whole."""
    half = dict(suite().measured)
    del half[1, "de"]
    changes = (change(0, 1, "en", -0.02, 0.10),)
    found = story(suites=(suite(measured=half, means={0: 0.3}, changes=changes),))
    cells = words(read(page.render(found)).cells)
    assert cells[8:12] == ["M1", "not yet", ".81 .72–.87 +.04 no clear change", "not yet"]
    assert wording.headline(found) == "de .30, en .77 → .81 after one iteration"


def test_untrained_languages_have_a_table_of_their_own() -> None:
    """On the page and in the terminal they stand apart from those that the mean is over."""
    cells = {**suite().measured, (0, "ja"): measured(11), (1, "ja"): measured(12)}
    found = story(suites=(suite(measured=cells, languages=("en", "de", "ja")),))
    html = page.render(found)

    trained, unseen = html.index("Mean <span"), html.index("Languages that are not trained")
    assert trained < unseen < html.index('<th scope="col">ja</th>')
    assert wording.UNSEEN in html
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
    assert "how often gold answers agree" in sentence
    assert sentence.count(". ") == 0
    assert "how often gold answers agree" not in wording.not_measured(story())
    assert sentence in read(page.render(story(agreements=()))).text


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


def test_charts_are_well_formed_and_described() -> None:
    """Each chart is XML with a title and a description that its label refers to."""
    html = page.render(story())
    found = re.findall(r"<svg .*?</svg>", html, re.DOTALL)
    drawn = [ET.fromstring(text) for text in found if 'role="img"' in text]  # noqa: S314 - our own page
    assert len(drawn) == 2 + 2 + 1  # two languages, loss and margin, the times
    identifiers = [
        element.get("id") for root in drawn for element in root.iter() if "id" in element.attrib
    ]
    assert len(set(identifiers)) == len(identifiers)
    for root in drawn:
        assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}"
        assert root[0].text
        assert root[1].text
    assert "exactMatch, de: M0 .30, M1 .65" in html


def test_dots_stand_where_their_rates_are() -> None:
    """The heights are linear in the rate, and each bar spans the interval of its rate."""
    (chart, _) = charts.rates(story(), suite())
    ticks = {tick.label: tick.at for tick in chart.ticks}
    zero, one = ticks[".00"], ticks["1.00"]
    first, second = chart.dots
    assert (zero - first.y) / (zero - one) == pytest.approx(0.30, abs=0.001)
    assert (zero - second.y) / (zero - one) == pytest.approx(0.65, abs=0.001)
    assert (zero - second.bottom) / (zero - one) == pytest.approx(0.5525, abs=0.001)
    assert (zero - second.top) / (zero - one) == pytest.approx(0.7364, abs=0.001)


def test_bars_are_as_long_as_the_stages_took() -> None:
    """Generation took 200 s and the start of its engine 50 s: four to one."""
    chart = durations.times(story())
    assert chart is not None
    work, start = chart.bars[0].segments
    assert (work.name, start.name) == ("generate", "engine start")
    assert work.width / start.width == pytest.approx(4, abs=0.01)
    assert chart.bars[0].total == "4 min 10 s"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32) | st.none(), max_size=500))
def test_curves_stay_inside_their_frame(losses: list[float | None]) -> None:
    """Whatever the losses are, flat, huge, missing or not numbers, the line stays in the chart."""
    steps = tuple(Step(step=number, loss=loss) for number, loss in enumerate(losses, start=1))
    for chart in charts.training(story(training=(Training(iteration=0, steps=steps),))):
        (curve,) = chart.curves
        points = [tuple(map(float, point.split(","))) for point in curve.points.split()]
        assert 1 <= len(points) <= charts.MOST_POINTS
        for x, y in points:
            assert chart.left <= x <= chart.right
            assert chart.top <= y <= chart.bottom


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


def test_verdicts_stand_below_the_suite_that_they_are_on() -> None:
    """Win, tie and lose by model and language, in every format; without a judge there is none."""
    shares = {"win": 0.5, "tie": 0.3, "lose": 0.2, "positionBias": 0.25}
    measures = {
        "winRate": 0.65,
        "winRateLow": 0.55,
        "winRateHigh": 0.74,
        "lcWinRate": 0.61,
        **shares,
    }
    rows = [
        Judged(
            suite=suite,
            iteration=1,
            language=language,
            measures=found,
            decided=97,
            malformed=3,
        )
        for suite, language, found in (
            ("exactMatch", "en", {}),
            ("exactMatch", "de", measures),
            ("another", "de", measures),
        )
    ]
    found = story(judged=tuple(rows))
    cells = words(read(page.render(found)).cells)
    text = markdown.render(found)

    shown = [".65 (.55–.74)", ".61", ".50", ".30", ".20", ".25", "97", "3"]
    place = cells.index(shown[0])
    assert cells[place : place + 8] == shown
    assert "| M1 | de | .65 (.55–.74) | .61 | .50 | .30 | .20 | .25 | 97 | 3 |" in text
    assert text.index("| M1 | de | .65") < text.index("| M1 | en | – | – | –")
    assert text.count("| M1 | de | .65 (") == 1
    assert "Win, tie, lose" not in markdown.render(story()) + page.render(story())
