"""Checkpoints and reference log-probabilities: what a killed training finds again.

The vault is the stage's view of storage; rank 0 alone talks to it and tells the others, but that
each machine uploads the files of its own ranks and downloads those of all. It keeps with a
checkpoint the label it was made under, because DeepSpeed's files fit exactly one number of
ranks, ZeRO stage and precision.
"""

import logging
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from selfimprove_pipeline.artifacts import File, ReferenceLogps
from selfimprove_pipeline.train import ranks
from selfimprove_pipeline.train.layout import Layout
from selfimprove_pipeline.train.rows import TokenRow

OnStep = Callable[[int, int, dict[str, float]], None]
"""Called on rank 0 after every step with the step, the number of steps and the measures."""

log = logging.getLogger(__name__)


class Vault(Protocol):
    """What the stage needs of storage. Only rank 0 calls it, unless a method says otherwise."""

    def load_reference(self) -> tuple[ReferenceLogps, ...] | None:
        """Return the rows saved for this M_t and these pairs, None when there are none."""

    def save_reference(self, rows: tuple[ReferenceLogps, ...], layout: Layout) -> None:
        """Keep the rows and the layout of the passes that made them."""

    def reference_layout(self) -> Layout | None:
        """Return the layout of the saved rows, None when there are none or it is not known."""

    def latest_checkpoint(self) -> tuple[int, str] | None:
        """Return the newest checkpoint's step and label, None when there is none."""

    def fetch_checkpoint(self, step: int) -> Path:
        """Return a local folder with a checkpoint's files; the first rank of a machine calls it."""

    def drop_checkpoint(self, step: int) -> None:
        """Make a step count no longer, before its files are replaced."""

    def upload_checkpoint(self, step: int, folder: Path) -> tuple[File, ...]:
        """Keep a machine's files of a step; the first rank of each machine calls it."""

    def finish_checkpoint(self, step: int, label: str, files: tuple[File, ...]) -> None:
        """Make a step count, as the newest, with the files of all machines."""


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
        step, vault = state.global_step, self._vault
        folder = Path(str(args.output_dir)) / f"checkpoint-{step}"
        ranks.meet()  # the folder has the files of all ranks of this machine
        ranks.from_first(lambda: vault.drop_checkpoint(step))
        parts = ranks.from_each_node(lambda: vault.upload_checkpoint(step, folder))
        if ranks.is_first():
            vault.finish_checkpoint(step, self._label, tuple(chain(*parts.values())))
        elif ranks.is_first_here():
            shutil.rmtree(folder)  # transformers keeps the newest of rank 0's machine alone

    @override
    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if state.is_world_process_zero and self._on_step is not None and "loss" in logs:
            self._on_step(state.global_step, state.max_steps, dict(logs))


def resumable(vault: Vault, label: str) -> int | None:
    """Return the step of the newest checkpoint of a label; say so when there is only another."""
    latest = vault.latest_checkpoint()
    if latest is None:
        return None
    step, found = latest
    if found == label:
        return step
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
