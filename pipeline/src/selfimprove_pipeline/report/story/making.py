"""How a run made its models, as plain data: pairs, their scores, training, time and artifacts.

`gather` fills it beside the results of `story`, `sheets` and the charts show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ConfigDict, Field

from selfimprove_pipeline.contract.rows import GatedLanguage, Row
from selfimprove_pipeline.measuring.gates import Decision
from selfimprove_pipeline.measuring.intervals import Rate


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pairs of one language in one iteration."""

    iteration: int
    language: str
    kept: int
    drops: Mapping[str, int]
    """drops by reason, which became no pair."""
    untrained: int
    """untrained are the pairs that training left out, such as overlong ones."""


class Step(Row):
    """One step of training as `metrics.jsonl` holds it; fields that are not shown are ignored."""

    model_config = ConfigDict(extra="ignore")

    step: int
    loss: float | None = None
    dpo: float | None = None
    nll: float | None = None
    accuracies: float | None = Field(default=None, alias="rewards/accuracies")
    margins: float | None = Field(default=None, alias="rewards/margins")
    chosen: float | None = Field(default=None, alias="rewards/chosen")
    rejected: float | None = Field(default=None, alias="rewards/rejected")
    learning_rate: float | None = Field(default=None, alias="learning_rate")
    grad_norm: float | None = Field(default=None, alias="grad_norm")
    seconds: float | None = None
    tokens: float | None = None
    """tokens and seconds are those of this step."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The steps of one training of an iteration."""

    iteration: int
    steps: tuple[Step, ...]
    is_baseline: bool = False
    """is_baseline is true if it made the baseline `sft` and not the next model."""

    @property
    def seconds(self) -> float:
        """The seconds of all steps together."""
        return sum(step.seconds or 0.0 for step in self.steps)

    @property
    def tokens(self) -> float:
        """The tokens of all steps together."""
        return sum(step.tokens or 0.0 for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often gold answers, or a judge, agree with the labels of pairs in one language."""

    iteration: int
    language: str
    accuracy: Rate
    """accuracy is the share of pairs whose chosen text scores higher, among the decided ones."""
    ties: int
    """ties are pairs whose texts score the same; they decide nothing."""
    generation: float | None = None
    """generation is the mean worth of the texts that the model has written in the language itself,
    the right ones' share against gold answers, else a judge's grade from 0 to 10."""
    translation: float | None = None
    """translation is that of those that were translated into it."""
    is_graded: bool = False
    """is_graded is true if a judge has graded the texts."""
    decision: Decision | None = None
    """decision of the gate, None where gates are disabled."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What the gate of one model says of each language, and with it of the model."""

    model: int
    languages: tuple[GatedLanguage, ...]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one stage took in one iteration, over its artifacts."""

    iteration: int
    stage: str
    wall: float
    """wall in seconds, without the engine's start."""
    engine_start: float
    """engine_start in seconds: the stage's share of starting engines."""
    artifacts: int
    computed: int
    """computed is how many of the artifacts this run made itself; it found the others."""
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One finished artifact by its name in the store."""

    iteration: int
    stage: str
    part: str
    key: str
    digest: str
