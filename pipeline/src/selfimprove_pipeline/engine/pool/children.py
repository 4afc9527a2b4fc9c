"""The processes of a pool's engines, as the pool holds them.

What they say is input: whatever else arrives, and the end of a process, becomes one line.
Neighbours: `child` is the other end.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from typing import Final

from selfimprove_pipeline.contract.errors import SelfImproveError, TryAgainError, error_of
from selfimprove_pipeline.engine import Request
from selfimprove_pipeline.engine.pool.jobs import Job
from selfimprove_pipeline.engine.pool.messages import Done, Failed, Forget, Give, Ready
from selfimprove_pipeline.machine.lifeline import die_with_parent

COMMAND: Final = (sys.executable, "-m", "selfimprove_pipeline.engine.pool.child")

SECONDS_TO_END: Final = 30
_STDERR: Final = 2


class Child:
    """One engine of a pool, and how many requests it has."""

    def __init__(
        self,
        number: int,
        job: Job,
        environment: Mapping[str, str],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Start the process, with more in its environment than this one has."""
        self.name = f"engine {number}"
        self.under_way = 0
        self.window = 0
        """window is 0 until the engine is ready."""
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter and arguments
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,  # the worker's own output is events alone
                env={**os.environ, **environment},
                pass_fds=(theirs.fileno(),),
                preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509  no thread forks
            )
        self._send(job)

    @property
    def has_room(self) -> bool:
        """Whether another request would keep it busy."""
        return self.under_way < self.window

    def ready(self) -> Ready:
        """Return what the engine says of itself when it has started."""
        message = self._receive()
        if not isinstance(message, Ready):
            raise self._nonsense(message)
        self.window = message.window
        return message

    def give(self, requests: tuple[Request, ...]) -> None:
        """Hand over a batch, the options of a text, or one request."""
        self._send(Give(requests))
        self.under_way += len(requests)

    def done(self) -> Done:
        """Return what the engine has completed."""
        message = self._receive()
        if not isinstance(message, Done):
            raise self._nonsense(message)
        return message

    def forget(self) -> None:
        """Give up what the engine has been given."""
        self.under_way = 0
        with suppress(OSError):  # whoever waits for it next hears that it has ended
            self.connection.send(Forget())

    def dismiss(self) -> None:
        """Let the engine end; it need not have ended when this returns."""
        self.connection.close()

    def end(self, seconds: float = SECONDS_TO_END) -> None:
        """Wait until the process has ended, and end it if that takes too long."""
        self.connection.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: Job | Give) -> None:
        try:
            self.connection.send(message)
        except OSError as error:
            # It may have said why before it went.
            with suppress(EOFError, OSError):
                while True:
                    if isinstance(last := self.connection.recv(), Failed):
                        raise error_of(last.exit_code, last.line) from error
            raise self._ending() from error

    def _receive(self) -> object:
        try:
            message: object = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._ending() from error
        except Exception as error:  # unpickling raises whatever its bytes make it do
            raise self._nonsense(error) from error
        if isinstance(message, Failed):
            raise error_of(message.exit_code, message.line)
        return message

    def _nonsense(self, found: object) -> SelfImproveError:
        return SelfImproveError(
            f"{self.name}: expected a message of an engine, found {type(found).__name__}"
        )

    def _ending(self) -> SelfImproveError:
        """Return how a process ended that could not say it itself."""
        self.end()
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return TryAgainError(
                f"{self.name}: expected its process to live, found it killed, most likely for lack "
                "of memory; give the pod more, or lower inference.gpuMemoryUtilization"
            )
        if code < 0:
            return TryAgainError(
                f"{self.name}: expected its process to live, found it ended by "
                f"{signal.Signals(-code).name}; its log has more"
            )
        return SelfImproveError(f"{self.name} ended with exit code {code}; its log has more")
