"""Pods of a run without a cluster: the same command line, environment and termination log."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 600.0
"""Seconds after which a pod is taken for stuck."""


@dataclass(frozen=True)
class Ended:
    """How a pod has ended."""

    code: int
    message: dict[str, Any]
    """message is the termination message, empty when there is none."""
    events: tuple[dict[str, Any], ...]
    """events are the JSON lines of the log."""
    errors: str

    @property
    def numbers(self) -> dict[str, Any]:
        """The last line of the log."""
        assert self.events, self.errors
        assert self.events[-1]["event"] == "numbers", self.errors
        return self.events[-1]


@dataclass
class Pod:
    """A pod that runs."""

    process: subprocess.Popen[str]
    log: Path

    def ended(self) -> Ended:
        """Wait for its end."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        message = json.loads(self.log.read_text()) if self.log.exists() else {}
        lines = [line for line in output.splitlines() if line.startswith("{")]
        events = tuple(json.loads(line) for line in lines)
        return Ended(self.process.returncode, message, events, errors)


@dataclass(frozen=True)
class Pods:
    """Starts the workers of a run file as pods do: each with an empty cache of its own."""

    file: Path
    store: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    engine: str = "transformers"
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, worker: str, iteration: int, *arguments: str, **variables: str) -> Pod:
        """Start a pod; `variables` are further ones of its environment."""
        own = self.folder / f"pod-{next(self._numbers)}"
        own.mkdir(parents=True)
        engine = () if "--engine" in arguments else ("--engine", self.engine)
        command = [sys.executable, "-m", "selfimprove_pipeline", "worker", worker, str(self.file)]
        command += ["--iteration", str(iteration), "--store", str(self.store)]
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "SELFIMPROVE_CACHE": str(own / "cache"),
            "SELFIMPROVE_TERMINATION_LOG": str(own / "termination-log"),
            **self.environment,
            **variables,
        }
        # A pod has only what its worker sets itself.
        for name in ("OMP_NUM_THREADS", "DS_ACCELERATOR", "TOKENIZERS_PARALLELISM"):
            environment.pop(name, None)
        process = subprocess.Popen(
            [*command, *engine, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        return Pod(process, own / "termination-log")

    def __call__(self, worker: str, iteration: int, *arguments: str, **variables: str) -> Ended:
        """Run a pod to its end."""
        return self.start(worker, iteration, *arguments, **variables).ended()
