"""Starts the ranks of one training on this machine and brings back why they ended.

torchrun exits 1 whatever its workers returned, so a failing worker leaves its exit code and one
line in a file (`worker`), and `launch` returns that code. Imports nothing heavy: the parent of
the ranks needs no torch.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from selfimprove_pipeline.contract.errors import SelfImproveError, TryAgainError
from selfimprove_pipeline.machine.lifeline import die_with_parent
from selfimprove_pipeline.train.processes.nodes import Nodes, count_of

ERROR_FILE = "SELFIMPROVE_ERROR_FILE"
"""Environment variable with the file in which the first failing worker leaves its reason."""

PARENT = "SELFIMPROVE_PARENT"
"""Environment variable with the process id of torchrun, the parent of the ranks."""

_OF_PEERS = ("gloo/", "NCCL", "Connection closed by peer")
"""What the messages hold that tell of ranks elsewhere, not of this one."""


@dataclass(frozen=True)
class Outcome:
    """How the ranks ended: 0, a worker's exit code, or 128 + the signal that `launch` got."""

    code: int
    line: str
    """line says why, for a person; empty when the ranks succeeded."""


def launch(
    argv: Sequence[str],
    *,
    processes: int,
    nodes: Nodes | None = None,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run `python argv` (`-m MODULE ...` or `SCRIPT ...`) as `processes` ranks until they end.

    `nodes` are the machines that each run as many, None when this is the only one. `environment`
    is the ranks' whole environment, this process's own when unset. SIGTERM and SIGINT go on to
    the ranks. If this process dies, they die too. Call it in the main thread.
    """
    if nodes is not None:
        nodes.wait()
    with tempfile.TemporaryDirectory(prefix="selfimprove-") as folder:
        reason = Path(folder) / "reason"
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            [sys.executable, "-m", __name__, *_torchrun(processes, nodes), *argv],
            env={**(os.environ if environment is None else environment), ERROR_FILE: str(reason)},
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - one thread, and only a system call
        )
        with _forwarding(child) as received:
            code = child.wait()
        return _outcome(code, received, reason)


@contextmanager
def worker() -> Iterator[None]:
    """Wrap all that a rank does: tie its life to its parent's, leave the reason of a failure.

    Enter it first thing. A rank whose torchrun is gone by then ends at once. A SelfImproveError
    ends the process with its exit code; other errors go on to the caller.
    """
    die_with_parent(int(os.environ.get(PARENT, os.getppid())))
    try:
        yield
    except SelfImproveError as error:
        _leave(error.exit_code, str(error))
        print(error, file=sys.stderr)  # noqa: T201 - the worker's last line
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        line = traceback.format_exception_only(error)[-1].strip()
        if count_of(os.environ) > 1 and any(word in line for word in _OF_PEERS):
            _leave(TryAgainError.exit_code, f"a rank lost another one, whose log says why: {line}")
        else:
            _leave(1, line)
        raise


def _torchrun(processes: int, nodes: Nodes | None) -> list[str]:
    # Alone, everything is on the loopback: a pod's own name need not resolve.
    alone = ["--standalone", "--local-addr=127.0.0.1"]
    return [*(nodes.torchrun() if nodes else alone), f"--nproc-per-node={processes}"]


@contextmanager
def _forwarding(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass SIGTERM and SIGINT on to the child; yield the list of those received."""
    received: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(code: int, received: Sequence[int], reason: Path) -> Outcome:
    if code == 0:
        return Outcome(0, "")
    if received:
        name = signal.Signals(received[0]).name
        return Outcome(128 + received[0], f"{name} ended the training")
    if reason.exists():
        left, _, line = reason.read_text().partition(" ")
        return Outcome(int(left), line)
    if code < 0:
        return Outcome(128 - code, f"{signal.Signals(-code).name} ended the launcher")
    return Outcome(
        1,
        "a rank ended without a reason, such as for lack of memory, or the rendezvous was lost; "
        "see its log",
    )


def _leave(code: int, line: str) -> None:
    """Write the reason, unless another rank was first: its failure is the cause of the others."""
    path = os.environ.get(ERROR_FILE)
    if path is None:
        return
    draft = Path(f"{path}.{os.getpid()}")
    draft.write_text(f"{code} {' '.join(line.split())}")
    with suppress(FileExistsError):
        os.link(draft, path)


if __name__ == "__main__":
    # An orphan's parent is another process, so torchrun says beforehand which one it is.
    os.environ[PARENT] = str(os.getpid())
    runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)
