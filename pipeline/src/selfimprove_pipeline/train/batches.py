"""Token rows as datasets and batches: what `trainer` hands to TRL and to the model.

The plan names rows by slot, a row with its weights, so a batch carries its normalisation.
"""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from trl.trainer.dpo_trainer import DataCollatorForPreference
from typing_extensions import override

from selfimprove_pipeline.train.plan import Slot
from selfimprove_pipeline.train.rows import TokenRow


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


class Collator:
    """TRL's batch of chosen and rejected rows, without cutting, and the columns of the slots."""

    def __init__(self, pad_token_id: int, *, with_rejected: bool) -> None:
        self._collate = DataCollatorForPreference(pad_token_id=pad_token_id, max_length=None)
        self._with_rejected = with_rejected

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return tensors: tokens and masks of shape (2 x pairs, tokens), the others (pairs,).

        Without the rejected rows tokens and masks are of shape (pairs, tokens).
        """
        batch: dict[str, Tensor] = self._collate(examples)
        if not self._with_rejected:
            batch = _chosen_of(batch, len(examples))
        for name in ("row", "weight", "nll_weight"):
            batch[name] = torch.tensor([example[name] for example in examples])
        return batch


def _chosen_of(batch: dict[str, Tensor], pairs: int) -> dict[str, Tensor]:
    """Return the chosen rows, padded to the longest of them alone."""
    longest = int(batch["attention_mask"][:pairs].sum(dim=1).max())
    return {name: values[:pairs, :longest] for name, values in batch.items()}
