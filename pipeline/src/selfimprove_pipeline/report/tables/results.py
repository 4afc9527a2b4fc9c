"""The sheets of a suite: its changes, the verdicts on it, and what the answers were like."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from selfimprove_pipeline.measuring.intervals import Interval
from selfimprove_pipeline.measuring.judged.turns import OF_TURNS
from selfimprove_pipeline.report.story.story import (
    Change,
    Entry,
    Judged,
    Measured,
    Story,
    SuiteStory,
)
from selfimprove_pipeline.report.tables.sheets import Cells, Sheet
from selfimprove_pipeline.report.words import notation, wording

STDERR = "_stderr"
"""Ends the name of a metric's standard error in lm-eval."""
OUR_OWN = ("score", "n")
"""Measures of a task beside lm-eval's: the mean that its table shows, and its documents."""
ANSWERS: Cells = (
    "Answers",
    "Right",
    "Wrong language",
    "Evasive",
    "Empty",
    "Cut at the limit",
    "Mean characters",
)
"""Headings of what the answers of one model in one language were like."""
JUDGED: Cells = (
    "Win rate",
    "At equal length",
    "Win",
    "Tie",
    "Lose",
    "Bias of place",
    "Judged",
    "Malformed",
)
"""Headings of what a judge said of the answers of one model in one language."""
GRADED: Cells = ("Mean grade", "First turn", "Second turn", "Conversations", "Malformed")
"""The same of a judge that grades."""


def changes(suite: SuiteStory) -> Sheet:
    """Return every change from a model to the next, and from M0 and baselines to the last."""
    return Sheet(
        texts=("From", "To", "Task" if suite.has_tasks else "Language", "Verdict"),
        numbers=("Change", "95 % interval", "p", "p (Holm)", "Prompts"),
        rows=(
            *(_change(notation.model(found.before), found, suite) for found in suite.shown_changes),
            *(
                _change(wording.BASELINES[baseline.name], found, suite)
                for baseline in suite.baselines
                if suite.verdicts is None
                for found in baseline.changes
            ),
        ),
        absent="Not yet: a change needs two models.",
    )


def answers(story: Story, suite: SuiteStory) -> Sheet:
    """Return what the answers were like, by model and language."""
    return Sheet(
        texts=("Model", "Language"),
        numbers=ANSWERS,
        rows=tuple(
            (name, language, *answer_cells(measured[language]))
            for name, measured in _named(story, suite)
            for language in (*story.trained(suite), *story.unseen(suite))
            if language in measured
        ),
        absent="Not yet: no answers are evaluated.",
    )


def _named(story: Story, suite: SuiteStory) -> Iterator[tuple[str, Mapping[str, Measured]]]:
    """Yield each model, then each baseline, with what is measured of it by language."""
    for index in story.planned:
        found = suite.measured.items()
        yield notation.model(index), {tag: one for (model, tag), one in found if model == index}
    for baseline in suite.baselines:
        yield wording.BASELINES[baseline.name], baseline.measured


def judged(found: Iterable[Judged], languages: Sequence[str]) -> Sheet:
    """Return the verdicts on a suite, by model and language; no rows of one without a judge."""
    own = [row for row in found if row.language in languages]
    ordered = sorted(own, key=lambda row: (_place(row.entry), languages.index(row.language)))
    is_graded = any("grade" in row.measures for row in own)
    cells = graded_cells if is_graded else judged_cells
    return Sheet(
        texts=("Model", "Language"),
        numbers=GRADED if is_graded else JUDGED,
        rows=tuple((wording.entry(row.entry), row.language, *cells(row)) for row in ordered),
        absent=wording.NOT_YET,
    )


def harness(suite: SuiteStory) -> Sheet:
    """Return all that lm-eval tells, by model, task and metric; no rows of another suite."""
    ordered = sorted(suite.results.items(), key=lambda item: (_place(item[0][0]), item[0][1]))
    return Sheet(
        texts=("Model", "Task", "Metric"),
        numbers=("Value", "Standard error"),
        rows=tuple(
            (
                wording.entry(entry),
                task,
                metric,
                notation.number(value),
                notation.number(told.get(f"{metric}{STDERR}")),
            )
            for (entry, task), told in ordered
            for metric, value in told.items()
            if metric not in OUR_OWN and not metric.endswith(STDERR)
        ),
        absent=wording.NOT_YET,
    )


def _place(entry: Entry) -> tuple[bool, str]:
    """Return the order of models by number, then of baselines by name."""
    return isinstance(entry, str), f"{entry:04}" if isinstance(entry, int) else entry


def _change(before: str, change: Change, suite: SuiteStory) -> Cells:
    found = change.difference
    return (
        before,
        notation.model(change.after),
        change.language or "mean of the others",
        wording.verdict(change, suite.shown),
        notation.signed(change.value),
        notation.change_interval(found.interval) if found else notation.NONE,
        notation.probability(change.p),
        notation.probability(change.adjusted),
        notation.count(found.n) if found else notation.NONE,
    )


def answer_cells(found: Measured) -> Cells:
    """Return the cells below `ANSWERS`."""
    rates = (found.score, found.off_target, found.evasive, found.empty, found.truncated)
    return (
        notation.count(found.empty.n),
        *(notation.rate(rate.value if rate else None) for rate in rates),
        notation.count(found.mean_length),
    )


def graded_cells(found: Judged) -> Cells:
    """Return the cells below `GRADED`."""
    estimate = found.estimate
    bounds = f" ({notation.interval(estimate.interval)})" if estimate else ""
    return (
        f"{notation.rate(estimate.value if estimate else None)}{bounds}",
        *(notation.rate(found.measures.get(name)) for name in OF_TURNS),
        notation.count(found.decided),
        notation.count(found.malformed),
    )


def judged_cells(found: Judged) -> Cells:
    """Return the cells below `JUDGED`."""
    measures = found.measures
    bounds = Interval(measures.get("winRateLow", 0.0), measures.get("winRateHigh", 1.0))
    rate = notation.rate(measures.get("winRate"))
    names = ("lcWinRate", "win", "tie", "lose", "positionBias")
    return (
        f"{rate} ({notation.interval(bounds)})" if measures else notation.NONE,
        *(notation.rate(measures.get(name)) for name in names),
        notation.count(found.decided),
        notation.count(found.malformed),
    )
