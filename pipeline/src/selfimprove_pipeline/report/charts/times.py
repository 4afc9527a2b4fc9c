"""The chart of time: the seconds of each iteration, stage after stage, in SVG user units."""

from dataclasses import dataclass

from selfimprove_pipeline.report.story.story import Story
from selfimprove_pipeline.report.words import notation, wording

ENGINE_START = "engine start"


@dataclass(frozen=True)
class Segment:
    """A part of a bar."""

    style: int
    name: str
    x: float
    width: float
    label: str


@dataclass(frozen=True)
class Bar:
    """The seconds of one iteration, stage after stage."""

    name: str
    y: float
    total: str
    end: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class Times:
    """The seconds of all iterations."""

    title: str
    description: str
    width: float = 720
    height: float
    left: float = 84
    bars: tuple[Bar, ...]
    legend: tuple[tuple[int, str], ...]
    """legend pairs a style with the stage that has it."""


def times(story: Story) -> Times | None:
    """Return a bar an iteration, None before any stage has taken time."""
    seconds: dict[int, dict[str, float]] = {}
    for work in story.work:
        spent = seconds.setdefault(work.iteration, {})
        spent[work.stage] = spent.get(work.stage, 0.0) + work.wall
        spent[ENGINE_START] = spent.get(ENGINE_START, 0.0) + work.engine_start
    longest = max((sum(spent.values()) for spent in seconds.values()), default=0.0)
    if not longest:
        return None
    stages = list(dict.fromkeys(work.stage for work in story.work))
    styles = {stage: style for style, stage in enumerate([*stages, ENGINE_START])}
    bars = tuple(
        _bar(wording.iteration(iteration, story), spent, styles, row=row, longest=longest)
        for row, (iteration, spent) in enumerate(seconds.items())
    )
    return Times(
        title="Seconds by iteration and stage",
        description="; ".join(f"{bar.name} {bar.total}" for bar in bars),
        height=len(bars) * 34 + 8,
        bars=bars,
        legend=tuple((style, stage) for stage, style in styles.items()),
    )


def _bar(
    name: str, spent: dict[str, float], styles: dict[str, int], *, row: int, longest: float
) -> Bar:
    segments: list[Segment] = []
    x = Times.left
    for stage, style in styles.items():
        width = 540 * spent.get(stage, 0.0) / longest
        if width > 0:
            text = notation.seconds(spent[stage])
            segments.append(Segment(style, stage, round(x, 1), round(width, 1), text))
        x += width
    total = notation.seconds(sum(spent.values()))
    return Bar(name, row * 34 + 6, total, round(x, 1), tuple(segments))
