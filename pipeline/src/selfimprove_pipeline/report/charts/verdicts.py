"""The charts of a judged suite: win, tie and lose, and length against win rate.

Small charts, one a language, that flow beside each other: their text stays as large on a telephone
as on a wide screen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from selfimprove_pipeline.report.charts.rates_and_curves import Tick
from selfimprove_pipeline.report.story.story import Story, SuiteStory, Verdicts
from selfimprove_pipeline.report.tables import grids
from selfimprove_pipeline.report.words import notation, wording

SHARES = ("win", "tie", "lose")
ROW = 24
LETTER = 8
"""Width that a digit needs."""


@dataclass(frozen=True)
class Share:
    """A part of a bar."""

    name: str
    x: float
    width: float
    label: str
    """label in percent, empty where the part is too narrow for it."""


@dataclass(frozen=True)
class Bar:
    """The shares of one model."""

    name: str
    y: float
    shares: tuple[Share, ...]


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """One language: a bar a model."""

    language: str
    title: str
    description: str
    width: float = 300
    height: float
    left: float = 34
    right: float = 298
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Point:
    """One model: how long its answers are and how often they win."""

    x: float
    y: float
    name: str
    label_y: float


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """One language: length against win rate, a point a model."""

    language: str
    title: str
    description: str
    width: float = 200
    height: float = 186
    left: float = 34
    right: float = 190
    ticks: tuple[Tick, ...]
    even: float
    """even is the height of one half."""
    lengths: tuple[Tick, ...]
    opponent: float
    """opponent is the place of the opponent's mean length."""
    points: tuple[Point, ...]
    line: str


def outcomes(story: Story, suite: SuiteStory) -> tuple[Outcomes, ...]:
    """Return one chart a language, nothing of a suite without contests."""
    if suite.verdicts is None or suite.shown != "winRate":
        return ()
    languages = (*story.trained(suite), *story.unseen(suite))
    found = [_outcomes(story, suite, suite.verdicts, language) for language in languages]
    return tuple(chart for chart in found if chart.bars)


def _outcomes(story: Story, suite: SuiteStory, verdicts: Verdicts, language: str) -> Outcomes:
    told = [
        (wording.entry(entry), judged.measures)
        for entry in grids.entries(story, suite)
        if (judged := verdicts.judged.get((entry, language))) and judged.measures
    ]
    bars = tuple(
        Bar(name, 22 + ROW * row, _shares([measures[share] for share in SHARES]))
        for row, (name, measures) in enumerate(told)
    )
    said = (
        f"{name} " + ", ".join(f"{share} {measures[share]:.0%}" for share in SHARES)
        for name, measures in told
    )
    return Outcomes(
        language=language,
        title=f"{language}: win, tie and lose by model",
        description=f"{suite.name}, {language}: {'; '.join(said)}",
        height=24 + ROW * len(bars),
        bars=bars,
    )


def _shares(values: Sequence[float]) -> tuple[Share, ...]:
    found = []
    x = Outcomes.left
    for name, value in zip(SHARES, values, strict=True):
        width = (Outcomes.right - Outcomes.left) * value
        label = f"{value:.0%}".rstrip("%")
        label = label if width > LETTER * len(label) else ""
        found.append(Share(name, round(x, 1), round(width, 1), label))
        x += width
    return tuple(found)


def lengths(story: Story, suite: SuiteStory) -> tuple[Lengths, ...]:
    """Return one chart a language, all with the same axes, nothing of a suite without contests."""
    if suite.verdicts is None or suite.shown != "winRate":
        return ()
    told = _told(story, suite, suite.verdicts)
    if not told:
        return ()
    of_opponents = suite.verdicts.opponent_lengths
    every = [length for rows in told.values() for _, length, _ in rows]
    every += [of_opponents[language] for language in told]
    ends = min(every), max(every)
    return tuple(
        _lengths(suite, language, rows, of_opponents[language], ends)
        for language, rows in told.items()
    )


def _told(
    story: Story, suite: SuiteStory, verdicts: Verdicts
) -> dict[str, list[tuple[str, float, float]]]:
    """Return name, mean characters and win rate of each model by language."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for language in (*story.trained(suite), *story.unseen(suite)):
        for index in story.planned:
            estimate, measured = suite.estimate(index, language), suite.of(index, language)
            if estimate and measured and language in verdicts.opponent_lengths:
                row = (notation.model(index), measured.mean_length, estimate.value)
                found.setdefault(language, []).append(row)
    return found


def _lengths(
    suite: SuiteStory,
    language: str,
    rows: Sequence[tuple[str, float, float]],
    opponent: float,
    ends: tuple[float, float],
) -> Lengths:
    def height(value: float) -> float:
        return round(150 - 112 * value, 1)

    def place(length: float) -> float:
        return round(48 + 126 * (length - ends[0]) / max(ends[1] - ends[0], 1), 1)

    points = tuple(
        # Names above and below in turn, as neighbours are often close.
        Point(place(length), height(rate), name, height(rate) + (16 if row % 2 else -8))
        for row, (name, length, rate) in enumerate(rows)
    )
    said = ", ".join(
        f"{name} {notation.count(length)} characters, {notation.rate(rate)}"
        for name, length, rate in rows
    )
    return Lengths(
        language=language,
        title=f"{language}: mean characters of the answers against the win rate",
        description=f"{suite.name}, {language}: {said}; opponent {notation.count(opponent)}",
        ticks=tuple(Tick(height(value), notation.rate(value)) for value in (0, 0.5, 1)),
        even=height(0.5),
        lengths=tuple(Tick(place(end), notation.count(end)) for end in sorted(set(ends))),
        opponent=place(opponent),
        points=points,
        line=" ".join(f"{point.x},{point.y}" for point in points),
    )
