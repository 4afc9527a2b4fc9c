"""Collect the completions of many rows into artifacts, so that a kill costs only what runs.

Rows go to the store as parts while they arrive (`tasks`), at most 64 rows or 5 seconds apart; a
task whose rows are all there is committed and its parts disappear. Several pods may share the
rows of a task (`shards`): their parts meet in the store, and whichever sees all rows commits.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.run.shards import WHOLE, Share
from selfimprove_pipeline.run.survey import manifest_of
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers.tasks import Flusher, Follower, Open, Task
from selfimprove_pipeline.workers.tasks.rounds import Progress, Round, opened_follower

__all__ = ["Collector", "Completer", "OnProgress", "Progress"]

POLL_SECONDS: Final = 1.0
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


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Collector:
    """Completes tasks with an engine, this pod's share of their rows."""

    engine: Completer
    repository: Repository
    on_progress: OnProgress
    share: Share = WHOLE
    streams: bool = False
    """streams says that the engine takes requests in any order, and None for none yet."""

    def collect(
        self,
        tasks: Sequence[Task[Any]],
        followers: Sequence[Follower[Any]] = (),
        *,
        start_seconds: float = 0.0,
    ) -> tuple[Manifest, ...]:
        """Complete every task and commit its artifact; return the manifests.

        Rows of followers are kept in the store, and no artifact is made of them. `start_seconds`
        are those of the engine; the first artifact, which waited for it, has them. With other
        pods at work it returns when all artifacts are there, whoever commits.
        """
        opened = {id(task): Open(task, self.repository, self.share) for task in tasks}
        following = [opened_follower(follower, opened[id(follower.of)]) for follower in followers]
        self._complete([*opened.values(), *following])
        made: dict[int, Manifest] = {}
        is_first = True
        while True:
            for task in (task for task in tasks if id(task) not in made):
                one, seconds = opened[id(task)], start_seconds if task is tasks[0] else 0.0
                manifest = one.finished()
                if manifest is None and self._is_complete(task, one, is_first=is_first):
                    manifest = self._commit(task, one, seconds)
                made |= {} if manifest is None else {id(task): manifest}
            if len(made) == len(opened):
                return tuple(made[id(task)] for task in tasks)
            time.sleep(POLL_SECONDS)
            is_first = False

    def _complete(self, opened: Sequence[Open[Any]]) -> None:
        """Complete this pod's rows."""
        with Flusher(opened) as flusher:
            while asking := Round(opened, is_open_ended=self.streams):
                self._ask(asking, opened, flusher)

    def _ask(self, asking: Round, opened: Sequence[Open[Any]], flusher: Flusher) -> None:
        try:
            for completion in self.engine.complete(asking.requests()):
                one, progress = asking.take_in(completion)
                if one.task.keeps_each:
                    one.flush()
                flusher.look(one)
                self.on_progress(progress)
        finally:
            # Also when the rest failed: what an endpoint has answered is paid for.
            for one in opened:
                one.flush()

    def _is_complete(self, task: Task[Any], one: Open[Any], *, is_first: bool) -> bool:
        """Return whether no row of any pod is missing; looked at only where there are new ones."""
        if self.share.is_whole:
            return True
        return (is_first or one.load() > 0) and not any(task.pending(one.rows, WHOLE))

    def _commit(self, task: Task[Any], one: Open[Any], start_seconds: float) -> Manifest:
        made = task.make([one.rows[identifier] for identifier in task.order])
        counts = {key: int(value) for key, value in made.counts.items()}
        counts |= {"requests": task.tally.requested, "resumedRows": one.resumed}
        engines = getattr(self.engine, "engines", 1)  # a translator or a judge has none
        manifest = manifest_of(
            task.target,
            rows=made.rows,
            versions={**self.engine.versions, **task.versions()},
            counts=counts | ({"engines": engines} if engines > 1 else {}),
            measures=dict(made.measures),
            seconds={"wall": round(task.tally.seconds, 3), "engineStart": round(start_seconds, 3)},
        )
        if task.early is not None:
            # Before the artifact is there: afterwards nobody would look for them. All are taken
            # over by now, as the artifact has every row.
            self.repository.discard(task.early.target.stage, task.early.target.key)
        return self.repository.commit(manifest, made.files, side_files=made.side_files)
