"""One rank of one training of `training.py`: TRL's trainer or the project's own stage.

    torchrun --nproc-per-node N benchmarks/training_rank.py WORK CONTENDER OUT

WORK is a JSON file of `Work`. Each rank writes OUT-RANK.json, what `Measured` holds. Seconds are
those of the reference pass and of the steps, read off transformers' own events for every
contender; loading, saving and the start of processes are in none of them.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers.trainer
from pydantic import BaseModel
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from typing_extensions import override

from selfimprove_pipeline.contract import rows as row_files
from selfimprove_pipeline.contract.manifests import File
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.contract.recipe.training import Training
from selfimprove_pipeline.contract.rows import Pair, ReferenceLogps
from selfimprove_pipeline.train import stage
from selfimprove_pipeline.train.model.layout import Layout
from selfimprove_pipeline.train.processes.launch import worker
from selfimprove_pipeline.train.stage import Report


class Work(BaseModel):
    """What every contender trains."""

    model: Path
    pairs: Path
    batch: int
    """batch is the number of pairs of a step, over all ranks."""
    precision: str
    recipes: Mapping[str, dict[str, Any]]
    """recipes of the project's own contenders by name; any other name is TRL's trainer."""


class Measured(NamedTuple):
    """What a rank has seen of a training."""

    reference: float
    """reference is the seconds of a reference pass of its own; TRL's default has none."""
    steps: float
    """steps is the seconds of all steps."""
    passes: list[int]
    """passes are the token slots, padding included, of each of this rank's training passes."""
    first: dict[str, float]
    """first is what was logged of the first step, `loss` among it."""
    stage: dict[str, float]
    """stage is the seconds that our own stage tells of its parts, starts and saving included."""
    layout: str
    """layout that the rows had: our own stage pads where a model cannot do packed ones."""
    peak: int
    """peak is the device's memory in bytes at its fullest, 0 on processors."""


class Clock(TrainerCallback):
    """Looks at the clock at transformers' events and counts what the model is given."""

    def __init__(self) -> None:
        self.made = self.began = self.ended = 0.0
        self.passes: list[int] = []
        self.first: dict[str, float] = {}

    @override
    def on_init_end(self, *_: Any, **__: Any) -> None:
        self.made = _now()

    @override
    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        kwargs["model"].register_forward_pre_hook(self._count, with_kwargs=True)
        self.began = _now()

    @override
    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended = _now()

    @override
    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first = self.first or dict(kwargs["logs"])

    def _count(self, _: torch.nn.Module, __: Any, inputs: Mapping[str, Any]) -> None:
        self.passes.append(inputs["input_ids"].numel())


class Forgetful:
    """A vault that keeps nothing, and notes when the reference pass is over."""

    def __init__(self) -> None:
        self.referenced = 0.0

    def load_reference(self) -> tuple[ReferenceLogps, ...] | None:
        """Return that nothing is known."""
        return None

    def save_reference(
        self,
        rows: tuple[ReferenceLogps, ...],  # noqa: ARG002  the protocol's
        layout: Layout,  # noqa: ARG002  likewise
    ) -> None:
        """Look at the clock."""
        self.referenced = _now()

    def reference_layout(self) -> Layout | None:
        """Return that nothing is known."""
        return None

    def latest_checkpoint(self) -> tuple[int, str] | None:
        """Return that there is none."""
        return None

    def fetch_checkpoint(self, step: int) -> Path:
        """Fail: there is none."""
        raise NotImplementedError(step)

    def drop_checkpoint(self, step: int) -> None:
        """Do nothing."""

    def upload_checkpoint(self, *_: Any) -> tuple[File, ...]:
        """Keep nothing."""
        return ()

    def finish_checkpoint(self, *_: Any) -> None:
        """Do nothing."""


def main() -> None:
    """Train as one rank and write what was measured."""
    file, contender, out = sys.argv[1:]
    work = Work.model_validate_json(Path(file).read_text())
    clock = Clock()
    # Every trainer has the callbacks of this list, TRL's as our own.
    transformers.trainer.DEFAULT_CALLBACKS.append(clock)  # type: ignore[arg-type]
    scratch = Path(f"{out}-scratch")
    if contender in work.recipes:
        reference, report = _own(work, work.recipes[contender], clock, scratch)
        seconds, layout = report.seconds, str(report.layout)
    else:
        _trl(work, scratch)
        reference, seconds, layout = 0.0, {}, "padded"
    measured = Measured(
        reference=reference,
        steps=clock.ended - clock.began,
        passes=clock.passes,
        first=clock.first,
        stage=seconds,
        layout=layout,
        peak=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
    )
    Path(f"{out}-{os.environ['RANK']}.json").write_text(json.dumps(measured._asdict()))


def _own(work: Work, recipe: dict[str, Any], clock: Clock, scratch: Path) -> tuple[float, Report]:
    """Run the project's stage; return the seconds of its reference pass, and its report.

    Only rank 0 knows the first.
    """
    job = stage.Job(
        model=work.model,
        pairs=work.pairs,
        output=scratch / "model",
        scratch=scratch,
        training=Training.model_validate_json(json.dumps(recipe)),
        chat=Chat(),
    )
    vault = Forgetful()
    report = stage.run(job, vault)
    return max(vault.referenced - clock.made, 0.0), report


def _trl(work: Work, scratch: Path) -> None:
    """Run TRL's trainer as its defaults have it, but that nothing is cut; it has no pass apart."""
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    rows = row_files.rows(Pair, work.pairs.read_bytes())
    names = ("prompt", "chosen", "rejected")
    texts = [{name: [m.model_dump() for m in getattr(row, name)] for name in names} for row in rows]
    defaults = DPOConfig(output_dir=str(scratch), use_cpu=not torch.cuda.is_available())
    passes = defaults.per_device_train_batch_size * int(os.environ["WORLD_SIZE"])
    args = DPOConfig(
        output_dir=str(scratch),
        use_cpu=not torch.cuda.is_available(),
        max_length=None,
        num_train_epochs=1,
        gradient_accumulation_steps=max(1, work.batch // passes),
        bf16=work.precision == "bf16",
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = DPOTrainer(model=str(work.model), args=args, train_dataset=Dataset.from_list(texts))
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    with worker():
        main()
