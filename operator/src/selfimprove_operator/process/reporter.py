"""Records Kubernetes Events about runs, which `kubectl describe` shows.

`record` never fails and never waits; a background task posts the Events. An Event that repeats
within 10 minutes only raises its count, also after a restart, because its name is a digest of its
content. A run may have 25 Events at once, then one per 5 minutes, as with client-go's recorder.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from selfimprove_operator.api import status, times
from selfimprove_operator.cluster.door import ClusterApi, Manifest
from selfimprove_operator.cluster.errors import ClusterError, Unavailable
from selfimprove_operator.decisions.actions import RecordEvent
from selfimprove_operator.decisions.observed import Run

log = logging.getLogger(__name__)

WINDOW_SECONDS: Final = 600
BURST: Final = 25
REFILL_SECONDS: Final = 300.0
REMEMBERED: Final = 4096
"""Runs whose rate limit is remembered."""
PENDING: Final = 1000
"""Events that may wait to be posted; further ones are dropped."""
TRIES: Final = 12
RETRY_SECONDS: Final = 10.0
LONGEST_MESSAGE: Final = 1024
PAUSE_SECONDS: Final = 0.05
"""Time between two Events: when a thousand runs are applied at once, starting them comes first."""


@dataclass(frozen=True)
class _Recorded:
    """An Event that was recorded, and when."""

    run: Run
    event: RecordEvent
    at: float

    @property
    def name(self) -> str:
        """The Event's name: the same for the same content in the same 10 minutes."""
        window = int(self.at // WINDOW_SECONDS)
        content = (self.run.uid, self.event.kind, self.event.reason, self.event.message, window)
        return f"{self.run.name}.{hashlib.sha256(repr(content).encode()).hexdigest()[:16]}"

    @property
    def manifest(self) -> Manifest:
        run, stamp = self.run, times.stamp(self.at)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": run.namespace},
            "involvedObject": {
                "apiVersion": f"{status.GROUP}/{status.VERSION}",
                "kind": status.KIND,
                "namespace": run.namespace,
                "name": run.name,
                "uid": run.uid,
            },
            "type": self.event.kind,
            "reason": self.event.reason,
            "message": self.event.message[:LONGEST_MESSAGE],
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "source": {"component": "selfimprove-operator"},
            "reportingComponent": status.MANAGER,
        }


@dataclass
class _TokenBucket:
    """How many Events a run may still have."""

    tokens: float
    at: float

    def take(self, now: float) -> bool:
        self.tokens = min(self.tokens + (now - self.at) / REFILL_SECONDS, BURST)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Reporter:
    """Records Events about runs; `post` has to run in the background."""

    def __init__(self, cluster: ClusterApi, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._pending: asyncio.Queue[_Recorded] = asyncio.Queue(PENDING)
        self._buckets: OrderedDict[str, _TokenBucket] = OrderedDict()

    def record(self, run: Run, event: RecordEvent) -> None:
        """Have an Event about a run posted, within the rate limit of the run."""
        if self._pending.full():
            return
        recorded = _Recorded(run, event, self._clock())
        # Runs that had an Event lately are at the end; the one at the front is forgotten first.
        bucket = self._buckets.pop(run.uid, None) or _TokenBucket(BURST, recorded.at)
        self._buckets[run.uid] = bucket
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        if bucket.take(recorded.at):
            self._pending.put_nowait(recorded)

    async def post(self) -> None:
        """Post recorded Events until cancelled; one that cannot be posted is dropped."""
        while True:
            recorded = await self._pending.get()
            try:
                await self._post(recorded)
            except ClusterError as error:
                log.info(
                    "cannot post the Event %s: %s",
                    recorded.event.reason,
                    error,
                    extra={"namespace": recorded.run.namespace, "run": recorded.run.name},
                )
            self._pending.task_done()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _post(self, recorded: _Recorded) -> None:
        """Create an Event, or raise the count of the one that is there."""
        for attempt in range(TRIES):
            try:
                created = await self._cluster.create(recorded.manifest)
                if created.existed:
                    count = int(created.manifest.get("count") or 1) + 1
                    patch = {"count": count, "lastTimestamp": times.stamp(recorded.at)}
                    namespace = recorded.run.namespace
                    await self._cluster.patch("Event", namespace, recorded.name, patch)
            except Unavailable:
                if attempt == TRIES - 1:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return
