"""Runs a setting on this machine for a command: worker processes, their progress, their count."""

import hashlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from selfimprove_pipeline.contract.manifests import Index
from selfimprove_pipeline.contract.stages import Worker
from selfimprove_pipeline.local import progress, runner
from selfimprove_pipeline.local.processes import Processes
from selfimprove_pipeline.run import opening
from selfimprove_pipeline.run.setting import Setting

ONLY_EVALUATE = "--only-evaluate"
"""Tells a worker that its file describes a model that is measured without a run."""


@dataclass(frozen=True)
class Done:
    """What a run has come to."""

    index: Index
    num_workers: int
    """num_workers is how many were started: none if everything was in the store."""

    @property
    def summary(self) -> str:
        """Say whether anything was computed."""
        return "done" if self.num_workers else "nothing to do, everything is in the store"


def run(arguments: Namespace, setting: Setting) -> Done:
    """Do what is missing, telling progress on the standard error output."""
    with progress.display() as display:
        processes = Processes(
            arguments=_worker_arguments(arguments, setting),
            log=opening.cache_folder() / "logs" / f"{setting.run.metadata.name}.log",
            on_event=display.event,
        )
        spawn = _Counted(processes)
        index = runner.run(setting, spawn, display.worker, display.warning)
    return Done(index, spawn.count)


@dataclass
class _Counted:
    """A `runner.Spawn` that counts the workers it started."""

    spawn: Callable[[str, int], None]
    count: int = 0

    def __call__(self, worker: Worker, index: int) -> None:
        self.count += 1
        self.spawn(worker, index)


def _worker_arguments(arguments: Namespace, setting: Setting) -> list[str]:
    """Return the arguments with which a worker comes to the same setting.

    Workers read a copy of the resolved run, so that the file may be edited meanwhile.
    """
    content = setting.run.model_dump_json(by_alias=True).encode()
    name = f"{setting.run.metadata.name}-{hashlib.sha256(content).hexdigest()[:12]}.json"
    copy = opening.cache_folder() / "runs" / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(content)
    store = ["--store", str(arguments.store)] if arguments.store else []
    alone = [ONLY_EVALUATE] if setting.only_measures else []
    return [str(copy), "--engine", arguments.engine, *store, *alone]
