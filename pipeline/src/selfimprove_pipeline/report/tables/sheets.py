"""The tables of the report as text, the same on the page and in Markdown.

Columns of text come first, numbers after them. Texts are as they are: whoever shows a sheet
escapes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from selfimprove_pipeline.contract.rows import GatedLanguage
from selfimprove_pipeline.measuring.intervals import Interval
from selfimprove_pipeline.report.story.making import Agreement, Pairs, Training, Work
from selfimprove_pipeline.report.story.story import Story
from selfimprove_pipeline.report.words import captions, notation, wording

Cells = tuple[str, ...]


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


def pairs(story: Story) -> Sheet:
    """Return the pairs that were kept and dropped, by iteration and language."""
    return Sheet(
        texts=("Iteration", "Language", "Dropped before, by reason"),
        numbers=("Kept", "Not trained on"),
        rows=tuple(_pairs(row, story) for row in story.pairs),
        absent="Not yet: no iteration has its pairs.",
    )


def agreements(story: Story) -> Sheet:
    """Return how often gold answers or a judge agree with the labels."""
    return Sheet(
        texts=("Iteration", "Language"),
        numbers=("Reward accuracy", "Decided pairs", "Ties"),
        rows=tuple(_agreement(row, story) for row in story.agreements),
        absent="Not measured: prompts without gold answers or judge, or no pairs scored yet.",
    )


def promotions(story: Story) -> Sheet:
    """Return what the gate of each model has found, by language."""
    return Sheet(
        texts=("Model", "Language", "Gate"),
        numbers=("Change", "95 % interval", "p (Holm)", "Prompts"),
        rows=tuple(
            (
                notation.model(found.model),
                row.language,
                *_gate(row),
            )
            for found in story.promotions
            for row in found.languages
        ),
        absent="No gate has compared a model with the one before.",
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
        rows=tuple((notation.model(row.index), row.uri, row.digest) for row in story.models),
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


def _pairs(row: Pairs, story: Story) -> Cells:
    return (
        wording.iteration(row.iteration, story),
        row.language,
        _by_reason(row.drops),
        notation.count(row.kept),
        notation.count(row.untrained),
    )


def _agreement(row: Agreement, story: Story) -> Cells:
    return (
        wording.iteration(row.iteration, story),
        row.language,
        notation.share(row.accuracy),
        notation.count(row.accuracy.n),
        notation.count(row.ties),
    )


def _gate(row: GatedLanguage) -> Cells:
    decision = captions.DECISIONS[row.decision]
    if row.change is None or row.low is None or row.high is None:
        return (decision, *(notation.NONE,) * 4)
    return (
        decision,
        notation.signed(row.change),
        notation.change_interval(Interval(row.low, row.high)),
        notation.probability(row.p),
        notation.count(row.n),
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
    speed = notation.per_second(row.tokens, row.seconds)
    return (
        wording.trained(row),
        notation.count(last.step),
        *map(notation.number, measures),
        speed,
    )


def _work(row: Work, story: Story) -> Cells:
    tokens = (row.prompt_tokens, row.completion_tokens)
    return (
        wording.iteration(row.iteration, story),
        row.stage,
        _origin(row),
        notation.seconds(row.wall),
        notation.seconds(row.engine_start) if row.engine_start else notation.NONE,
        *(notation.count(number) if number else notation.NONE for number in tokens),
        notation.per_second(row.completion_tokens, row.wall),
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
    return ", ".join(f"{reason} {notation.count(rows)}" for reason, rows in ordered) or "none"


def _listed(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in packages.items())
