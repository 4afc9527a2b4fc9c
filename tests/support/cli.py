"""The command line as a user has it: started as a process, watched, killed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
MINIATURE = REPOSITORY / "examples" / "miniature"

PATIENCE = 300.0
"""Seconds after which something that must happen is taken for lost."""


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    output: str
    errors: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines of its progress."""
        lines = [line for line in self.errors.splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Cli:
    """`selfimprove` with a store and a cache of its own."""

    store: Path
    cache: Path
    engine: str = "transformers"
    environment: Mapping[str, str] = field(default_factory=dict)
    """environment beside that of the tests."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "selfimprove_pipeline", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "SELFIMPROVE_CACHE": str(self.cache),
                "HF_HUB_OFFLINE": "1",
                **self.environment,
            },
            start_new_session=True,
        )

    def __call__(self, *arguments: str) -> Result:
        """Run a command to its end."""
        process = self.start(*arguments)
        output, errors = process.communicate()
        return Result(process.returncode, output, errors)

    def run_arguments(self, *settings: str) -> list[str]:
        """Return the arguments that run the miniature file in this store."""
        file = str(MINIATURE / "run.yaml")
        chosen = [f"--set={setting}" for setting in settings]
        return ["run", file, "--store", str(self.store), "--engine", self.engine, *chosen]

    def show(self, *settings: str) -> dict[str, Any]:
        """Return `show -o json` of the miniature run."""
        file = str(MINIATURE / "run.yaml")
        chosen = [f"--set={setting}" for setting in settings]
        shown = self("show", file, "--store", str(self.store), "-o", "json", *chosen)
        assert shown.code == 0, shown.errors
        found: dict[str, Any] = json.loads(shown.output)
        return found

    def upload_miniature(self) -> None:
        """Put the miniature's folders where its run file expects them."""
        for part in ("m0", "prompts", "suite"):
            uri = f"s3://miniature/{part}"
            uploaded = self("upload", str(MINIATURE / part), uri, "--store", str(self.store))
            assert uploaded.code == 0, uploaded.errors

    def artifacts(self, stage: str) -> Iterator[Path]:
        """Yield the artifact folders of a stage, finished or not."""
        yield from (self.store / "runs" / "artifacts" / stage).glob("*")


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
    """Wait until something that a running process does has happened."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, f"ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return all processes that a process has started, directly or not."""
    found: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return found


def survivors(processes: Sequence[psutil.Process], seconds: float = 10.0) -> list[str]:
    """Return the commands of those that still run after a while."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [" ".join(process.cmdline()) for process in alive]
