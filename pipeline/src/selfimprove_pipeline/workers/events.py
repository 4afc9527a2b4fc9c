"""What a worker tells while it runs: one JSON object a line on its standard output.

The local runner draws progress bars from these lines; without a terminal, and in a pod,
they are the log.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO

from selfimprove_pipeline.workers.tasks.collect import Progress

SECONDS_BETWEEN: Final = 0.5


class Emitter:
    """Writes events, progress at most twice a second."""

    def __init__(self, output: TextIO = sys.stdout) -> None:
        self._output = output
        self._last = 0.0

    def progress(self, progress: Progress) -> None:
        """Write how far a stage is, if the last time was long enough ago or it is done."""
        now = time.monotonic()
        is_done = progress.done >= progress.total
        if not is_done and now - self._last < SECONDS_BETWEEN:
            return
        self._last = now
        self._write(of_progress(progress))

    def emit(self, event: str, **values: Any) -> None:
        """Write one event."""
        self._write({"event": event, **values})

    def _write(self, event: Mapping[str, Any]) -> None:
        self._output.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._output.flush()


def of_progress(progress: Progress) -> dict[str, Any]:
    """Return the event that tells how far a stage is."""
    seconds = time.monotonic() - progress.started
    left = (progress.total - progress.done) * seconds / progress.done
    return {
        "event": "progress",
        "stage": progress.stage,
        "done": progress.done,
        "total": progress.total,
        "tokensPerSecond": round(progress.tokens_per_second, 1),
        "secondsLeft": round(left, 1),
    }


def parse(line: str) -> Mapping[str, Any] | None:
    """Return the event that a line is, None for anything else a process prints."""
    if not line.startswith('{"event"'):
        return None
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
