"""Checkpoints and reference log-probabilities: what a killed training finds again.

The vault is the stage's view of storage; rank 0 alone talks to it and tells the others, but that
each machine uploads the files of its own ranks and downloads those of all. It keeps with a
checkpoint the label it was made under, because DeepSpeed's files fit exactly one number of
ranks, ZeRO stage and precision. `pace` says when one is due, `upload` brings it to the store.
"""

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from selfimprove_pipeline.contract.rows import ReferenceLogps
from selfimprove_pipeline.train.data.rows import TokenRow
from selfimprove_pipeline.train.loop.pace import Pace
from selfimprove_pipeline.train.loop.upload import Shelf, Upload
from selfimprove_pipeline.train.model.layout import Layout
from selfimprove_pipeline.train.processes import ranks

OnStep = Callable[[int, int, dict[str, float]], None]
"""Called on rank 0 after every step with the step, the number of steps and the measures."""

log = logging.getLogger(__name__)


class Vault(Shelf, Protocol):
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


class Checkpoints(TrainerCallback):
    """Asks for checkpoints, keeps them beside the training, and reports each step.

    `pace` says after which steps, never the last; the first rank's clock decides for all. A disk
    holds one at a time: what training was resumed from goes when it is loaded, and what was saved
    goes when the vault has it, which keeps the one before until then. Used as a context, it has
    let go of all files at the end of the block.
    """

    def __init__(
        self,
        vault: Vault,
        *,
        pace: Pace,
        label: str,
        on_step: OnStep | None,
        resumed: Path | None = None,
    ) -> None:
        self._vault = vault
        self._pace = pace
        self._label = label
        self._on_step = on_step
        self._resumed = resumed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._upload: Upload | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """End an upload in flight: the model is written, or training has failed.

        No machine uploads any more when the block has ended well: the vault's checkpoints are
        about to be deleted. After a failure nobody is waited for, ranks may be gone.
        """
        if self._upload is not None:
            self._upload.cancel()
            if kind is None:
                self._upload.join()
        if kind is None:
            ranks.meet()

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._forget_resumed()
        if self._upload is not None:
            self._upload.advance()
            self._let_go()
        step = state.global_step
        control.should_save = step < state.max_steps and self._is_due(step)
        if control.should_save:
            self._pace.wait()
            if self._upload is not None:
                self._upload.settle()
                self._let_go()

    @override
    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        step = state.global_step
        folder = Path(str(args.output_dir)) / f"checkpoint-{step}"
        upload = Upload(self._vault, self._thread, step=step, label=self._label, folder=folder)
        self._upload = None if upload.has_ended else upload
        self._pace.go_on()

    @override
    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if state.is_world_process_zero and self._on_step is not None and "loss" in logs:
            self._on_step(state.global_step, state.max_steps, dict(logs))

    def _is_due(self, step: int) -> bool:
        """Say on every rank alike whether to save. Where it asks the clock, all ranks meet."""
        if self._pace.every is not None:
            return self._pace.is_due(step)
        return self._upload is None and ranks.from_first(lambda: self._pace.is_due(step))

    def _let_go(self) -> None:
        if self._upload is not None and self._upload.has_ended:
            self._upload = None

    def _forget_resumed(self) -> None:
        # transformers reads the last of it at the start of the first step.
        if self._resumed is not None and ranks.is_first_here():
            shutil.rmtree(self._resumed, ignore_errors=True)
        self._resumed = None


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
