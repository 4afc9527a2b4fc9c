"""The table of training objectives: which fields each one reads, and what it measures.

An objective is a row here and a class in `train.loop.objective` that computes it. Keys, the model
card and the report read the row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

ObjectiveName = Literal["dpo", "sft"]


@dataclass(frozen=True)
class Measure:
    """A number per training step: a column of `metrics.jsonl`."""

    name: str
    heading: str = ""
    """heading of its chart and column in the report. Empty: it is not shown."""


@dataclass(frozen=True)
class ObjectiveInfo:
    """One row of the table."""

    name: ObjectiveName
    title: str
    """title of the model card."""
    about: str
    """about is the card's first paragraph."""
    measures: tuple[Measure, ...]
    fields: tuple[str, ...] = ()
    """fields of `training` that no other objective reads."""


_NLL: Final = Measure("nll", "NLL term")

TABLE: Final = (
    ObjectiveInfo(
        "dpo",
        title="Model trained on its own preference pairs",
        about="""\
One iteration of Language Imbalance Driven Rewarding: DPO with an NLL term on pairs that the
model before made itself.
""",
        measures=(
            Measure("dpo", "DPO term"),
            _NLL,
            Measure("rewards/chosen"),
            Measure("rewards/rejected"),
            Measure("rewards/accuracies", "Reward accuracy"),
            Measure("rewards/margins", "Reward margin"),
        ),
        fields=("beta", "nllWeight"),
    ),
    ObjectiveInfo(
        "sft",
        title="Baseline trained on the chosen texts alone",
        about="""\
Supervised training on the chosen texts of the pairs of Language Imbalance Driven Rewarding: the
NLL alone, to compare with what the pairs make of the same model.
""",
        measures=(_NLL,),
    ),
)

BY_NAME: Final[Mapping[ObjectiveName, ObjectiveInfo]] = {info.name: info for info in TABLE}


def unread(name: ObjectiveName) -> frozenset[str]:
    """Return the fields of `training` that an objective does not read, as a recipe spells them."""
    own = set(BY_NAME[name].fields)
    return frozenset(field for info in TABLE for field in info.fields if field not in own)
