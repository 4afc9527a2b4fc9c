"""Progress for the person who waits: bars on a terminal, JSON lines everywhere else."""

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN: Final = 10.0


class Display(Protocol):
    """Where a run tells how far it is."""

    def worker(self, name: str, index: int) -> None:
        """Tell that a worker of an iteration has been started."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Show an event of the worker."""

    def warning(self, message: str) -> None:
        """Show what the user should know before the run goes on."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def display() -> Display:
    """Return bars if the standard error output is a terminal, else JSON lines."""
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """One JSON object a line on the standard error output, progress every ten seconds."""

    def __init__(self) -> None:
        self._index = 0
        self._last = 0.0

    def worker(self, name: str, index: int) -> None:
        """Tell that a worker of an iteration has been started."""
        self._index = index
        self.event({"event": "worker", "worker": name})

    def event(self, event: Mapping[str, Any]) -> None:
        """Write an event with its iteration; progress that is not the last may be left out."""
        now = time.monotonic()
        is_minor = event["event"] == "progress" and event["done"] < event["total"]
        if is_minor and now - self._last < SECONDS_BETWEEN:
            return
        self._last = now
        sys.stderr.write(json.dumps({**event, "iteration": self._index}) + "\n")

    def warning(self, message: str) -> None:
        """Write a warning as an event."""
        self.event({"event": "warning", "message": message})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stderr.flush()


class Bars:
    """One bar for each stage of each iteration: rows, tokens a second, time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]\N{CHECK MARK}"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._index: int | None = None
        self._bars: dict[str, TaskID] = {}
        self._waiting: TaskID | None = None

    def worker(self, name: str, index: int) -> None:
        """Show that a worker starts: engines and libraries take a while before the first row."""
        self._index = index
        self._bars = {}
        self._end_waiting()
        self._waiting = self._progress.add_task(f"M{index} {name} starts", total=None, rate="")

    def event(self, event: Mapping[str, Any]) -> None:
        """Move the bar of the event's stage; print a warning."""
        if event["event"] == "warning":
            self.warning(str(event["message"]))
        if event["event"] != "progress":
            return
        self._end_waiting()
        stage, total = str(event["stage"]), int(event["total"])
        if stage not in self._bars:
            title = stage if self._index is None else f"M{self._index} {stage}"
            self._bars[stage] = self._progress.add_task(title, rate="")
        rate = f"{event['tokensPerSecond']:,.0f} tokens/s"
        self._progress.update(self._bars[stage], completed=event["done"], total=total, rate=rate)

    def warning(self, message: str) -> None:
        """Print a warning above the bars."""
        text = f"warning: {message}"
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _end_waiting(self) -> None:
        if self._waiting is not None:
            self._progress.remove_task(self._waiting)
            self._waiting = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_waiting()
        self._progress.stop()
