"""The table of stages: what each one reads and writes, and where it runs."""

from dataclasses import dataclass
from typing import Final, Literal

from selfimprove_pipeline.contract.recipe import Stage

Image = Literal["inference", "light", "training"]


@dataclass(frozen=True)
class StageInfo:
    """One row of the table: what a stage reads and writes, and where it runs."""

    name: Stage
    reads: tuple[str, ...]
    writes: str
    image: Image
    needs_gpu: bool


TABLE: Final = (
    StageInfo("evaluate", ("model", "suites"), "<language>.jsonl a suite", "inference", True),
    StageInfo("gate", ("answers", "answers of M_(t-1)"), "languages.jsonl", "inference", False),
    StageInfo(
        "judge", ("answers", "other answers"), "<language>.jsonl a suite", "inference", False
    ),
    StageInfo("generate", ("model", "prompts"), "<language>.jsonl", "inference", True),
    StageInfo("translate", ("model", "answers"), "<source>_<target>.jsonl", "inference", True),
    StageInfo(
        "pair", ("prompts", "answers", "translations"), "pairs.jsonl, drops.jsonl", "light", False
    ),
    StageInfo("score", ("pairs", "gold answers or a judge"), "scores.jsonl", "light", False),
    StageInfo("train", ("model", "pairs"), "a Hugging Face folder", "training", True),
)
"""The stages of an iteration in their order; `reference` is a pass inside `train`."""

MEASURING: Final[tuple[Stage, ...]] = ("evaluate", "gate", "judge")
"""Stages of the last model, which is measured and nothing else."""
