"""An engine of a pool without a model, in the process that a real one would have.

It answers with its own name and the row's prompt. Its environment says how it starts, and the group
of a request what becomes of it. As a script it is what the pool starts in place of `engine.child`.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.engine.intake import take
from selfimprove_pipeline.engine.pool import child
from selfimprove_pipeline.engine.pool.jobs import Job

COMMAND: Final = (sys.executable, __file__)
WINDOW: Final = 4

# Variables of its environment.
NAME: Final = "ECHO_NAME"
GATE: Final = "ECHO_GATE"
"""GATE is a file; until it is there nothing is completed."""
START: Final = "ECHO_START"

# What it does at its start, or with a request of this group.
REFUSES: Final = "refuses"
BREAKS: Final = "breaks"
IS_KILLED: Final = "is killed"
WRITES_NONSENSE: Final = "writes nonsense"
ENDS: Final = "ends"
IS_OTHER: Final = "is other"


class Echo:
    """It completes one request after the other."""

    start_seconds = 1.5
    max_model_len = 100
    has_fixed_batches = False
    engines = 1
    window = WINDOW

    def __init__(self) -> None:
        self._name = os.environ.get(NAME, "")

    @property
    def versions(self) -> Mapping[str, str]:
        return {"echo": "2" if os.environ.get(START) == IS_OTHER else "1"}

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        waiting = iter(requests)
        held: list[Request] = []
        while True:
            while len(held) < WINDOW and (request := take(waiting, under_way=len(held))):
                held.append(request)
            if not held:
                return
            while not Path(os.environ.get(GATE, "/")).exists():
                time.sleep(0.01)
            first = held.pop(0)
            obey(first.group)
            yield Completion(
                key=first.key,
                text=f"{self._name}:{first.prompt[0]}",
                finish_reason="stop",
                prompt_tokens=1,
                completion_tokens=1,
            )

    def close(self) -> None:
        """Hold nothing."""


def obey(order: str) -> None:
    match order:
        case "refuses":
            message = "inference.extraArgs: expected others, found these; change them"
            raise InputError(message)
        case "breaks":
            message = "a defect\nof two lines"
            raise RuntimeError(message)
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "writes nonsense":
            Connection(os.dup(int(sys.argv[1]))).send_bytes(b"no pickle")
        case "ends":
            os._exit(3)


def start(_: Job) -> Echo:
    obey(os.environ.get(START, ""))
    return Echo()


if __name__ == "__main__":
    Job.start = start  # type: ignore[assignment,method-assign]  # the engine is all that is ours
    sys.exit(child.main(int(sys.argv[1])))
