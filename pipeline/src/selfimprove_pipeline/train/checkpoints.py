"""Checkpoints and reference log-probabilities: what a killed training finds again.

The vault is the stage's view of storage; rank 0 alone talks to it and tells the others. It keeps
with a checkpoint the label it was made under, because DeepSpeed's files fit exactly one number
of ranks, ZeRO stage and precision.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from selfimprove_pipeline.artifacts import ReferenceLogps
from selfimprove_pipeline.train.rows import TokenRow

OnStep = Callable[[int, int, dict[str, float]], None]
"""Called on rank 0 after every step with the step, the number of steps and the measures."""

log = logging.getLogger(__name__)


class Vault(Protocol):
    """What the stage needs of storage. Only rank 0 calls it."""

    def load_reference(self) -> tuple[ReferenceLogps, ...] | None:
        """Return the rows saved for this M_t and these pairs, None when there are none."""

    def save_reference(self, rows: tuple[ReferenceLogps, ...]) -> None:
        """Keep the rows."""

    def latest_checkpoint(self) -> tuple[str, Callable[[], Path]] | None:
        """Return the newest checkpoint's label and what makes a local folder of it, else None."""

    def save_checkpoint(self, step: int, label: str, folder: Path) -> None:
        """Keep a folder with the files of all ranks, in place of one of the same step.

        It counts, as the newest, once this returns.
        """


class Checkpoints(TrainerCallback):
    """Asks for a checkpoint every `every` steps but the last, keeps it, and reports each step."""

    def __init__(self, vault: Vault, *, every: int, label: str, on_step: OnStep | None) -> None:
        self._vault = vault
        self._every = every
        self._label = label
        self._on_step = on_step

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        step = state.global_step
        control.should_save = step % self._every == 0 and step < state.max_steps

    @override
    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the folder has the files of all ranks
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            self._vault.save_checkpoint(state.global_step, self._label, folder)

    @override
    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if state.is_world_process_zero and self._on_step is not None and "loss" in logs:
            self._on_step(state.global_step, state.max_steps, dict(logs))


def resumable(vault: Vault, label: str) -> Path | None:
    """Return the newest checkpoint of this label; say so when there is only another one."""
    latest = vault.latest_checkpoint()
    if latest is None:
        return None
    found, fetch = latest
    if found == label:
        return fetch()
    log.warning(
        "expected a checkpoint of %s, found one of %s; training starts again from the model",
        label,
        found,
    )
    return None


def known_references(
    vault: Vault, rows: tuple[TokenRow, ...]
) -> dict[int, tuple[float, float]] | None:
    """Return the stored log-probabilities by row index, None unless every row has its own."""
    stored = {(row.id, row.language, row.partner): row for row in vault.load_reference() or ()}
    if any(row.key not in stored for row in rows):
        return None
    found = [stored[row.key] for row in rows]
    return {index: (row.chosen, row.rejected) for index, row in enumerate(found)}


def reference_rows(
    rows: tuple[TokenRow, ...], references: dict[int, tuple[float, float]]
) -> tuple[ReferenceLogps, ...]:
    """Return the log-probabilities as rows to store."""
    return tuple(
        ReferenceLogps(
            id=row.key[0],
            language=row.key[1],
            partner=row.key[2],
            chosen=references[index][0],
            rejected=references[index][1],
        )
        for index, row in enumerate(rows)
    )
