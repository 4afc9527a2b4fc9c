# ruff: noqa: RUF001 - dashes and minus signs as the report writes them
"""The drawings: what stands where, what is said of it, and that it stays in its frame."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove_pipeline.report.charts import changes as change_charts
from selfimprove_pipeline.report.charts import rates_and_curves, times
from selfimprove_pipeline.report.charts.verdicts import lengths, outcomes
from selfimprove_pipeline.report.forms import page
from selfimprove_pipeline.report.story.making import Step, Training
from support.stories import change, judged, judged_suite, measured, story, suite


def test_charts_are_well_formed_and_described() -> None:
    """Each chart is XML with a title and a description that its label refers to."""
    html = page.render(story())
    found = re.findall(r"<svg .*?</svg>", html, re.DOTALL)
    drawn = [ET.fromstring(text) for text in found if 'role="img"' in text]  # noqa: S314 - our own page
    assert len(drawn) == 2 + 1 + 1 + 2 + 1  # languages, gain, off-target, loss and margin, times
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
    (chart, _) = rates_and_curves.rates(story(), suite())
    ticks = {tick.label: tick.at for tick in chart.ticks}
    zero, one = ticks[".00"], ticks["1.00"]
    first, second = chart.dots
    assert (zero - first.y) / (zero - one) == pytest.approx(0.30, abs=0.001)
    assert (zero - second.y) / (zero - one) == pytest.approx(0.65, abs=0.001)
    assert (zero - second.bottom) / (zero - one) == pytest.approx(0.5525, abs=0.001)
    assert (zero - second.top) / (zero - one) == pytest.approx(0.7364, abs=0.001)


def test_bars_are_as_long_as_the_stages_took() -> None:
    """Generation took 200 s and the start of its engine 50 s: four to one."""
    chart = times.times(story())
    assert chart is not None
    work, start = chart.bars[0].segments
    assert (work.name, start.name) == ("generate", "engine start")
    assert work.width / start.width == pytest.approx(4, abs=0.01)
    assert chart.bars[0].total == "4 min 10 s"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32) | st.none(), max_size=500))
def test_curves_stay_inside_their_frame(losses: list[float | None]) -> None:
    """Whatever the losses are, flat, huge, missing or not numbers, the line stays in the chart."""
    steps = tuple(Step(step=number, loss=loss) for number, loss in enumerate(losses, start=1))
    for chart in rates_and_curves.training(story(training=(Training(iteration=0, steps=steps),))):
        (curve,) = chart.curves
        points = [tuple(map(float, point.split(","))) for point in curve.points.split()]
        assert 1 <= len(points) <= rates_and_curves.MOST_POINTS
        for x, y in points:
            assert chart.left <= x <= chart.right
            assert chart.top <= y <= chart.bottom


def test_bars_of_win_tie_and_lose_are_as_long_as_their_shares() -> None:
    """Half won, three tenths tied, the rest lost: one after the other, the whole width."""
    (chart,) = outcomes(story(), judged_suite())
    ((win, tie, lose),) = (bar.shares for bar in chart.bars)
    width = chart.right - chart.left

    assert [bar.name for bar in chart.bars] == ["M1"]
    assert [share.width / width for share in (win, tie, lose)] == pytest.approx([0.5, 0.3, 0.2])
    assert (win.x, tie.x, lose.x) == pytest.approx((34, 34 + width * 0.5, 34 + width * 0.8))
    assert [share.label for share in (win, tie, lose)] == ["50", "30", "20"]
    assert chart.description == "headToHead, de: M1 win 50%, tie 30%, lose 20%"


def test_a_share_that_is_too_narrow_has_no_label() -> None:
    """Two percent are drawn, and told in words, but no number would fit in."""
    found = judged_suite()
    assert found.verdicts is not None
    verdicts = replace(found.verdicts, judged={(1, "de"): judged("de", 1, 0.02, 0.97)})
    (chart,) = outcomes(story(), replace(found, verdicts=verdicts))
    assert [share.label for share in chart.bars[0].shares] == ["", "97", ""]
    assert "win 2%, tie 97%, lose 1%" in chart.description


def test_length_stands_against_the_win_rate() -> None:
    """M1 writes 1,234 characters where M0 has written 1,000, and wins .65."""
    (chart,) = lengths(story(), judged_suite())
    (point,) = chart.points
    ticks = {tick.label: tick.at for tick in chart.ticks}

    assert chart.opponent < point.x <= chart.right
    assert (ticks[".00"] - point.y) / (ticks[".00"] - ticks["1.00"]) == pytest.approx(
        0.65, abs=0.001
    )
    assert chart.even == ticks[".50"]
    assert "M1 1 234 characters, .65; opponent 1 000" in chart.description


def test_gains_stand_where_they_are_and_show_what_is_clear() -> None:
    """Linear in the change, from the low to the high end; zero is the place of no change."""
    (chart,) = change_charts.gains(story(), suite())
    german, english, mean = chart.rows
    assert chart.zero is not None
    ticks = {tick.label: tick.at for tick in chart.ticks}
    unit = ticks["+.60"] - chart.zero

    assert [row.name for row in chart.rows] == ["de", "en", "mean of others"]
    assert (german.x - chart.zero) / unit * 0.6 == pytest.approx(0.35, abs=0.002)
    assert (german.start - chart.zero) / unit * 0.6 == pytest.approx(0.25, abs=0.002)
    assert (german.end - chart.zero) / unit * 0.6 == pytest.approx(0.45, abs=0.002)
    assert [row.is_clear for row in chart.rows] == [True, False, True]
    assert [row.text for row in (german, english, mean)] == ["+.35", "+.04", "+.35"]
    assert english.start < chart.zero < english.end


def test_what_beats_m0_is_drawn_against_it() -> None:
    """A win rate above one half is no difference of two rates, and is not called one."""
    (chart,) = change_charts.gains(story(), judged_suite())
    assert chart.heading == "M1 against M0"
    (chart,) = change_charts.gains(story(), judged_suite("xAlpacaEval"))
    assert chart.heading == "M1 minus M0"


def test_off_target_goes_from_the_first_to_the_last_model() -> None:
    """German had .17 in a wrong language and has none; without a second model there is no chart."""
    chart = change_charts.off_target(story(), suite())
    assert chart is not None
    german = chart.rows[0]
    half = next(tick.at for tick in chart.ticks if tick.label == ".10")
    assert german.text == ".17 → .00"
    assert (german.start - chart.left) / (half - chart.left) == pytest.approx(1.7, abs=0.01)
    assert german.x == german.end == chart.left
    alone = suite(measured={(0, "de"): measured(1)}, changes=())
    assert change_charts.off_target(story(), alone) is None
    assert change_charts.gains(story(), alone) == ()


@given(st.integers(min_value=1, max_value=64), st.integers(min_value=2, max_value=35))
def test_rows_of_languages_stay_inside_their_chart(count: int, letters: int) -> None:
    """However many languages there are and however long their tags: nothing lies outside."""
    tags = tuple(f"{'l' * (letters - 2)}{number:02}" for number in range(count))
    cells = {(model, tag): measured(30, off_target=50) for model in (0, 1) for tag in tags}
    changes = tuple(change(0, 1, tag, -0.9, 0.95) for tag in tags)
    found = suite(measured=cells, changes=changes)
    told = story(others=tags, suites=(found,))
    off_target = change_charts.off_target(told, found)
    assert off_target is not None
    for chart in (*change_charts.gains(told, found), off_target):
        assert len(chart.rows) == count
        for row in chart.rows:
            assert 0 < row.y < chart.bottom < chart.height
            assert chart.left <= min(row.start, row.x) <= max(row.end, row.x) <= chart.right
            assert chart.right < chart.width
            assert chart.left >= len(row.name) * change_charts.LETTER
        assert all(tag in chart.description for tag in tags)
