"""The loss of one global batch: DPO (sigmoid) plus a weighted NLL of the chosen completions.

The baseline `sft` has the NLL alone. Both terms are plain weighted sums over pairs. The weights
carry the whole normalisation by the global batch, so any split into micro-batches and ranks adds
up to the same loss. `plan` makes the weights, `trainer` supplies the log-probabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

from selfimprove_pipeline.contract import objectives
from selfimprove_pipeline.contract.objectives import ObjectiveName
from selfimprove_pipeline.contract.recipe.training import Training

Batch = Mapping[str, Tensor]
"""What a micro-batch carries beside its tokens, each of shape (pairs,).

`weight` is each pair's share of the DPO term, `nll_weight` that of its chosen completion's summed
log-probability in the NLL term; 0 for rows that only keep the ranks in step. `ref_chosen_logps` and
`ref_rejected_logps` are there for an objective that compares.
"""


@dataclass(frozen=True)
class Terms:
    """What a micro-batch adds to its global batch; sums over all micro-batches are the values."""

    loss: Tensor
    """loss is a scalar with a gradient."""
    measures: Tensor
    """measures are detached, in the order of the objective's names for them."""


class Objective(Protocol):
    """What a training minimises."""

    measures: ClassVar[tuple[str, ...]]
    """measures are the names of `Terms.measures`."""
    compares: ClassVar[bool]
    """compares with rejected completions and a reference; else neither is ever computed."""

    @classmethod
    def of(cls, training: Training) -> Self:
        """Return the objective with what it reads of the recipe."""

    def terms(self, logps: Tensor, batch: Batch) -> Terms:
        """Return the part of the loss that a micro-batch makes.

        `logps` are the policy's summed log-probabilities of completions in nats: of shape (2 x
        pairs,), all chosen ones first, or (pairs,), the chosen ones alone.
        """


def _measures(name: ObjectiveName) -> tuple[str, ...]:
    return tuple(measure.name for measure in objectives.BY_NAME[name].measures)


@dataclass(frozen=True)
class PreferenceObjective:
    """DPO with the NLL term: `beta` scales the log-ratios, `nll_weight` is alpha.

    DPO: Rafailov et al. 2023, eq. 7. The NLL term with the per-sequence mean is LLaMA-Factory's
    `pref_ftx`.
    """

    measures: ClassVar = _measures("dpo")
    """measures, of which the first two make the loss."""
    compares: ClassVar[bool] = True

    beta: float
    nll_weight: float

    @classmethod
    def of(cls, training: Training) -> Self:
        """Return the objective of a training."""
        return cls(beta=training.beta, nll_weight=training.nll_weight)

    def terms(self, logps: Tensor, batch: Batch) -> Terms:
        """Return the part of the loss that these pairs make."""
        of_chosen, of_rejected = logps.chunk(2)
        weight = batch["weight"]
        chosen = self.beta * (of_chosen - batch["ref_chosen_logps"])
        rejected = self.beta * (of_rejected - batch["ref_rejected_logps"])
        dpo = (weight * -functional.logsigmoid(chosen - rejected)).sum()
        nll = _nll(of_chosen, batch)
        shares = torch.stack(
            [
                (weight * value.detach()).sum()
                for value in (chosen, rejected, (chosen > rejected).float(), chosen - rejected)
            ]
        )
        measures = torch.cat([torch.stack([dpo.detach(), nll.detach()]), shares])
        return Terms(loss=dpo + self.nll_weight * nll, measures=measures)


@dataclass(frozen=True)
class SftObjective:
    """The NLL term alone: supervised training on the chosen completions."""

    measures: ClassVar = _measures("sft")
    compares: ClassVar[bool] = False

    @classmethod
    def of(cls, _: Training) -> Self:
        """Return the objective; it reads no field of its own."""
        return cls()

    def terms(self, logps: Tensor, batch: Batch) -> Terms:
        """Return the part of the loss that these chosen completions make."""
        nll = _nll(logps, batch)
        return Terms(loss=nll, measures=nll.detach()[None])


def _nll(chosen: Tensor, batch: Batch) -> Tensor:
    return (batch["nll_weight"] * -chosen).sum()


BY_NAME: Final[Mapping[ObjectiveName, type[Objective]]] = {
    "dpo": PreferenceObjective,
    "sft": SftObjective,
}
"""What computes each objective of the contract's table."""
