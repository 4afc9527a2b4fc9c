"""Runs the trainings of a plan, each in ranks of its own that are forked after the imports.

`python ranks.py PLAN RESULTS`: PLAN is a JSON list of `support.training.Training`, RESULTS gets
by name the first rank's report, the exit codes and the lines that it logged.
"""

import gc
import importlib
import itertools
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention
from typing_extensions import override

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.manifests import File
from selfimprove_pipeline.contract.recipe import sources
from selfimprove_pipeline.contract.recipe import training as recipe
from selfimprove_pipeline.train import stage
from selfimprove_pipeline.train.loop.checkpoints import OnStep
from selfimprove_pipeline.train.loop.pace import Clock
from selfimprove_pipeline.train.processes import ranks as own
from support.training import RECIPE, FolderVault, Training

# DeepSpeed imports these when first used: once here instead of 6 s in every rank.
for name in ("muon.muon_optimizer", "stage3"):
    importlib.import_module(f"deepspeed.runtime.zero.{name}")

FORK = multiprocessing.get_context("fork")
PATIENCE = 120
"""Seconds that an upload waits for the training to go on beside it."""
HANGS = 300
"""Seconds in which a training of a second ends on the slowest machine."""


def main(plan: Path, results: Path) -> None:
    """Run every training and write what became of it."""
    trainings = [Training.model_validate(one) for one in json.loads(plan.read_text())]
    results.write_text(json.dumps({one.name: together(one) for one in trainings}))


def together(training: Training) -> dict[str, Any]:
    """Run one training's ranks; when one of them dies, end the others as torchrun would."""
    training.folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [FORK.Process(target=one_rank, args=(training, n, port)) for n in range(training.ranks)]
    for rank in ranks:
        rank.start()
    wait_for(ranks)
    found = training.folder / "result.json"
    result = json.loads(found.read_text()) if found.exists() else {}
    log = (training.folder / "log-0.txt").read_text().splitlines()
    return {**result, "exits": [rank.exitcode for rank in ranks], "log": log}


def wait_for(ranks: Sequence[BaseProcess]) -> None:
    """Return when all ranks have ended; a failed one ends the others, and so does standing still.

    Ranks that wait in different collectives would do so for hours.
    """
    waiting = {rank.sentinel: rank for rank in ranks}
    while waiting:
        ended_now = multiprocessing.connection.wait(waiting, timeout=HANGS)
        if not ended_now:
            for rank in waiting.values():
                rank.kill()
        for sentinel in ended_now:
            ended = waiting.pop(sentinel)  # type: ignore[arg-type]
            ended.join()
            if ended.exitcode != 0:
                for rank in waiting.values():
                    rank.kill()


def one_rank(training: Training, rank: int, port: int) -> None:
    """Train as one rank; standard output and error go to a file."""
    log = os.open(training.folder / f"log-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": "0" if training.machines else str(rank),
        "GROUP_RANK": str(rank) if training.machines else "0",
        "WORLD_SIZE": str(training.ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    if training.deaf:
        deafen()
    try:
        left = models_after_another(training) if training.after else 0
        kept = HeldVault(training)
        on_step = stop_at(training.kill_at, kept)
        report = stage.run(job(training), kept, on_step=on_step, clock=clock(training, rank))
        if rank == 0:
            result = {**report.model_dump(), "modelsLeft": left, "patience": patience()}
            (training.folder / "result.json").write_text(json.dumps(result))
    except Exception as error:
        traceback.print_exc()
        if rank == 0:
            line = f"{type(error).__name__}: {error}"
            (training.folder / "result.json").write_text(json.dumps({"error": line}))
        raise


def deafen() -> None:
    """Let Qwen2's attention lose what packing tells it, as attention written by hand would."""
    heard = Qwen2Attention.forward

    def forward(self: Qwen2Attention, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("cu_seq_lens_q", None)
        return heard(self, *args, **kwargs)

    Qwen2Attention.forward = forward  # type: ignore[method-assign]


def models_after_another(training: Training) -> int:
    """Train by DPO as these ranks; return how many models are still in memory."""
    changed = {
        "name": "first",
        "folder": training.folder / "first",
        "objective": "dpo",
        "after": False,
    }
    first = training.model_copy(update=changed)
    stage.run(job(first), HeldVault(first))
    own.free_memory()
    return sum(issubclass(type(found), PreTrainedModel) for found in gc.get_objects())


def job(training: Training) -> stage.Job:
    """Return the stage's job."""
    return stage.Job(
        model=training.model,
        pairs=training.pairs,
        output=training.output,
        scratch=training.folder / f"scratch-{os.environ['GROUP_RANK']}",
        training=recipe.Training.model_validate({**RECIPE, **training.recipe}),
        objective=training.objective,
        chat=sources.Chat.model_validate(training.chat),
        lineage={"run": "test", "iteration": 1, "languages": ["en", "de"]},
    )


class HeldVault(FolderVault):
    """The training's vault, whose uploads of some steps take long or fail."""

    def __init__(self, training: Training) -> None:
        super().__init__(training.vault or training.folder / "vault")
        self._uploads = training.uploads
        self._is_last = own_number() == (training.ranks - 1 if training.machines else 0)
        self._steps = threading.Condition()
        self._done = 0

    def step(self, number: int) -> None:
        """Note that the training has done a step."""
        with self._steps:
            self._done = number
            self._steps.notify_all()

    @override
    def upload_checkpoint(self, step: int, folder: Path) -> tuple[File, ...]:
        """Copy the files, then wait or fail as the training says."""
        here = [one.name for one in folder.parent.glob("checkpoint-*")]
        print(f"uploads {step}, has {here}", flush=True)  # noqa: T201  what tests read
        files = super().upload_checkpoint(step, folder)
        fate = self._uploads.get(step, 0) if self._is_last else 0
        if isinstance(fate, str):
            line = f"store: the upload of {step} failed"
            raise TryAgainError(line) if fate == "again" else InputError(line)
        with self._steps:
            if not self._steps.wait_for(lambda: self._done >= fate, timeout=PATIENCE):
                line = f"expected step {fate} beside the upload of {step}, found {self._done}"
                raise RuntimeError(line)
        print(f"uploaded {step}", flush=True)  # noqa: T201  as above
        return files


def own_number() -> int:
    """Return this rank's number."""
    return int(os.environ["RANK"])


def clock(training: Training, rank: int) -> Clock:
    """Return the rank's clock."""
    if not training.clock:
        return time.monotonic
    looks = itertools.count()
    return lambda: next(looks) * training.clock[rank]


def patience() -> float:
    """Return the seconds that the ranks wait for each other."""
    group = torch.distributed.distributed_c10d._get_default_group()  # noqa: SLF001  has no public name
    return group._get_backend(torch.device("cpu")).options._timeout.total_seconds()  # noqa: SLF001  as above


def stop_at(kill_at: int | None, kept: HeldVault) -> OnStep:
    """Return a listener that tells the vault, and kills its process after a step."""

    def on_step(step: int, total: int, _: dict[str, float]) -> None:
        print(f"step {step}/{total}", flush=True)  # noqa: T201 - the log is what tests read
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        kept.step(step)

    return on_step


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
