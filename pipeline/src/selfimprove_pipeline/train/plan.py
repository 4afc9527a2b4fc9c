"""Which pairs each rank computes in each micro-step, and with which weights.

The plan is a pure function of the rows and the recipe, so every rank knows every global batch,
its number of pairs and its tokens without communication. Weights normalise both loss terms by
the global batch (see `objective`); `trainer` feeds one rank's part to the model.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from selfimprove_pipeline.train.rows import TokenRow


class Slot(NamedTuple):
    """A row in a micro-batch with its shares of the two loss terms."""

    row: int
    """row is its index among all rows."""
    weight: float
    nll_weight: float


@dataclass(frozen=True)
class Shape:
    """How a global batch is computed: `world` ranks times `micro` pairs times `accumulation`."""

    batch: int
    micro: int
    world: int

    @property
    def accumulation(self) -> int:
        """Micro-steps of an optimizer step; a batch that does not divide leaves slots empty."""
        return -(-self.batch // (self.world * self.micro))


def global_batches(count: int, *, size: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the row indices of every step; each epoch is shuffled anew and ends with its rest."""
    batches = []
    for epoch in range(epochs):
        order = list(range(count))
        random.Random(f"{seed}.{epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
        batches += [order[start : start + size] for start in range(0, count, size)]
    return batches


def micro_batches(
    rows: Sequence[TokenRow],
    batch: Sequence[int],
    shape: Shape,
    *,
    normalization: Literal["sequence", "token"],
) -> list[list[list[Slot]]]:
    """Return the slots of one global batch as [micro-step][rank][slot].

    Rows of like length meet in a micro-step, so that ranks wait little for each other and pad
    little. A rank without rows computes the shortest one with weight 0, to stay in step.
    """
    ordered = sorted(batch, key=lambda index: (-rows[index].length, index))
    chosen_tokens = sum(len(rows[index].chosen_ids) for index in batch)
    slots = [_slot(rows, index, len(batch), chosen_tokens, normalization) for index in ordered]
    idle = [Slot(ordered[-1], 0.0, 0.0)]
    chunks = [
        slots[start : start + shape.micro] or idle
        for start in range(0, shape.accumulation * shape.world * shape.micro, shape.micro)
    ]
    return [chunks[start : start + shape.world] for start in range(0, len(chunks), shape.world)]


def _slot(
    rows: Sequence[TokenRow],
    index: int,
    pairs: int,
    chosen_tokens: int,
    normalization: Literal["sequence", "token"],
) -> Slot:
    own = len(rows[index].chosen_ids)
    return Slot(index, 1 / pairs, 1 / (chosen_tokens if normalization == "token" else pairs * own))
