"""The tables of the report as text, the same on the page and in Markdown.

Columns of text come first, numbers after them. Texts are as they are: whoever shows a sheet
escapes them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from selfimprove_pipeline.report import wording
from selfimprove_pipeline.report.story import (
    Agreement,
    Change,
    Judged,
    Measured,
    Pairs,
    Story,
    SuiteStory,
    Training,
    Work,
)
from selfimprove_pipeline.statistics import Interval

Cells = tuple[str, ...]

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


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table."""

    texts: Cells
    """texts are the headings of the columns with text."""
    numbers: Cells = ()
    """numbers are the headings of the columns with numbers, which stand to the right."""
    rows: tuple[Cells, ...]
    absent: str
    """absent is what to say when there are no rows."""


def changes(suite: SuiteStory) -> Sheet:
    """Return every change from a model to the next, and from M0 and baselines to the last."""
    return Sheet(
        texts=("From", "To", "Language", "Verdict"),
        numbers=("Change", "95 % interval", "Prompts"),
        rows=(
            *(_change(wording.model(found.before), found, suite) for found in suite.changes),
            *(
                _change(wording.BASELINES[baseline.name], found, suite)
                for baseline in suite.baselines
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
        yield wording.model(index), {tag: one for (model, tag), one in found if model == index}
    for baseline in suite.baselines:
        yield wording.BASELINES[baseline.name], baseline.measured


def judged(found: Iterable[Judged], suite: str, languages: Sequence[str]) -> Sheet:
    """Return the verdicts on a suite, by model and language; no rows of one without a judge."""
    own = [row for row in found if row.suite == suite and row.language in languages]
    ordered = sorted(own, key=lambda row: (row.iteration, languages.index(row.language)))
    return Sheet(
        texts=("Model", "Language"),
        numbers=JUDGED,
        rows=tuple((wording.model(r.iteration), r.language, *judged_cells(r)) for r in ordered),
        absent=wording.NOT_YET,
    )


def pairs(story: Story) -> Sheet:
    """Return the pairs that were kept and dropped, by iteration and language."""
    return Sheet(
        texts=("Iteration", "Language", "Dropped before, by reason"),
        numbers=("Kept", "Not trained on"),
        rows=tuple(_pairs(row, story) for row in story.pairs),
        absent="Not yet: no iteration has its pairs.",
    )


def agreements(story: Story) -> Sheet:
    """Return how often gold answers agree with the labels."""
    return Sheet(
        texts=("Iteration", "Language"),
        numbers=("Reward accuracy", "Decided pairs", "Ties"),
        rows=tuple(_agreement(row, story) for row in story.agreements),
        absent="Not measured: the prompts have no gold answers, or no pairs are scored yet.",
    )


def training(story: Story) -> Sheet:
    """Return the last step of each training and its speed."""
    return Sheet(
        texts=("Model",),
        numbers=(
            "Steps",
            "Loss",
            "DPO term",
            "NLL term",
            "Reward accuracy",
            "Margin",
            "Chosen",
            "Rejected",
            "Learning rate",
            "Gradient norm",
            "Tokens/s",
        ),
        rows=tuple(_training(row) for row in story.training if row.steps),
        absent="Not yet: no model has been trained.",
    )


def work(story: Story) -> Sheet:
    """Return time and tokens of each stage."""
    return Sheet(
        texts=("Iteration", "Stage", "Artifacts"),
        numbers=(
            "Time",
            "Engine start",
            "Prompt tokens",
            "Completion tokens",
            "Completion tokens/s",
        ),
        rows=tuple(_work(row, story) for row in story.work),
        absent="Not yet: no stage has finished.",
    )


def models(story: Story) -> Sheet:
    """Return where the models lie."""
    return Sheet(
        texts=("Model", "Where", "Digest"),
        rows=tuple((wording.model(row.index), row.uri, row.digest) for row in story.models),
        absent="Not yet: no model is known.",
    )


def artifacts(story: Story) -> Sheet:
    """Return the keys and digests of the artifacts."""
    return Sheet(
        texts=("Iteration", "Stage", "Part", "Key", "Digest"),
        rows=tuple(
            (wording.iteration(row.iteration, story), row.stage, row.part, row.key, row.digest)
            for row in story.artifacts
        ),
        absent="Not yet: no stage has finished.",
    )


def versions(story: Story) -> Sheet:
    """Return the packages that computed each stage."""
    return Sheet(
        texts=("Stage", "Packages"),
        rows=tuple((stage, _listed(packages)) for stage, packages in story.versions.items()),
        absent="Not yet: no stage has finished.",
    )


def _change(before: str, change: Change, suite: SuiteStory) -> Cells:
    found = change.difference
    return (
        before,
        wording.model(change.after),
        change.language or "mean of the others",
        wording.verdict(change, suite.measure),
        wording.signed(change.value),
        wording.change_interval(found.interval) if found else wording.NONE,
        wording.count(found.n) if found else wording.NONE,
    )


def answer_cells(found: Measured) -> Cells:
    """Return the cells below `ANSWERS`."""
    rates = (found.score, found.off_target, found.evasive, found.empty, found.truncated)
    return (
        wording.count(found.empty.n),
        *(wording.rate(rate.value if rate else None) for rate in rates),
        wording.count(found.mean_length),
    )


def judged_cells(found: Judged) -> Cells:
    """Return the cells below `JUDGED`."""
    measures = found.measures
    bounds = Interval(measures.get("winRateLow", 0.0), measures.get("winRateHigh", 1.0))
    rate = wording.rate(measures.get("winRate"))
    names = ("lcWinRate", "win", "tie", "lose", "positionBias")
    return (
        f"{rate} ({wording.interval(bounds)})" if measures else wording.NONE,
        *(wording.rate(measures.get(name)) for name in names),
        wording.count(found.decided),
        wording.count(found.malformed),
    )


def _pairs(row: Pairs, story: Story) -> Cells:
    return (
        wording.iteration(row.iteration, story),
        row.language,
        _by_reason(row.drops),
        wording.count(row.kept),
        wording.count(row.untrained),
    )


def _agreement(row: Agreement, story: Story) -> Cells:
    return (
        wording.iteration(row.iteration, story),
        row.language,
        wording.share(row.accuracy),
        wording.count(row.accuracy.n),
        wording.count(row.ties),
    )


def _training(row: Training) -> Cells:
    last = row.steps[-1]
    measures = (
        last.loss,
        last.dpo,
        last.nll,
        last.accuracies,
        last.margins,
        last.chosen,
        last.rejected,
        last.learning_rate,
        last.grad_norm,
    )
    speed = wording.per_second(row.tokens, row.seconds)
    return (
        wording.model(row.iteration + 1),
        wording.count(last.step),
        *map(wording.number, measures),
        speed,
    )


def _work(row: Work, story: Story) -> Cells:
    tokens = (row.prompt_tokens, row.completion_tokens)
    return (
        wording.iteration(row.iteration, story),
        row.stage,
        _origin(row),
        wording.seconds(row.wall),
        wording.seconds(row.engine_start) if row.engine_start else wording.NONE,
        *(wording.count(number) if number else wording.NONE for number in tokens),
        wording.per_second(row.completion_tokens, row.wall),
    )


def _origin(row: Work) -> str:
    """Say whether this run computed a stage's artifacts or found them in the store."""
    found = row.artifacts - row.computed
    parts = [f"{row.computed} computed"] if row.computed else []
    parts += [f"{found} found in the store"] if found else []
    return ", ".join(parts)


def _by_reason(drops: Mapping[str, int]) -> str:
    """Write drops by reason, the most frequent first."""
    ordered = sorted(drops.items(), key=lambda drop: (-drop[1], drop[0]))
    return ", ".join(f"{reason} {wording.count(rows)}" for reason, rows in ordered) or "none"


def _listed(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in packages.items())
