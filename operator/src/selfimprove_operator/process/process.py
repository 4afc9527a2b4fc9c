"""One running operator: queue, loop, reporter, metrics and HTTP server, bound together.

`handlers` feeds it with watch events. What a watch lost shows in a listing every five minutes.
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
from selfimprove_operator.decisions.actions import Tell
from selfimprove_operator.decisions.observed import JSONObject, Run
from selfimprove_operator.process import server
from selfimprove_operator.process.loop import Loop
from selfimprove_operator.process.metrics import Metrics
from selfimprove_operator.process.reporter import Reporter
from selfimprove_operator.watching import resync
from selfimprove_operator.watching.index import Index, Key
from selfimprove_operator.watching.queue import Queue
from selfimprove_operator.watching.resync import Difference

log = logging.getLogger(__name__)

PORT: Final = 8080
WORKERS: Final = 16
RESYNC_SECONDS: Final = 300.0
LATE_SECONDS: Final = 5.0
"""Beyond the 60 s after which a difference counts."""
KINDS: Final[tuple[Kind, ...]] = ("SelfImproveRun", "Job", "Pod")
JOBSET: Final = ("jobset.x-k8s.io/v1alpha2", "jobsets")


@dataclass(frozen=True)
class Listener:
    """Tells people by Events, and Prometheus by metrics."""

    reporter: Reporter
    metrics: Metrics

    def tell(self, run: Run, event: Tell) -> None:
        """Tell people something about a run."""
        context = {"namespace": run.namespace, "run": run.name, "stage": run.status.stage}
        log.info("%s: %s", event.reason, event.message, extra=context)
        self.reporter.tell(run, event)

    def moved(self, before: status.Status, after: status.Status) -> None:
        """Note that a run's status was changed."""
        self.metrics.moved(before, after)


@dataclass
class Process:
    """What lives as long as the operator does."""

    index: Index
    queue: Queue
    loop: Loop
    metrics: Metrics
    reporter: Reporter
    cluster: Cluster
    stack: AsyncExitStack
    seen: dict[Kind, float] = field(default_factory=dict)
    """seen is when a watch last told something, by kind."""
    young: dict[Kind, Mapping[str, Difference]] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    is_deaf: bool = False
    """is_deaf: a watch has lost an event, and a new process is to take over."""

    @classmethod
    async def start(cls, settings: Settings, *, port: int = PORT) -> Self:
        """Return the process of an operator that has begun to work."""
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
        queue = Queue(loop.reconcile, metrics.looked)
        made = cls(index, queue, loop, metrics, reporter, cluster, AsyncExitStack())
        await made._begin(port)
        return made

    async def _begin(self, port: int) -> None:
        self.metrics.watch_depth(lambda: self.queue.depth)
        for kind in KINDS:
            self.metrics.watch_age(kind, partial(self._age, kind))
        served = server.serving(port, self.metrics, live=self._live, ready=self._ready)
        self.stack.push_async_callback(self.cluster.close)
        await self.stack.enter_async_context(served)
        for work in (self.queue.work(WORKERS), self.reporter.post(), self._resync()):
            self.tasks.append(asyncio.create_task(work))
        self.stack.push_async_callback(self._end_tasks)

    async def _end_tasks(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def stop(self) -> None:
        """End the work; what was begun is finished by the next process."""
        await self.stack.aclose()

    def changed(self, kind: Kind, body: JSONObject, *, is_deleted: bool) -> None:
        """Take a watch event into the index, and have its run looked at."""
        self.seen[kind] = time.time()
        key = self._take(kind, body, is_deleted=is_deleted)
        if key is not None:
            is_new = kind == status.KIND and "startTime" not in body.get("status", {})
            self.queue.add(key, is_new=is_new)

    def _take(self, kind: Kind, body: JSONObject, *, is_deleted: bool) -> Key | None:
        match kind:
            case "Job":
                take = self.index.drop_job if is_deleted else self.index.put_job
                return take(body)
            case "Pod":
                return self.index.drop_pod(body) if is_deleted else self.index.put_pod(body)
            case _:
                return self._take_run(body, is_deleted=is_deleted)

    def _take_run(self, body: JSONObject, *, is_deleted: bool) -> Key:
        uid = body["metadata"]["uid"]
        if is_deleted:
            self.metrics.gone(uid)
            return self.index.drop_run(body)
        key = self.index.put_run(body)
        run = self.index.run(key)
        if run is not None:
            self.metrics.seen(uid, run.status)
        return key

    def _age(self, kind: Kind) -> float:
        return time.time() - self.seen[kind] if kind in self.seen else 0.0

    def _live(self) -> str | None:
        if self.is_deaf:
            return "a watch has lost events; a new process lists everything anew"
        if any(task.done() for task in self.tasks):
            return "a task of the operator has ended; see its log"
        return None

    def _ready(self) -> str | None:
        return None

    async def _resync(self) -> None:
        """Hold listings against the index every five minutes, sooner when something differs."""
        while True:
            is_young = any(self.young.values())
            await asyncio.sleep(resync.GRACE_SECONDS + LATE_SECONDS if is_young else RESYNC_SECONDS)
            for kind in KINDS:
                try:
                    await self._compare(kind)
                except ClusterError as error:
                    log.warning("%s could not be listed: %s", kind, error)

    async def _compare(self, kind: Kind) -> None:
        compared = resync.compare(
            await self.cluster.versions(kind),
            self.index.versions(kind),
            young=self.young.get(kind, {}),
            now=time.time(),
        )
        self.young[kind] = compared.young
        for difference in compared.due:
            self.is_deaf = True
            self.metrics.healed(kind, difference.kind)
            log.error("a watch of %s lost %s (%s)", kind, difference.version.name, difference.kind)
            await self._heal(kind, difference)

    async def _heal(self, kind: Kind, difference: Difference) -> None:
        version = difference.version
        body = await self.cluster.read(kind, version.namespace, version.name)
        if body is not None:
            self.changed(kind, body, is_deleted=False)
            return
        key = self.index.forget(kind, version.namespace, version.name)
        if key is not None:
            self.queue.add(key)
