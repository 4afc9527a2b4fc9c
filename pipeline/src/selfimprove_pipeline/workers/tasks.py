"""An artifact in the making: its rows so far, those in the store and those on the way there.

A `Task` says which requests an artifact still needs and what row a completion makes. `Open` has
the rows of one; `Flusher` writes new ones to the store while they come, so that a kill costs
only what runs. `collect` drives them.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Generic, Self, TypeVar

from selfimprove_pipeline import artifacts
from selfimprove_pipeline.artifacts import Manifest, Row
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.errors import TryAgainError
from selfimprove_pipeline.questions import Question
from selfimprove_pipeline.stages import Target
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.translate import Passage
from selfimprove_pipeline.workers.shards import WHOLE, Share

FLUSH_ROWS: Final = 64
FLUSH_SECONDS: Final = 5.0
PART: Final = "rows"

RowT = TypeVar("RowT", bound=Row)
Rows = Mapping[str, RowT]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a task's rows come to: the artifact's files, and what its manifest tells."""

    files: Mapping[str, bytes]
    side_files: Mapping[str, bytes] = field(default_factory=dict)
    """sideFiles are in no digest."""
    rows: int
    counts: Mapping[str, float]
    measures: Mapping[str, float] = field(default_factory=dict)


def as_they_are(
    name: str,
    rows: Sequence[Row],
    counts: Mapping[str, float],
    measures: Mapping[str, float] = MappingProxyType({}),
) -> Made:
    """Return an artifact of one file that holds the rows."""
    files = {name: artifacts.lines(rows)}
    return Made(files=files, rows=len(rows), counts=counts, measures=measures)


@dataclass(frozen=True)
class Task(Generic[RowT]):
    """One artifact in the making."""

    target: Target
    kind: type[RowT]
    order: Sequence[str]
    """order of the rows' ids."""
    pending: Callable[[Rows[RowT], Share], Iterable[Request | Passage | Question]]
    """pending gives the requests of a share that the rows so far leave open, none when all of
    it is done."""
    row: Callable[[Completion, Rows[RowT]], RowT]
    """row of a completion; a later row of the same id replaces an earlier one."""
    make: Callable[[Sequence[RowT]], Made]
    """make gives the artifact of all rows, in their order."""
    given: Sequence[RowT] = ()
    """given are the rows that need no request."""
    versions: Callable[[], Mapping[str, str]] = dict
    """versions of what made the requests, for the manifest."""
    keeps_each: bool = False
    """keepsEach writes a row to the store before more is asked, where a request costs money."""


class Open(Generic[RowT]):
    """A task with the rows that it has, and those not yet in the store."""

    def __init__(self, task: Task[RowT], repository: Repository, share: Share) -> None:
        self.task = task
        self.repository = repository
        self.share = share
        self.rows: dict[str, RowT] = {}
        self.resumed = self.load()
        self.requested = 0
        self.seconds = 0.0
        self._fresh: list[RowT] = []
        self._flushed = time.monotonic()
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def load(self) -> int:
        """Take the rows that are in the store, those of other pods too; return their number."""
        stage, key = self.task.target.stage, self.task.target.key
        known = self.repository.parts(stage, key, PART, self.task.kind)
        self.rows |= {_id(row): row for row in (*self.task.given, *known)}
        return len(known)

    def finished(self) -> Manifest | None:
        """Return the manifest of the artifact, if another pod has committed it."""
        if self.share.is_whole:
            return None
        stage, key = self.task.target.stage, self.task.target.key
        found = self.repository.manifest(stage, key)
        if found is not None:
            self.repository.clean(stage, key)  # of rows that came after it
        return found

    def is_complete(self) -> bool:
        """Whether no row of any pod is missing."""
        return next(iter(self.task.pending(self.rows, WHOLE)), None) is None

    def add(self, completion: Completion) -> None:
        """Keep the row of a completion; the flushing thread writes it."""
        row = self.task.row(completion, self.rows)
        with self._lock:
            self.rows[_id(row)] = row
            self._fresh.append(row)

    @property
    def is_due(self) -> bool:
        """Whether 64 rows have come together, or five seconds have passed."""
        is_old = time.monotonic() - self._flushed >= FLUSH_SECONDS
        return is_old or len(self._fresh) >= FLUSH_ROWS

    def flush(self) -> None:
        """Write the rows that are not in the store yet; they are kept if that fails."""
        with self._writing:
            self._flushed = time.monotonic()
            with self._lock:
                fresh = list(self._fresh)
            stage, key = self.task.target.stage, self.task.target.key
            writer = "" if self.share.is_whole else str(self.share.number)
            self.repository.append_part(stage, key, PART, fresh, writer=writer)
            with self._lock:
                del self._fresh[: len(fresh)]


class Flusher:
    """Writes waiting rows from a second thread, also while one long completion runs.

    A store that does not answer is asked again a second later: the rows are kept, and the end
    of the round, which writes what is left, tells if it never does.
    """

    def __init__(self, open_tasks: Sequence[Open[Any]]) -> None:
        self._tasks = open_tasks
        self._is_ended = False
        self._wake = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ended = True
        self._wake.set()
        self._thread.join()

    def look(self, one: Open[Any]) -> None:
        """Wake the thread if a task is due; raise what ended it."""
        if self._failure is not None:
            raise self._failure
        if one.is_due:
            self._wake.set()

    def _run(self) -> None:
        while not self._is_ended:
            self._wake.wait(1.0)
            self._wake.clear()
            try:
                for one in self._tasks:
                    if one.is_due:
                        one.flush()
            except TryAgainError:
                time.sleep(1.0)
            except Exception as error:  # noqa: BLE001  raised again in the thread that works
                self._failure = error
                return


def _id(row: Row) -> str:
    return str(row.model_dump(include={"id"})["id"])
