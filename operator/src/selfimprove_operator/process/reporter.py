"""Kubernetes Events about runs, for the people who read `kubectl describe`.

Telling never fails and never waits: a task of its own posts what was told. The same thing told
again within 10 minutes only raises the count of its Event, also after a restart, since an
Event's name follows from its content. A run may tell 25 things at once, then one in 5 minutes.
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
from selfimprove_operator.decisions.actions import Tell
from selfimprove_operator.decisions.observed import Run

log = logging.getLogger(__name__)

WINDOW_SECONDS: Final = 600
BURST: Final = 25
REFILL_SECONDS: Final = 300.0
REMEMBERED: Final = 4096
"""Runs of which the allowance is remembered."""
PENDING: Final = 1000
"""Events that wait to be posted; what is told beyond them is dropped."""
TRIES: Final = 12
RETRY_SECONDS: Final = 10.0
LONGEST_MESSAGE: Final = 1024
PAUSE_SECONDS: Final = 0.05
"""Between two Events: of a thousand runs at once each starts before all have told of it."""


@dataclass(frozen=True)
class _Told:
    """One thing that was told, and when."""

    run: Run
    event: Tell
    at: float

    @property
    def name(self) -> str:
        """The Event's name: equal for the same thing in the same 10 minutes."""
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
class _Allowance:
    """What a run may still tell: a token bucket."""

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
    """Tells people what happens to runs; `post` has to run beside it."""

    def __init__(self, cluster: ClusterApi, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._pending: asyncio.Queue[_Told] = asyncio.Queue(PENDING)
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    def tell(self, run: Run, event: Tell) -> None:
        """Have an Event about a run posted, as far as the run's allowance goes."""
        told = _Told(run, event, self._clock())
        if not self._pending.full() and self._allowance(told).take(told.at):
            self._pending.put_nowait(told)

    async def post(self) -> None:
        """Post what is told until cancelled; what cannot be posted is dropped."""
        while True:
            told = await self._pending.get()
            try:
                await self._post(told)
            except ClusterError as error:
                log.info(
                    "an Event (%s) could not be posted: %s",
                    told.event.reason,
                    error,
                    extra={"namespace": told.run.namespace, "run": told.run.name},
                )
            self._pending.task_done()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _post(self, told: _Told) -> None:
        for attempt in range(TRIES):
            try:
                await self._create_or_count(told)
            except Unavailable:
                if attempt == TRIES - 1:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _create_or_count(self, told: _Told) -> None:
        created = await self._cluster.create(told.manifest)
        if not created.existed:
            return
        count = int(created.manifest.get("count") or 1) + 1
        patch = {"count": count, "lastTimestamp": times.stamp(told.at)}
        await self._cluster.patch("Event", told.run.namespace, told.name, patch)

    def _allowance(self, told: _Told) -> _Allowance:
        uid = told.run.uid
        allowance = self._allowances.pop(uid, None) or _Allowance(BURST, told.at)
        self._allowances[uid] = allowance
        if len(self._allowances) > REMEMBERED:
            self._allowances.popitem(last=False)
        return allowance
