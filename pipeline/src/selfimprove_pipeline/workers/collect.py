"""Collect the completions of many rows into artifacts, so that a kill costs only what runs.

A `Task` says which requests an artifact still needs and what row a completion makes. Rows
go to the store as parts while they arrive, at most 64 rows or 5 seconds apart; a task whose
rows are all there is committed and its parts disappear.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from selfimprove_pipeline import artifacts
from selfimprove_pipeline.artifacts import Manifest, Row
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.errors import TryAgainError
from selfimprove_pipeline.stages import Target
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.translate import Passage
from selfimprove_pipeline.workers.survey import manifest_of

FLUSH_ROWS: Final = 64
FLUSH_SECONDS: Final = 5.0
PART: Final = "rows"

RowT = TypeVar("RowT", bound=Row)
Rows = Mapping[str, RowT]


class Completer(Protocol):
    """What completes the requests of tasks: an `Engine`, or a `Translator` for passages."""

    @property
    def start_seconds(self) -> float:
        """Seconds that the start took."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that determine its output."""

    def complete(self, requests: Iterable[Any]) -> Iterator[Completion]:
        """Yield each request's completion as it finishes, in any order."""

    def close(self) -> None:
        """End what it holds."""


@dataclass(frozen=True)
class Task(Generic[RowT]):
    """One artifact in the making."""

    target: Target
    file_name: str
    kind: type[RowT]
    order: Sequence[str]
    """order of the ids in the artifact."""
    pending: Callable[[Rows[RowT]], Iterable[Request | Passage]]
    """pending gives the requests that the rows so far leave open, none when all is done."""
    row: Callable[[Completion, Rows[RowT]], RowT]
    """row of a completion; a later row of the same id replaces an earlier one."""
    describe: Callable[[Sequence[RowT]], Mapping[str, Mapping[str, float]]]
    """describe gives `counts` and `measures` for the manifest."""
    given: Sequence[RowT] = ()
    """given are the rows that need no request."""
    versions: Callable[[], Mapping[str, str]] = dict
    """versions of what made the requests, for the manifest."""


@dataclass
class Progress:
    """How far a worker is; a snapshot of it is what progress bars show."""

    stage: str
    total: int
    done: int = 0
    completion_tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens a second since the first request."""
        return self.completion_tokens / max(time.monotonic() - self.started, 1e-3)


OnProgress = Callable[[Progress], None]


class _Open(Generic[RowT]):
    """A task with the rows that it has, and those not yet in the store."""

    def __init__(self, task: Task[RowT], repository: Repository) -> None:
        self.task = task
        self.repository = repository
        stage, key = task.target.stage, task.target.key
        known = repository.parts(stage, key, PART, task.kind)
        self.rows: dict[str, RowT] = {_id(row): row for row in (*task.given, *known)}
        self.resumed = len(known)
        self.requested = 0
        self.seconds = 0.0
        self._fresh: list[RowT] = []
        self._flushed = time.monotonic()
        self._lock = threading.Lock()
        self._writing = threading.Lock()

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
            self.repository.append_part(stage, key, PART, fresh)
            with self._lock:
                del self._fresh[: len(fresh)]


def collect(
    engine: Completer,
    tasks: Sequence[Task[RowT]],
    repository: Repository,
    on_progress: OnProgress,
    *,
    start_seconds: float = 0.0,
) -> tuple[Manifest, ...]:
    """Complete every task with the engine and commit its artifact; return the manifests.

    `start_seconds` are those of the engine; the first artifact, which waited for it, has them.
    """
    open_tasks = [_Open(task, repository) for task in tasks]
    with _Flusher(open_tasks) as flusher:
        while requests := [request for o in open_tasks for request in _keyed(o, open_tasks)]:
            _round(engine, open_tasks, requests, on_progress, flusher)
    return tuple(
        _commit(one, engine, repository, start_seconds if number == 0 else 0.0)
        for number, one in enumerate(open_tasks)
    )


def _keyed(one: _Open[RowT], all_open: Sequence[_Open[RowT]]) -> Iterator[Request | Passage]:
    """Yield a task's pending requests with keys that are unique among all tasks."""
    number = all_open.index(one)
    for request in one.task.pending(one.rows):
        one.requested += 1
        yield dataclasses.replace(request, key=f"{number}/{request.key}")


def _round(
    engine: Completer,
    open_tasks: Sequence[_Open[RowT]],
    requests: Sequence[Request | Passage],
    on_progress: OnProgress,
    flusher: "_Flusher",
) -> None:
    stage = open_tasks[0].task.target.stage
    progress = Progress(stage=stage, total=len(requests))
    last = progress.started
    try:
        for completion in engine.complete(requests):
            number, _, key = completion.key.partition("/")
            one = open_tasks[int(number)]
            one.add(dataclasses.replace(completion, key=key))
            flusher.look(one)
            now = time.monotonic()
            one.seconds, last = one.seconds + now - last, now
            progress.done += 1
            progress.completion_tokens += completion.completion_tokens
            on_progress(progress)
    finally:
        # Also when the rest failed: what an endpoint has answered is paid for.
        for one in open_tasks:
            one.flush()


def _commit(
    one: _Open[RowT], engine: Completer, repository: Repository, start_seconds: float
) -> Manifest:
    task = one.task
    rows = [one.rows[identifier] for identifier in task.order]
    described = task.describe(rows)
    counts = {key: int(value) for key, value in described.get("counts", {}).items()}
    manifest = manifest_of(
        task.target,
        rows=len(rows),
        versions={**engine.versions, **task.versions()},
        counts={**counts, "requests": one.requested, "resumedRows": one.resumed},
        measures=dict(described.get("measures", {})),
        seconds={"wall": round(one.seconds, 3), "engineStart": round(start_seconds, 3)},
    )
    return repository.commit(manifest, {task.file_name: artifacts.lines(rows)})


class _Flusher:
    """Writes waiting rows from a second thread, also while one long completion runs.

    A store that does not answer is asked again a second later: the rows are kept, and the end
    of the round, which writes what is left, tells if it never does.
    """

    def __init__(self, open_tasks: Sequence[_Open[Any]]) -> None:
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

    def look(self, one: _Open[Any]) -> None:
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
