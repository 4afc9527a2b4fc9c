"""The geometry of the charts, in SVG user units; `forms/templates/charts.svg.j2` draws them.

Every chart carries a title and a description, so that it can be read without being seen, and
nothing in it depends on colour alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from selfimprove_pipeline.report.story.making import Step, Training
from selfimprove_pipeline.report.story.story import Story, SuiteStory
from selfimprove_pipeline.report.words import notation, wording

MOST_POINTS = 200
SFT_STYLE = 5
"""The style of the baseline's line; models take turns with those below."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """One model's rate with the two ends of its interval, as heights."""

    x: float
    y: float
    top: float
    bottom: float
    name: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Rates:
    """One language: the rate of each model."""

    language: str
    title: str
    description: str
    width: float = 200
    height: float = 180
    left: float = 34
    right: float = 190
    ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    line: str
    levels: tuple[tuple[str, float], ...]
    """levels are the baselines' names and heights."""


@dataclass(frozen=True)
class Curve:
    """One iteration's line, with the place of its name."""

    style: int
    name: str
    points: str
    x: float
    y: float
    label_y: float


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One measure of training over the steps of all iterations."""

    heading: str
    title: str
    description: str
    width: float = 320
    height: float = 200
    left: float = 44
    right: float = 272
    top: float = 30
    bottom: float = 170
    ticks: tuple[Tick, ...]
    steps: tuple[Tick, ...]
    curves: tuple[Curve, ...]


def rates(story: Story, suite: SuiteStory) -> tuple[Rates, ...]:
    """Return one small chart a language, all with the same axis from zero."""
    languages = (*story.trained(suite), *story.unseen(suite))
    entries = (*story.planned, *(baseline.name for baseline in suite.baselines))
    shown = (suite.estimate(entry, tag) for entry in entries for tag in languages)
    top = round_up(max((found.interval.high for found in shown if found), default=1.0))
    found = (_rates(story, suite, language, top) for language in languages)
    return tuple(chart for chart in found if chart.dots)


def _rates(story: Story, suite: SuiteStory, language: str, top: float) -> Rates:
    def height(value: float) -> float:
        return round(150 - 112 * value / top, 1)

    count = len(story.planned)
    dots: list[Dot] = []
    for index in story.planned:
        found = suite.estimate(index, language)
        if found is None:
            continue
        x = round(48 + 126 * (index / max(count - 1, 1)), 1)
        ends = (height(found.interval.high), height(found.interval.low))
        label = notation.rate(found.value)
        dots.append(Dot(x, height(found.value), *ends, notation.model(index), label))
    levels = [
        (baseline.name, told.value)
        for baseline in suite.baselines
        if (told := suite.estimate(baseline.name, language))
    ]
    said = [f"{dot.name} {dot.label}" for dot in dots]
    said += [f"{wording.BASELINES[name]} {notation.rate(value)}" for name, value in levels]
    return Rates(
        language=language,
        title=f"{language}: {wording.MEASURES[suite.shown]} by model",
        description=f"{suite.name}, {language}: {', '.join(said)}",
        ticks=tuple(Tick(height(value), notation.rate(value)) for value in (0, top / 2, top)),
        dots=tuple(dots),
        line=" ".join(f"{dot.x},{dot.y}" for dot in dots),
        levels=tuple((name, height(value)) for name, value in levels),
    )


def round_up(value: float) -> float:
    """Return the next fifth of one, of ten for grades beyond one; a tenth for small rates."""
    for top in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0):
        if value <= top:
            return top
    return 10.0


CURVES: tuple[tuple[str, str, Callable[[Step], float | None]], ...] = (
    ("Loss", "loss", lambda step: step.loss),
    ("DPO term", "DPO term", lambda step: step.dpo),
    ("NLL term", "NLL of the chosen completion", lambda step: step.nll),
    ("Reward margin", "reward margin", lambda step: step.margins),
    ("Reward accuracy", "reward accuracy", lambda step: step.accuracies),
)
"""Heading, name and value of each measure of training that is drawn."""


def training(story: Story) -> tuple[Curves, ...]:
    """Return one chart a measure with one line a model."""
    found = (_curves(story.training, *curve) for curve in CURVES)
    return tuple(chart for chart in found if chart is not None)


def _curves(
    trainings: Sequence[Training], heading: str, name: str, value: Callable[[Step], float | None]
) -> Curves | None:
    lines = {}
    for training_ in trainings:
        points = [(step.step, value(step)) for step in training_.steps]
        finite = [(step, y) for step, y in points if y is not None and math.isfinite(y)]
        if finite:
            style = SFT_STYLE if training_.is_baseline else training_.iteration % SFT_STYLE
            lines[style, wording.trained(training_)] = _thinned(finite)
    if not lines:
        return None
    values = [y for points in lines.values() for _, y in points]
    scale = _nice(min(values), max(values))
    last = max(step for points in lines.values() for step, _ in points)
    drawn = [_curve(*line, points, scale, last) for line, points in lines.items()]
    ends = (
        f"{model} from {notation.number(points[0][1])} to {notation.number(points[-1][1])}"
        for (_, model), points in lines.items()
    )
    return Curves(
        heading=heading,
        title=f"{heading} while training",
        description=f"{name} by step: {', '.join(ends)}",
        ticks=tuple(Tick(_height(at, scale), notation.number(at)) for at in scale),
        steps=tuple(Tick(_along(at, last), notation.count(at)) for at in sorted({1, last})),
        curves=tuple(_apart(drawn)),
    )


def _curve(
    style: int,
    model: str,
    points: Sequence[tuple[int, float]],
    scale: Sequence[float],
    last: int,
) -> Curve:
    places = [(_along(step, last), _height(y, scale)) for step, y in points]
    line = " ".join(f"{x},{y}" for x, y in places)
    x, y = places[-1]
    return Curve(style, model, line, x, y, y)


def _apart(curves: Sequence[Curve]) -> Iterator[Curve]:
    """Yield the curves with their names at least a line apart."""
    lowest = -math.inf
    for curve in sorted(curves, key=lambda found: (found.y, found.name)):
        lowest = max(curve.y, lowest + 13)
        yield Curve(curve.style, curve.name, curve.points, curve.x, curve.y, lowest)


def _along(step: int, last: int) -> float:
    return round(Curves.left + (Curves.right - Curves.left) * (step - 1) / max(last - 1, 1), 1)


def _height(value: float, scale: Sequence[float]) -> float:
    share = (value - scale[0]) / (scale[-1] - scale[0])
    return round(Curves.bottom - (Curves.bottom - Curves.top) * share, 1)


def _nice(low: float, high: float) -> tuple[float, ...]:
    """Return round ticks from below the lowest to above the highest value."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / 4 <= power * factor)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return tuple(place * step for place in range(first, last + 1))


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most about 200 points, each the mean of its neighbours."""
    size = math.ceil(len(points) / MOST_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], math.fsum(y for _, y in part) / len(part)) for part in parts]
