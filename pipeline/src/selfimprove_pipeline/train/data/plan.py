"""Which pairs each rank computes in each pass, and with which weights.

The plan is a pure function of the rows and the recipe, so every rank knows every global batch,
its number of pairs and its tokens without communication. Weights normalise both loss terms by
the global batch (see `objective`), whatever the layout; `trainer` feeds one rank's part to the
model.

Packed, the pairs of a batch go to the ranks by LPT (longest processing time first: Graham 1969,
at most 4/3 of the best largest share), and those of a rank into passes by first-fit decreasing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from selfimprove_pipeline.train.data.rows import TokenRow
from selfimprove_pipeline.train.model.layout import Layout

Normalization = Literal["sequence", "token"]


class Slot(NamedTuple):
    """A row in a pass with its shares of the two loss terms."""

    row: int
    """row is its index among all rows."""
    weight: float
    nll_weight: float


@dataclass(frozen=True)
class Batches:
    """The global batches of a training and what their passes are made for."""

    rows: Sequence[TokenRow]
    steps: Sequence[Sequence[int]]
    """steps hold the row indices of each global batch."""
    first_epoch: int
    """first_epoch is the number of steps in which every row occurs once."""
    world: int
    normalization: Normalization
    compares: bool = True
    """compares with the rejected completions; else they are never computed."""

    def tokens(self, row: int) -> int:
        """Return the tokens of a row that are computed, its prompt once for each side."""
        return self.rows[row].tokens(with_rejected=self.compares)

    def slots(self, step: int) -> dict[int, Slot]:
        """Return the slots of a global batch by row."""
        batch = self.steps[step]
        chosen = sum(len(self.rows[row].chosen_ids) for row in batch)
        shares = {
            row: len(batch) * len(self.rows[row].chosen_ids)
            if self.normalization == "sequence"
            else chosen
            for row in batch
        }
        return {row: Slot(row, 1 / len(batch), 1 / share) for row, share in shares.items()}


@dataclass(frozen=True)
class Plan:
    """Every pass of a training."""

    layout: Layout
    batches: Batches
    micro: int
    """micro is the number of pairs of a padded pass; a packed one has no such number, 1 here."""
    passes: list[list[list[list[Slot]]]]
    """passes of a step as [step][pass][rank][slot]; each step has `accumulation` of them."""

    @property
    def accumulation(self) -> int:
        """Passes of an optimizer step, on every rank and in every step the same."""
        return len(self.passes[0])

    @property
    def first_epoch(self) -> int:
        """Passes in which every row occurs once."""
        return self.batches.first_epoch * self.accumulation

    def of_rank(self, rank: int) -> list[list[Slot]]:
        """Return a rank's passes over all steps."""
        return [ranks[rank] for step in self.passes for ranks in step]

    def token_slots(self, slots: Sequence[Slot]) -> int:
        """Return the tokens that a pass computes, its padding among them."""
        if self.layout == "packed":
            return sum(self.batches.tokens(slot.row) for slot in slots)
        compares = self.batches.compares
        rows = [self.batches.rows[slot.row] for slot in slots]
        lengths = (row.length if compares else row.tokens(with_rejected=False) for row in rows)
        return (2 if compares else 1) * len(rows) * max(lengths)

    @property
    def largest(self) -> int:
        """Token slots of the largest pass."""
        ranks = chain.from_iterable(chain.from_iterable(self.passes))
        return max(self.token_slots(slots) for slots in ranks)

    @property
    def useful(self) -> float:
        """Share of the token slots that count, where ranks wait in each pass for the slowest."""
        slots = sum(
            max(self.token_slots(slots) for slots in ranks) * len(ranks)
            for step in self.passes
            for ranks in step
        )
        return sum(self.batches.tokens(row) for step in self.batches.steps for row in step) / slots


def global_batches(count: int, *, size: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the row indices of every step; each epoch is shuffled anew and ends with its rest."""
    batches = []
    for epoch in range(epochs):
        order = list(range(count))
        random.Random(f"{seed}.{epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
        batches += [order[start : start + size] for start in range(0, count, size)]
    return batches


def padded(batches: Batches, *, micro: int) -> Plan:
    """Return passes of at most `micro` pairs.

    Rows of like length meet in a pass, so that ranks wait little for each other and pad little. A
    rank without rows computes the shortest one with weight 0, to stay in step.
    """
    width = batches.world * micro
    accumulation = -(-max(map(len, batches.steps)) // width)
    passes = []
    for step, batch in enumerate(batches.steps):
        slots = batches.slots(step)
        ordered = sorted(batch, key=lambda row: (-batches.rows[row].length, row))
        idle = [Slot(ordered[-1], 0.0, 0.0)]
        chunks = [
            [slots[row] for row in ordered[start : start + micro]] or idle
            for start in range(0, accumulation * width, micro)
        ]
        starts = range(0, len(chunks), batches.world)
        passes.append([chunks[start : start + batches.world] for start in starts])
    return Plan("padded", batches, micro, passes)


def packed(batches: Batches, *, budget: int) -> Plan:
    """Return passes of at most `budget` tokens; a pair that has more gets a pass of its own.

    All ranks have as many passes in all steps, as DeepSpeed needs it: those that are missing
    compute the shortest row with weight 0.
    """
    ranks = [_shares(batches, step, budget) for step in range(len(batches.steps))]
    accumulation = max(len(passes) for step in ranks for passes in step)
    filled = []
    for step, batch in enumerate(batches.steps):
        idle = [Slot(min(batch, key=lambda row: (batches.tokens(row), -row)), 0.0, 0.0)]
        rows = [passes + [idle] * (accumulation - len(passes)) for passes in ranks[step]]
        filled.append([list(of_all) for of_all in zip(*rows, strict=True)])
    return Plan("packed", batches, 1, filled)


def _shares(batches: Batches, step: int, budget: int) -> list[list[list[Slot]]]:
    """Return one global batch as [rank][pass][slot]."""
    slots = batches.slots(step)
    loads = [0] * batches.world
    shares: list[list[int]] = [[] for _ in loads]
    for row in sorted(slots, key=lambda row: (-batches.tokens(row), row)):
        rank = loads.index(min(loads))
        loads[rank] += batches.tokens(row)
        shares[rank].append(row)
    return [[[slots[row] for row in rows] for rows in _fit(batches, own, budget)] for own in shares]


def _fit(batches: Batches, rows: Sequence[int], budget: int) -> list[list[int]]:
    """Return rows, longest first, in passes: each goes into the first that has room for it."""
    passes: list[list[int]] = []
    room: list[int] = []
    for row in rows:
        tokens = batches.tokens(row)
        fitting = next((number for number, left in enumerate(room) if left >= tokens), None)
        if fitting is None:
            passes.append([row])
            room.append(budget - tokens)
        else:
            passes[fitting].append(row)
            room[fitting] -= tokens
    return passes
