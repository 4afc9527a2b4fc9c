"""Silence around code that prints and draws progress bars as it goes.

Only the thread that asks for it is silenced: others write events meanwhile, which are read.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO


class _Muted:
    """A stream that drops what one thread writes, until it is told to pass on everything."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._thread: int | None = threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() == self._thread:
            return len(text)
        return self._stream.write(text)

    def end(self) -> None:
        """Pass on everything: whoever has kept the stream, such as a logger, writes to it still."""
        self._thread = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what this thread prints until the end; what others print stays."""
    output, errors = _Muted(sys.stdout), _Muted(sys.stderr)
    streams: Any = (output, errors)
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            yield
    finally:
        output.end()
        errors.end()
