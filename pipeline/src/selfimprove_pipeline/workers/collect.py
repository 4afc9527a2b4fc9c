"""Collect the completions of many rows into artifacts, so that a kill costs only what runs.

Rows go to the store as parts while they arrive (`tasks`), at most 64 rows or 5 seconds apart; a
task whose rows are all there is committed and its parts disappear. Several pods may share the
rows of a task (`shards`): their parts meet in the store, and whichever sees all rows commits.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from selfimprove_pipeline.artifacts import Manifest
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.questions import Question
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.translate import Passage
from selfimprove_pipeline.workers.shards import WHOLE, Share
from selfimprove_pipeline.workers.survey import manifest_of
from selfimprove_pipeline.workers.tasks import Flusher, Open, RowT, Task

POLL_SECONDS: Final = 5.0
"""Time between two looks at what other pods have done."""


class Completer(Protocol):
    """What completes the requests of tasks: an `Engine`, a `Translator` or a judge."""

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


@dataclass(frozen=True)
class Collector:
    """Completes tasks with an engine, this pod's share of their rows."""

    engine: Completer
    repository: Repository
    on_progress: OnProgress
    share: Share = WHOLE

    def collect(
        self, tasks: Sequence[Task[RowT]], *, start_seconds: float = 0.0
    ) -> tuple[Manifest, ...]:
        """Complete every task and commit its artifact; return the manifests.

        `start_seconds` are those of the engine; the first artifact, which waited for it, has
        them. With other pods at work it returns when all artifacts are there, whoever commits.
        """
        opened = [Open(task, self.repository, self.share) for task in tasks]
        left = [(one, start_seconds if one is opened[0] else 0.0) for one in opened]
        made: list[Manifest] = []
        while True:
            self._complete([one for one, _ in left])
            found = [(one, s, self._manifest(one, s)) for one, s in left]
            made += [manifest for _, _, manifest in found if manifest]
            left = [(one, s) for one, s, manifest in found if manifest is None]
            if not left:
                return tuple(made)
            time.sleep(POLL_SECONDS)
            for one, _ in left:
                one.load()

    def _complete(self, open_tasks: Sequence[Open[RowT]]) -> None:
        """Complete this pod's rows."""
        with Flusher(open_tasks) as flusher:
            while requests := [request for o in open_tasks for request in _keyed(o, open_tasks)]:
                self._round(open_tasks, requests, flusher)

    def _round(
        self,
        open_tasks: Sequence[Open[RowT]],
        requests: Sequence[Request | Passage | Question],
        flusher: Flusher,
    ) -> None:
        progress = Progress(stage=open_tasks[0].task.target.stage, total=len(requests))
        last = progress.started
        try:
            for completion in self.engine.complete(requests):
                number, _, key = completion.key.partition("/")
                one = open_tasks[int(number)]
                one.add(dataclasses.replace(completion, key=key))
                if one.task.keeps_each:
                    one.flush()
                flusher.look(one)
                now = time.monotonic()
                one.seconds, last = one.seconds + now - last, now
                progress.done += 1
                progress.completion_tokens += completion.completion_tokens
                self.on_progress(progress)
        finally:
            # Also when the rest failed: what an endpoint has answered is paid for.
            for one in open_tasks:
                one.flush()

    def _manifest(self, one: Open[RowT], start_seconds: float) -> Manifest | None:
        """Return an artifact's manifest, committed now if its rows are all there."""
        finished = one.finished()
        if finished is None and (self.share.is_whole or one.is_complete()):
            return self._commit(one, start_seconds)
        return finished

    def _commit(self, one: Open[RowT], start_seconds: float) -> Manifest:
        task = one.task
        made = task.make([one.rows[identifier] for identifier in task.order])
        counts = {key: int(value) for key, value in made.counts.items()}
        manifest = manifest_of(
            task.target,
            rows=made.rows,
            versions={**self.engine.versions, **task.versions()},
            counts={**counts, "requests": one.requested, "resumedRows": one.resumed},
            measures=dict(made.measures),
            seconds={"wall": round(one.seconds, 3), "engineStart": round(start_seconds, 3)},
        )
        return self.repository.commit(manifest, made.files, side_files=made.side_files)


def _keyed(
    one: Open[RowT], all_open: Sequence[Open[RowT]]
) -> Iterator[Request | Passage | Question]:
    """Yield a task's pending requests with keys that are unique among all tasks."""
    number = all_open.index(one)
    for request in one.task.pending(one.rows, one.share):
        one.requested += 1
        yield dataclasses.replace(request, key=f"{number}/{request.key}")
