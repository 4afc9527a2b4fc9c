"""The charts of changes, a row a language: the gain with its interval, off-target before and after.

As wide as a telephone, and as high as there are languages.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from selfimprove_pipeline.report.charts.rates_and_curves import Tick, round_up
from selfimprove_pipeline.report.story.story import Change, Story, SuiteStory
from selfimprove_pipeline.report.words import notation

TOP, ROW = 30, 19
LETTER = 6.7
"""Width of a letter of a language's name."""
MOST_LETTERS = 16
"""Letters that are drawn of it: the plot keeps its room. The description has the whole name."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """One language: a point, and the line that it lies on or ends."""

    name: str
    y: float
    x: float
    start: float
    end: float
    text: str
    is_clear: bool
    """is_clear is true if the change is significant."""


@dataclass(frozen=True, kw_only=True)
class Spans:
    """One chart of rows."""

    heading: str
    title: str
    description: str
    width: float = 300
    left: float
    right: float
    top: float = TOP - 8
    ticks: tuple[Tick, ...]
    zero: float | None
    """zero is the place of no change, None where the axis begins there."""
    rows: tuple[Span, ...]

    @property
    def height(self) -> float:
        """The height of the whole chart."""
        return TOP + ROW * len(self.rows) + 12

    @property
    def bottom(self) -> float:
        """Where the plot ends."""
        return TOP + ROW * len(self.rows) - 8


def gains(story: Story, suite: SuiteStory) -> tuple[Spans, ...]:
    """Return a chart for each two models, all with the same axis."""
    charted = [change for change in suite.shown_changes if change.difference]
    bounds = [
        end
        for change in charted
        if change.difference
        for end in (change.difference.interval.low, change.difference.interval.high)
    ]
    low, high = -round_up(max(0.0, -min(bounds, default=0.0))), round_up(max(bounds, default=1.0))
    spans = dict.fromkeys((change.before, change.after) for change in charted)
    return tuple(
        _gains(story, suite, [c for c in charted if (c.before, c.after) == span], (low, high))
        for span in spans
    )


def _gains(
    story: Story, suite: SuiteStory, changes: Sequence[Change], ends: tuple[float, float]
) -> Spans:
    named = [(_name(story, suite, change), change) for change in changes]
    left, right = _left(name for name, _ in named), 256.0

    def place(value: float) -> float:
        return round(left + (right - left) * (value - ends[0]) / (ends[1] - ends[0]), 1)

    rows = tuple(
        Span(
            name=_fitted(name),
            y=TOP + ROW * row,
            x=place(change.value),
            start=place(change.difference.interval.low),
            end=place(change.difference.interval.high),
            text=notation.signed(change.value),
            is_clear=change.sign != 0,
        )
        for row, (name, change) in enumerate(named)
        if change.difference
    )
    after, before = (notation.model(index) for index in (changes[0].after, changes[0].before))
    is_duel = suite.is_against_m0 and not changes[0].before
    heading = f"{after} {'against' if is_duel else 'minus'} {before}"
    said = (
        f"{name} {notation.signed(change.value)} "
        f"({notation.change_interval(change.difference.interval)})"
        for name, change in named
        if change.difference
    )
    return Spans(
        heading=heading,
        title=f"{heading}: change by language",
        description=f"{suite.name}: {', '.join(said)}",
        left=left,
        right=right,
        ticks=tuple(_ticks(place, ends)),
        zero=place(0),
        rows=rows,
    )


def _ticks(place: Callable[[float], float], ends: tuple[float, float]) -> Iterator[Tick]:
    """Yield zero and the ends, those without a label that would touch that of zero."""
    yield Tick(place(0), "0")
    for end in ends:
        is_near = abs(place(end) - place(0)) < 24  # noqa: PLR2004  the width of a label
        yield Tick(place(end), "" if is_near else notation.signed(end))


def _name(story: Story, suite: SuiteStory, change: Change) -> str:
    if change.language is None:
        return "mean of others"
    return _told(story, suite, change.language)


def _told(story: Story, suite: SuiteStory, language: str) -> str:
    return f"{language} (unseen)" if language in story.unseen(suite) else language


def off_target(story: Story, suite: SuiteStory) -> Spans | None:
    """Return the share in a wrong language of the first and of the last model."""
    told = list(_off_target(story, suite))
    if not told:
        return None
    top = round_up(max(max(before, after) for _, before, after in told))
    left, right = _left(name for name, _, _ in told), 226.0

    def place(value: float) -> float:
        return round(left + (right - left) * value / top, 1)

    rows = tuple(
        Span(
            name=_fitted(name),
            y=TOP + ROW * row,
            x=place(after),
            start=place(before),
            end=place(after),
            text=f"{notation.rate(before)} → {notation.rate(after)}",
            is_clear=True,
        )
        for row, (name, before, after) in enumerate(told)
    )
    last = notation.model(max(index for index, _ in suite.measured))
    heading = f"Off-target rate, M0 → {last}"
    said = (f"{name} {row.text}" for (name, _, _), row in zip(told, rows, strict=True))
    return Spans(
        heading=heading,
        title=f"{heading}: share of answers in a wrong language",
        description=f"{suite.name}: {', '.join(said)}",
        left=left,
        right=right,
        ticks=tuple(Tick(place(at), notation.rate(at)) for at in (0, top / 2, top)),
        zero=None,
        rows=rows,
    )


def _off_target(story: Story, suite: SuiteStory) -> Iterator[tuple[str, float, float]]:
    """Yield name and share in a wrong language of M0 and of the last model that has any."""
    last = max((index for index, _ in suite.measured), default=0)
    for language in (*story.trained(suite), *story.unseen(suite)):
        ends = [suite.of(index, language) for index in (0, last)]
        rates = [found.off_target for found in ends if found and found.off_target]
        values = [rate.value for rate in rates if rate.value is not None]
        if last and len(values) == len(ends):
            yield _told(story, suite, language), values[0], values[1]


def _left(names: Iterable[str]) -> float:
    return round(12 + LETTER * max((len(_fitted(name)) for name in names), default=0), 1)


def _fitted(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
