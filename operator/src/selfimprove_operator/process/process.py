"""One running operator: informer cache, work queue, loop, reporter, metrics and HTTP server.

`handlers` passes it the watch events. Every five minutes it lists all objects and compares them
with the cache, because a watch may lose an event.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self

from selfimprove_operator.api import status
from selfimprove_operator.api.settings import Settings
from selfimprove_operator.cluster.door import Cluster, Kind
from selfimprove_operator.cluster.errors import ClusterError
from selfimprove_operator.decisions.actions import RecordEvent
from selfimprove_operator.decisions.observed import JSONObject, Run
from selfimprove_operator.process import server
from selfimprove_operator.process.loop import Loop
from selfimprove_operator.process.metrics import Metrics
from selfimprove_operator.process.reporter import Reporter
from selfimprove_operator.watching import resync
from selfimprove_operator.watching.index import Index
from selfimprove_operator.watching.queue import Queue
from selfimprove_operator.watching.resync import Difference

log = logging.getLogger(__name__)

PORT: Final = 8080
WORKERS: Final = 16
RESYNC_SECONDS: Final = 300.0
MARGIN_SECONDS: Final = 5.0
"""Added to the 60 s after which a difference counts, so that the next comparison is past them."""
KINDS: Final[tuple[Kind, ...]] = ("SelfImproveRun", "Job", "Pod")
JOBSET: Final = ("jobset.x-k8s.io/v1alpha2", "jobsets")


@dataclass(frozen=True)
class Listener:
    """Records Events, log lines and metrics of what the loop does."""

    reporter: Reporter
    metrics: Metrics

    def record(self, run: Run, event: RecordEvent) -> None:
        """Record an Event about a run, and log it."""
        context = {"namespace": run.namespace, "run": run.name, "stage": run.status.stage}
        log.info("%s: %s", event.reason, event.message, extra=context)
        self.reporter.record(run, event)

    def moved(self, before: status.Status, after: status.Status) -> None:
        """Note that a run's status was changed."""
        self.metrics.moved(before, after)


@dataclass
class Process:
    """The parts of the operator, for as long as it runs."""

    index: Index
    queue: Queue
    loop: Loop
    metrics: Metrics
    reporter: Reporter
    cluster: Cluster
    stack: AsyncExitStack
    seen: dict[Kind, float] = field(default_factory=dict)
    """seen is the time of the last watch event, by kind."""
    young: dict[Kind, Mapping[str, Difference]] = field(default_factory=dict)
    """young are differences between listing and cache that do not count yet, by kind and uid."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    has_lost_event: bool = False
    """has_lost_event makes the liveness probe fail, so that a new process lists everything."""

    @classmethod
    async def start(cls, settings: Settings, *, port: int = PORT) -> Self:
        """Start an operator and return it."""
        metrics, index = Metrics(), Index()
        cluster = await Cluster.connect(metrics.called, settings.watch_namespaces)
        reporter = Reporter(cluster, time.time)
        has_jobset = await cluster.serves(*JOBSET)
        loop = Loop(
            cluster=cluster,
            settings=settings,
            index=index,
            listener=Listener(reporter, metrics),
            multi_node="JobSet" if has_jobset else "IndexedJob",
            again=lambda key: queue.add(key),  # noqa: PLW0108  the queue is made from the loop
        )
        queue = Queue(loop.reconcile, metrics.reconciled)
        process = cls(index, queue, loop, metrics, reporter, cluster, AsyncExitStack())
        metrics.watch_depth(lambda: queue.depth)
        for kind in KINDS:
            metrics.watch_age(kind, partial(process._age, kind))
        # `stop` closes in the reverse order: tasks end before the connections that they use.
        process.stack.push_async_callback(cluster.close)
        await process.stack.enter_async_context(server.serving(port, metrics, live=process._live))
        for work in (queue.work(WORKERS), reporter.post(), process._resync()):
            process.tasks.append(asyncio.create_task(work))
        process.stack.push_async_callback(process._end_tasks)
        return process

    async def _end_tasks(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def stop(self) -> None:
        """End all work; the next process continues what was not finished."""
        await self.stack.aclose()

    def changed(self, kind: Kind, body: JSONObject, *, is_deleted: bool) -> None:
        """Update the cache with a watch event, and put its run into the work queue."""
        self.seen[kind] = time.time()
        uid, key = body["metadata"]["uid"], None
        match kind:
            case "Job":
                key = self.index.drop_job(body) if is_deleted else self.index.put_job(body)
            case "Pod":
                key = self.index.drop_pod(body) if is_deleted else self.index.put_pod(body)
            case _ if is_deleted:
                self.metrics.gone(uid)
                key = self.index.drop_run(body)
            case _:
                key = self.index.put_run(body)
                run = self.index.run(key)
                if run is not None:
                    self.metrics.seen(uid, run.status)
        if key is not None:
            is_new = kind == status.KIND and "startTime" not in body.get("status", {})
            self.queue.add(key, is_new=is_new)

    def _age(self, kind: Kind) -> float:
        return time.time() - self.seen[kind] if kind in self.seen else 0.0

    def _live(self) -> str | None:
        if self.has_lost_event:
            return "a watch has lost events; a new process will list everything again"
        if any(task.done() for task in self.tasks):
            return "a background task of the operator has ended; see its log"
        return None

    async def _resync(self) -> None:
        """List everything every five minutes, sooner while a difference is waiting to count."""
        while True:
            is_young = any(self.young.values())
            seconds = resync.GRACE_SECONDS + MARGIN_SECONDS if is_young else RESYNC_SECONDS
            await asyncio.sleep(seconds)
            for kind in KINDS:
                try:
                    await self._compare(kind)
                except ClusterError as error:
                    log.warning("cannot list %s objects: %s", kind, error)

    async def _compare(self, kind: Kind) -> None:
        """Compare a listing with the cache, and read again what the watch has lost."""
        compared = resync.compare(
            await self.cluster.versions(kind),
            self.index.versions(kind),
            young=self.young.get(kind, {}),
            now=time.time(),
        )
        self.young[kind] = compared.young
        for difference in compared.due:
            version = difference.version
            self.has_lost_event = True
            self.metrics.healed(kind, difference.kind)
            log.error(
                "the watch of %s lost an event of %s (%s)", kind, version.name, difference.kind
            )
            body = await self.cluster.read(kind, version.namespace, version.name)
            if body is not None:
                self.changed(kind, body, is_deleted=False)
            elif (key := self.index.forget(kind, version.namespace, version.name)) is not None:
                self.queue.add(key)
