"""An artifact in the making: its rows so far, those in the store and those on the way there.

A `Task` says which requests an artifact still needs and what row a completion makes. Rows of a
`Follower` are made beside those that they need, before their own artifact has a key. `Open` has
the rows of one; `Flusher` writes new ones to the store while they come, so that a kill costs
only what runs. `collect` drives them.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Generic, Self, TypeVar

from selfimprove_pipeline.contract.errors import TryAgainError
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.rows import Row, lines
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.run.shards import Share
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers.tasks.wanted import Wanted

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
    """side_files are in no digest."""
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
    files = {name: lines(rows)}
    return Made(files=files, rows=len(rows), counts=counts, measures=measures)


@dataclass
class Tally:
    """What this process has done for an artifact."""

    requested: int = 0
    made: int = 0
    """made are rows, each attempt for itself."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Asking(Generic[RowT]):
    """How rows are asked for."""

    target: Target
    kind: type[RowT]
    pending: Callable[[Rows[RowT], Share], Iterable[Wanted]]
    """pending is what of a share the rows so far leave open, nothing when all of it is done."""
    row: Callable[[Completion, Rows[RowT]], RowT]
    """row of a completion; a later row of the same id replaces an earlier one."""
    opened: Callable[[RowT, Rows[RowT]], Iterable[Wanted]] = lambda *_: ()
    """opened is what a new row, already among the others, lets be asked. It is asked at once of an
    engine that takes requests in any order, and is `pending` for the next round of another."""
    given: Sequence[RowT] = ()
    """given are the rows that need no request."""
    keeps_each: bool = False
    """keeps_each writes a row to the store before more is asked, where a request costs money."""
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, kw_only=True)
class Early(Generic[RowT]):
    """Rows of a task that a `Follower` has kept before the task had a key."""

    target: Target
    kind: type[Row]
    row: Callable[[Any], RowT | None]
    """row that one of them is for the task, None where it is none."""


@dataclass(frozen=True, kw_only=True)
class Task(Asking[RowT]):
    """One artifact in the making."""

    order: Sequence[str]
    """order of the rows' ids."""
    make: Callable[[Sequence[RowT]], Made]
    """make gives the artifact of all rows, in their order."""
    versions: Callable[[], Mapping[str, str]] = dict
    """versions of what made the requests, for the manifest."""
    early: Early[RowT] | None = None
    """early rows are taken over as the task is opened."""


@dataclass(frozen=True, kw_only=True)
class Follower(Asking[RowT]):
    """Rows that are asked for while those that they need are still coming."""

    of: Task[Any]
    """of is the task whose rows they need."""
    heard: Callable[[Any, Rows[RowT]], Iterable[Wanted]]
    """heard is told each of those rows, and gives what it lets be asked."""


class Open(Generic[RowT]):
    """What is asked for, with the rows that are there and those not yet in the store."""

    def __init__(
        self,
        task: Asking[RowT],
        repository: Repository,
        share: Share,
        needs: "Open[Any] | None" = None,
    ) -> None:
        """Take the rows that are in the store.

        `needs` are the rows that those of a follower are made of.
        """
        self.task = task
        self.repository = repository
        self.share = share
        self.needs = needs
        self.rows: dict[str, RowT] = {_id(row): row for row in task.given}
        self._seen: set[str] = set()
        self._fresh: list[RowT] = []
        self._flushed = time.monotonic()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self.resumed = max(0, self.load() + self._take_over() - task.tally.made)

    def load(self) -> int:
        """Take the rows that have come into the store, of other pods too; return their number."""
        stage, key = self.task.target.stage, self.task.target.key
        uris = self.repository.part_uris(stage, key, PART)
        unseen = [uri for uri in uris if uri not in self._seen]
        if not unseen:
            return 0
        known = self.repository.parts(stage, key, PART, self.task.kind, unseen)
        self._seen.update(unseen)
        self.rows |= {_id(row): row for row in known}
        return len(known)

    def _take_over(self) -> int:
        """Take the share's early rows, keep them as the task's own, and return their number."""
        early = self.task.early if isinstance(self.task, Task) else None
        if early is None:
            return 0
        kept = self.repository.parts(early.target.stage, early.target.key, PART, early.kind)
        missing = (one for one in kept if _id(one) not in self.rows and self.share.owns(_id(one)))
        found = [row for row in map(early.row, missing) if row is not None]
        stage, key = self.task.target.stage, self.task.target.key
        self.repository.append_part(stage, key, PART, found)
        self.rows |= {_id(row): row for row in found}
        return len(found)

    def finished(self) -> Manifest | None:
        """Return the manifest of the artifact, if another pod has committed it."""
        if self.share.is_whole:
            return None
        stage, key = self.task.target.stage, self.task.target.key
        found = self.repository.manifest(stage, key)
        if found is not None:
            self.repository.clean(stage, key)  # of rows that came after it
        return found

    def add(self, completion: Completion) -> RowT:
        """Keep the row of a completion and return it; the flushing thread writes it."""
        row = self.task.row(completion, self.rows)
        with self._lock:
            self.rows[_id(row)] = row
            self._fresh.append(row)
        self.task.tally.made += 1
        return row

    @property
    def is_due(self) -> bool:
        """Whether 64 rows have come together, or five seconds have passed."""
        is_old = time.monotonic() - self._flushed >= FLUSH_SECONDS
        return is_old or len(self._fresh) >= FLUSH_ROWS

    def flush(self) -> None:
        """Write the rows that are not in the store yet; they are kept if that fails.

        What they are made of is written first: without it they would be made again.
        """
        with self._writing:
            self._flushed = time.monotonic()
            with self._lock:
                fresh = list(self._fresh)
            if not fresh:
                return
            if self.needs is not None:
                self.needs.flush()
            stage, key = self.task.target.stage, self.task.target.key
            self.repository.append_part(stage, key, PART, fresh)
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
    return str(getattr(row, "id"))  # noqa: B009  every kind of row has one, `Row` itself has none
