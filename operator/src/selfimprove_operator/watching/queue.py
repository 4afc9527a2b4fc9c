"""The work queue: the keys of runs to reconcile, as client-go's rate-limiting work queue.

Watch events, timers and the loop itself add keys. A key is in the queue at most once, and only one
worker at a time has it. A key that is added while its run is being reconciled is reconciled again
afterwards. A reconcile that fails is retried after 1 s, doubling to 60 s, whatever is added
meanwhile.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

from selfimprove_operator.cluster.errors import ClusterError

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name of a run."""
Reconcile = Callable[[Key], Awaitable[float | None]]
"""Reconciles one run; returns the seconds after which to do it again, None for not at all."""
Done = Callable[[float, bool], None]
"""Receives the duration of a reconcile in seconds, and whether it succeeded."""

FIRST_BACK_OFF_SECONDS: Final = 1.0
LONGEST_BACK_OFF_SECONDS: Final = 60.0
BURST_SECONDS: Final = 0.25
"""New runs that follow each other within this time are one burst."""
LONGEST_HOLD_SECONDS: Final = 5.0
"""Time for which a burst may hold back a run that is not new."""


class Queue:
    """Keys in the order in which they were added, and timers for later ones.

    New runs go first. While a burst of them arrives, others wait for up to 5 s each: of a thousand
    runs applied at once, all are started before requests are spent on the status of the first.
    """

    def __init__(self, reconcile: Reconcile, done: Done) -> None:
        self._reconcile = reconcile
        self._done = done
        self._ready: asyncio.PriorityQueue[tuple[bool, int, Key]] = asyncio.PriorityQueue()
        self._count = itertools.count()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._held: dict[Key, float] = {}
        """held is since when a burst holds back a run."""
        self._newest = -math.inf

    @property
    def depth(self) -> int:
        """How many runs wait for a worker."""
        return self._ready.qsize()

    def add(self, key: Key, *, is_new: bool = False) -> None:
        """Have a run reconciled as soon as a worker is free, a new one before all others."""
        now = asyncio.get_running_loop().time()
        if is_new:
            self._newest = now
        if key in self._running:
            self._again.add(key)
            return
        if key in self._waiting:
            return
        if not is_new:
            left = self._newest + BURST_SECONDS - now
            if left > 0 and now < self._held.setdefault(key, now) + LONGEST_HOLD_SECONDS:
                self.add_after(key, left)
                return
            self._held.pop(key, None)
        self._waiting.add(key)
        self._ready.put_nowait((not is_new, next(self._count), key))

    def add_after(self, key: Key, seconds: float) -> None:
        """Have a run reconciled after some seconds, or at an earlier time that was set before."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(seconds, 0.0)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    async def work(self, workers: int) -> None:
        """Reconcile runs, several at a time, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            _, _, key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
            started = loop.time()
            is_success = True
            try:
                seconds = await self._reconcile(key)
            except Exception as error:  # noqa: BLE001  one run's failure must not stop the others
                self._fail(key, error)
                is_success = False
            else:
                self._failures.pop(key, None)
                if seconds is not None:
                    self.add_after(key, seconds)
            self._done(loop.time() - started, is_success)
            self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _fail(self, key: Key, error: Exception) -> None:
        """Retry a run after its back-off, and log the error, with a traceback if it is a bug."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = min(FIRST_BACK_OFF_SECONDS * 2 ** min(failures - 1, 10), LONGEST_BACK_OFF_SECONDS)
        self._again.discard(key)
        self.add_after(key, seconds)
        is_expected = isinstance(error, ClusterError)
        log.log(
            logging.WARNING if is_expected else logging.ERROR,
            "reconcile failed, retrying in %g s: %s",
            seconds,
            error,
            exc_info=None if is_expected else error,
            extra={"namespace": key[0], "run": key[1]},
        )
