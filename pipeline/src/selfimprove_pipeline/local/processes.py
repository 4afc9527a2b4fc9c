"""Worker processes of the local runner: started, listened to, ended with their parent.

A worker runs in a session of its own, so that Ctrl-C reaches the runner alone, which ends it
in order; the kernel ends it when the runner is killed. What it prints besides events goes
to a log file that an error names.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from selfimprove_pipeline.contract.errors import SelfImproveError, error_of
from selfimprove_pipeline.machine.lifeline import die_with_parent
from selfimprove_pipeline.workers import events

OnEvent = Callable[[Mapping[str, Any]], None]

SECONDS_TO_END: Final = 45
"""Longer than the 30 s that torchrun gives its ranks."""
LINES_SHOWN: Final = 5


@dataclass(frozen=True)
class Processes:
    """Starts `selfimprove worker ...` with the arguments of the run."""

    arguments: Sequence[str]
    """arguments that every worker gets: the file, the store, the settings."""
    log: Path
    on_event: OnEvent

    def __call__(self, worker: str, index: int) -> None:
        """Run one worker to its end; raise what it failed with."""
        command = [sys.executable, "-m", "selfimprove_pipeline", "worker", worker]
        command += ["--iteration", str(index), *self.arguments]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        failure: Mapping[str, Any] = {}
        begin = self.log.stat().st_size if self.log.exists() else 0
        with (
            self.log.open("a", encoding="utf-8") as log,
            _process(command, log) as process,
        ):
            for event in _events(process, log):
                if event["event"] == "error":
                    failure = event
                else:
                    self.on_event(event)
            code = process.wait()
        if code:
            if "message" in failure:
                raise error_of(code, str(failure["message"]))
            raise SelfImproveError(self._ending(worker, index, code, begin))

    def _ending(self, worker: str, index: int, code: int, begin: int) -> str:
        """Return how a worker ended that could not say it itself."""
        tail = " | ".join(_last_lines(self.log, begin))
        found = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{worker} of iteration {index} ended with {found}; its log {self.log} ends: {tail}"


@contextlib.contextmanager
def _process(command: Sequence[str], log: Any) -> Iterator[subprocess.Popen[str]]:
    """Yield a running worker; end it and what it started if it still runs at the end."""
    process = subprocess.Popen(  # noqa: S603  our own interpreter and arguments
        command,
        stdout=subprocess.PIPE,
        stderr=log,
        encoding="utf-8",
        errors="replace",  # a library may print any bytes
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509  no thread forks here
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the worker's whole session to end, then make it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
            return


def _events(process: subprocess.Popen[str], log: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the events that a worker prints; other lines go to the log."""
    assert process.stdout is not None  # noqa: S101  it was opened with a pipe
    for line in process.stdout:
        event = events.parse(line)
        if event is None:
            log.write(line)
            log.flush()
        else:
            yield event


def _last_lines(log: Path, begin: int) -> list[str]:
    """Return the last lines that were written after a place in the log."""
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()][-LINES_SHOWN:]
