"""Token rows as datasets and batches: what `trainer` hands to TRL and to the model.

The plan names rows by slot, a row with its weights, so a batch carries its normalisation. Both
layouts give summed log-probabilities in one order, all chosen completions first: `logps`.
"""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, Final

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from trl.trainer.dpo_trainer import DataCollatorForPreference
from typing_extensions import override

from selfimprove_pipeline.train.data.plan import Slot
from selfimprove_pipeline.train.data.rows import TokenRow
from selfimprove_pipeline.train.model.layout import Layout

TOKENS_OF_A_TILE: Final = 128
_PACKED: Final = ("input_ids", "position_ids", "shift_labels", "cu_seq_lens_q", "max_length_q")


def columns(rows: Sequence[TokenRow]) -> Dataset:
    """Return the token rows as the dataset that TRL asks for."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Dataset.from_dict({name: [list(getattr(row, name)) for row in rows] for name in names})


class SlotRows(TorchDataset[dict[str, Any]]):
    """The dataset indexed by slot: a row with its weights."""

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    @override
    def __getitem__(self, slot: Slot) -> dict[str, Any]:
        return {
            **self._rows[slot.row],
            "row": slot.row,
            "weight": slot.weight,
            "nll_weight": slot.nll_weight,
        }

    def __len__(self) -> int:
        return len(self._rows)


Batch = dict[str, Any]
"""A pass: what the model takes, and the columns of its slots of shape (pairs,)."""


def collator(
    layout: Layout, pad_token_id: int, *, with_rejected: bool
) -> "PaddedCollator | PackedCollator":
    """Return what makes passes of a layout."""
    if layout == "padded":
        return PaddedCollator(pad_token_id, with_rejected=with_rejected)
    multiple = TOKENS_OF_A_TILE if torch.cuda.is_available() else 1
    return PackedCollator(pad_token_id, with_rejected=with_rejected, multiple=multiple)


def logps(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the summed log-probabilities of a pass's completions, of shape (completions,)."""
    if "sizes" in batch:
        of_tokens = model(
            **{name: batch[name] for name in _PACKED},
            use_cache=False,
            fused_lm_head=True,
        ).log_probs[0]
        sizes = batch["sizes"]
        parts = of_tokens[: sum(sizes)].float().split(sizes)
        return torch.stack([part.sum() for part in parts])  # index_add's order varies on GPUs
    of_tokens = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        labels=batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100),
        use_cache=False,
        fused_lm_head=True,
    ).log_probs
    summed: Tensor = of_tokens.float().sum(dim=1)
    return summed


class PackedCollator:
    """One row without padding: all chosen sequences, then all rejected ones.

    The row is filled up to a `multiple` of tokens by a sequence of its own without labels: fewer
    shapes for cuBLAS and the allocator of a GPU. Processors gain nothing from it.
    """

    def __init__(self, pad_token_id: int, *, with_rejected: bool, multiple: int) -> None:
        self._fill = pad_token_id
        self._sides = ("chosen_ids", "rejected_ids") if with_rejected else ("chosen_ids",)
        self._multiple = multiple

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        """Return tensors of shape (1, tokens), where sequences begin, and their sizes."""
        parts = [(one["prompt_ids"], one[side]) for side in self._sides for one in examples]
        sizes = [len(prompt) + len(completion) for prompt, completion in parts]
        fill = -sum(sizes) % self._multiple
        all_sizes = [*sizes, fill] if fill else sizes
        labels = [[-100] * (len(prompt) - 1) + completion + [-100] for prompt, completion in parts]
        batch: Batch = {
            "input_ids": _row([*chain(*(p + c for p, c in parts)), *[self._fill] * fill]),
            "position_ids": _row(list(chain(*map(range, all_sizes)))),
            "shift_labels": _row([*chain(*labels), *[-100] * fill]),
            "cu_seq_lens_q": torch.tensor([0, *accumulate(all_sizes)], dtype=torch.int32),
            "max_length_q": max(all_sizes),
            "sizes": sizes,
        }
        return batch | _columns(examples, self._sides)


class PaddedCollator:
    """TRL's batch of chosen and rejected rows, without cutting, and the columns of the slots."""

    def __init__(self, pad_token_id: int, *, with_rejected: bool) -> None:
        self._collate = DataCollatorForPreference(pad_token_id=pad_token_id, max_length=None)
        self._with_rejected = with_rejected

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        """Return tensors: tokens and masks of shape (2 x pairs, tokens), the others (pairs,).

        Without the rejected rows tokens and masks are of shape (pairs, tokens).
        """
        batch: Batch = self._collate(examples)
        if not self._with_rejected:
            batch = _chosen_of(batch, len(examples))
        sides = ("chosen_ids", "rejected_ids") if self._with_rejected else ("chosen_ids",)
        return batch | _columns(examples, sides)


def _row(values: list[int]) -> Tensor:
    return torch.tensor([values])


def _columns(examples: list[dict[str, Any]], sides: Sequence[str]) -> Batch:
    tokens = [sum(len(one["prompt_ids"]) + len(one[side]) for side in sides) for one in examples]
    names = ("row", "weight", "nll_weight", "ref_chosen_logps", "ref_rejected_logps")
    given = {
        name: torch.tensor([example[name] for example in examples])
        for name in names
        if name in examples[0]
    }
    return {**given, "tokens": torch.tensor(tokens)}


def _chosen_of(batch: Batch, pairs: int) -> Batch:
    """Return the chosen rows, padded to the longest of them alone."""
    longest = int(batch["attention_mask"][:pairs].sum(dim=1).max())
    return {name: values[:pairs, :longest] for name, values in batch.items()}
