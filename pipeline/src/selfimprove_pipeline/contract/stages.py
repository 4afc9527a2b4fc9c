"""The table of stages: their order, which worker runs them, and what they need for it.

Whatever differs from stage to stage is a column here. Keys, survey, workers, the local runner,
the report and the operator's units and pods read it.
docs/architecture.md says what each stage reads and writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from selfimprove_pipeline.contract.recipe import Stage

Worker = Literal["inference", "light", "training"]
"""The processes of an iteration, in their order. On a cluster each has an image of its own."""
Section = Literal["inference", "light", "training", "translation"]
"""Parts of the toolchain: the packages, engine and devices that compute something."""

Server = Literal["translator", "judge"]


@dataclass(frozen=True)
class StageInfo:
    """One row of the table."""

    name: Stage
    worker: Worker
    sections: tuple[Section, ...]
    """sections of the toolchain whose versions are part of the stage's keys."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """versions of our own code that are part of its keys. Raise one where results change."""
    measures: bool = False
    """measures a model, the last one too; all other stages make the next model."""
    is_without_engine: bool = False
    """is_without_engine: it comes last in its worker, when the engine has ended."""
    asks: Server | None = None
    """asks a server outside, where the recipe names one, and so needs its credentials."""
    has_numbers: bool = False
    """has_numbers by language, which the status of a run shows."""


TABLE: Final = (
    StageInfo("evaluate", "inference", ("inference", "light"), measures=True, has_numbers=True),
    # How a gate decides.
    StageInfo("gate", "inference", (), {"gate": "1"}, measures=True),
    # What a judge is asked and how its verdict is read.
    StageInfo(
        "judge",
        "inference",
        ("light",),
        {"question": "1"},
        measures=True,
        is_without_engine=True,
        asks="judge",
    ),
    StageInfo("generate", "inference", ("inference",)),
    StageInfo("translate", "inference", ("translation",), asks="translator"),
    StageInfo("pair", "light", ("light",), has_numbers=True),
    # How a text is compared with a gold answer; 1 compared whole texts.
    StageInfo("score", "light", ("light",), {"reading": "2"}, asks="judge", has_numbers=True),
    StageInfo("train", "training", ("training",)),
)
"""The stages of an iteration in the order of what they read; `reference` is a pass of `train`."""

ROWS: Final[Mapping[Stage, StageInfo]] = {info.name: info for info in TABLE} | {
    "reference": next(info for info in TABLE if info.name == "train")
}
"""The row of each stage."""

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

SECTIONS: Final[Mapping[Worker, frozenset[Section]]] = {
    worker: frozenset(section for name in names for section in ROWS[name].sections)
    for worker, names in WORKERS.items()
}
"""The sections of the toolchain by which each worker computes."""
