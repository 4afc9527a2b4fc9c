"""`python -m selfimprove_pipeline.engine.pool.child FD`: one engine, in a process of its own.

It reads its job and its requests from the pipe behind the file descriptor, and writes completions
to it. A thread does the reading, so that the pool never waits for an engine in the midst of a step.
Neighbours: `messages` for what is said, `children` for the other end.
"""

import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

from selfimprove_pipeline.contract.errors import SelfImproveError
from selfimprove_pipeline.engine import Request
from selfimprove_pipeline.engine.pool.jobs import Job, Single
from selfimprove_pipeline.engine.pool.messages import Done, Failed, Forget, Give, Ready

LONGEST_LINE: Final = 500


class _ForgottenError(Exception):
    """Ends a call of `complete` that nobody waits for."""


class Inbox:
    """What the pool has said and the engine has not taken yet."""

    def __init__(self, connection: "Connection[Done | Failed | Ready, Give | Forget]") -> None:
        self.under_way = 0
        """underWay are the requests that the engine has taken and not completed."""
        self._connection = connection
        self._messages: queue.SimpleQueue[Give | Forget | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> Give | Forget | None:
        """Return the next message, waiting for it; None when the pool has closed the pipe."""
        return self._messages.get()

    def requests(self) -> Iterator[Request | None]:
        """Yield what is given until the pipe is closed; None while the engine has other work."""
        while True:
            if self.under_way and self._messages.empty():
                yield None
                continue
            message = self.take()
            if message is None:
                return
            if isinstance(message, Forget):
                raise _ForgottenError
            for request in message.requests:
                self.under_way += 1
                yield request

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                self._messages.put(None)
                return
            if isinstance(message, Forget):
                with suppress(queue.Empty):
                    while True:
                        self._messages.get_nowait()
            self._messages.put(message)


def main(file_descriptor: int) -> int:
    """Start the engine and serve it until the pipe is closed; return the exit code."""
    connection: Connection[Done | Failed | Ready, Give | Forget] = Connection(file_descriptor)
    job = connection.recv()
    try:
        if not isinstance(job, Job):
            msg = f"expected the job of an engine, found {type(job).__name__}"
            raise TypeError(msg)  # noqa: TRY301  told like every other failure
        engine = job.start()
        connection.send(
            Ready(
                versions=engine.versions,
                max_model_len=engine.max_model_len,
                start_seconds=engine.start_seconds,
                window=engine.window,
                has_fixed_batches=engine.has_fixed_batches,
            )
        )
        serve = _serve_batches if engine.has_fixed_batches else _serve_stream
        serve(engine, Inbox(connection), connection)
        engine.close()
    except BrokenPipeError:
        return 0  # the pool has gone, and nobody wants to hear of it
    except SelfImproveError as error:
        return _fail(connection, error.exit_code, str(error))
    except Exception as error:  # noqa: BLE001  the pool tells it
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_LINE]
        return _fail(connection, 1, f"an engine failed, its log has more: {text}")
    return 0


def _serve_batches(
    engine: Single, inbox: Inbox, connection: "Connection[Done | Failed | Ready, Give | Forget]"
) -> None:
    """Complete one batch after the other."""
    while (message := inbox.take()) is not None:
        if isinstance(message, Give):
            connection.send(Done(tuple(engine.complete(message.requests))))


def _serve_stream(
    engine: Single, inbox: Inbox, connection: "Connection[Done | Failed | Ready, Give | Forget]"
) -> None:
    """Complete requests as they come, until the pipe is closed."""
    while True:
        inbox.under_way = 0
        try:
            for completion in engine.complete(inbox.requests()):
                inbox.under_way -= 1
                connection.send(Done((completion,)))
        except _ForgottenError:
            continue
        return


def _fail(
    connection: "Connection[Done | Failed | Ready, Give | Forget]", exit_code: int, line: str
) -> int:
    try:
        connection.send(Failed(exit_code, line))
    except OSError:
        print(line, file=sys.stderr)  # noqa: T201  the pool has gone; the log remains
    return exit_code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
