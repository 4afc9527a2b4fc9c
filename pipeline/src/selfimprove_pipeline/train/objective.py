"""The loss of one global batch: DPO (sigmoid) plus a weighted NLL of the chosen completions.

Both terms are plain weighted sums over pairs. The weights carry the whole normalisation by the
global batch, so any split into micro-batches and ranks adds up to the same loss. `plan` makes
the weights, `trainer` supplies the log-probabilities.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MEASURES = (
    "dpo",
    "nll",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
)
"""Names of `Terms.measures`, in order; the first two make the loss."""


@dataclass(frozen=True)
class Logps:
    """Summed log-probabilities of a micro-batch's completions in nats, each of shape (pairs,)."""

    chosen: Tensor
    rejected: Tensor


@dataclass(frozen=True)
class Terms:
    """What a micro-batch adds to its global batch; sums over all micro-batches are the values."""

    loss: Tensor
    """loss is a scalar with a gradient."""
    measures: Tensor
    """measures are detached, of shape (len(MEASURES),)."""


@dataclass(frozen=True)
class Objective:
    """DPO with the NLL term: `beta` scales the log-ratios, `nll_weight` is alpha.

    DPO: Rafailov et al. 2023, eq. 7. The NLL term with the per-sequence mean is LLaMA-Factory's
    `pref_ftx`.
    """

    beta: float
    nll_weight: float

    def terms(
        self, policy: Logps, reference: Logps, *, weight: Tensor, nll_weight: Tensor
    ) -> Terms:
        """Return the part of the loss that these pairs make.

        `weight` is each pair's share of the DPO term, `nll_weight` that of its chosen
        completion's summed log-probability in the NLL term; both of shape (pairs,), 0 for rows
        that only keep the ranks in step.
        """
        chosen = self.beta * (policy.chosen - reference.chosen)
        rejected = self.beta * (policy.rejected - reference.rejected)
        dpo = (weight * -functional.logsigmoid(chosen - rejected)).sum()
        nll = (nll_weight * -policy.chosen).sum()
        shares = torch.stack(
            [
                (weight * value.detach()).sum()
                for value in (chosen, rejected, (chosen > rejected).float(), chosen - rejected)
            ]
        )
        measures = torch.cat([torch.stack([dpo.detach(), nll.detach()]), shares])
        return Terms(loss=dpo + self.nll_weight * nll, measures=measures)
