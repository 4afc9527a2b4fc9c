"""The table of stages: their order, and which worker runs them.

Whatever needs to know a stage's place reads it here: survey, local runner, workers, the operator's
units, pods and the report. docs/architecture.md says what each stage reads and writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from selfimprove_pipeline.contract.recipe import Stage

Worker = Literal["inference", "light", "training"]
"""The processes of an iteration, in their order. On a cluster each has an image of its own."""


@dataclass(frozen=True)
class StageInfo:
    """One row of the table."""

    name: Stage
    worker: Worker
    measures: bool = False
    """measures a model, the last one too; all other stages make the next model."""
    is_without_engine: bool = False
    """is_without_engine: it comes last in its worker, when the engine has ended."""


TABLE: Final = (
    StageInfo("evaluate", "inference", measures=True),
    StageInfo("gate", "inference", measures=True),
    StageInfo("judge", "inference", measures=True, is_without_engine=True),
    StageInfo("generate", "inference"),
    StageInfo("translate", "inference"),
    StageInfo("pair", "light"),
    StageInfo("score", "light"),
    StageInfo("train", "training"),
)
"""The stages of an iteration in the order of what they read; `reference` is a pass of `train`."""

MEASURING: Final = tuple(info.name for info in TABLE if info.measures)
"""Stages of the last model, which is only measured."""

WORKERS: Final[Mapping[Worker, tuple[Stage, ...]]] = {
    worker: tuple(
        info.name
        for info in sorted(TABLE, key=lambda info: info.is_without_engine)
        if info.worker == worker
    )
    for worker in get_args(Worker)
}
"""The stages that each worker finishes, in the order in which it runs them."""
