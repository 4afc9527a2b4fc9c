"""A queue of runs to look at: each at most once in it, and by at most one worker at a time.

Watch events, timers and the loop itself put keys in; the workers call `loop`. What is put in
while its run is being looked at is looked at again. A look that fails is repeated after 1 s,
doubling to 60 s; what was asked for during a failing look waits as long.
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
Look = Callable[[Key], Awaitable[float | None]]
"""Looks at one run; returns the seconds after which to look again, None for no need to."""
Done = Callable[[float, bool], None]
"""Is told how long a look took, in seconds, and whether it went well."""

FIRST_BACK_OFF_SECONDS: Final = 1.0
LONGEST_BACK_OFF_SECONDS: Final = 60.0
BURST_SECONDS: Final = 0.25
"""New runs belong together while each follows the last one within this time."""
LONGEST_HOLD_SECONDS: Final = 5.0


class Queue:
    """Keys in the order in which they were first put in, and timers for later ones.

    New runs go first: while they arrive the others wait, at most 5 s each, so that of a thousand
    at once each starts before the server is asked to note how the first ones fare.
    """

    def __init__(self, look: Look, done: Done) -> None:
        self._look = look
        self._done = done
        self._ready: asyncio.PriorityQueue[tuple[bool, int, Key]] = asyncio.PriorityQueue()
        self._count = itertools.count()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._held: dict[Key, float] = {}
        self._newest = -math.inf

    @property
    def depth(self) -> int:
        """How many runs wait for a worker."""
        return self._ready.qsize()

    def add(self, key: Key, *, is_new: bool = False) -> None:
        """Have a run looked at as soon as a worker is free, a new one before all others."""
        if is_new:
            self._newest = asyncio.get_running_loop().time()
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting and (is_new or not self._is_held(key)):
            self._waiting.add(key)
            self._ready.put_nowait((not is_new, next(self._count), key))

    def add_after(self, key: Key, seconds: float) -> None:
        """Have a run looked at after some seconds, or earlier if that was asked for before."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(seconds, 0.0)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    async def work(self, workers: int) -> None:
        """Look at runs, several at a time, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    def _is_held(self, key: Key) -> bool:
        """Put a run off while new ones arrive, if it was not put off long enough."""
        now = asyncio.get_running_loop().time()
        left = self._newest + BURST_SECONDS - now
        if left <= 0 or now >= self._held.setdefault(key, now) + LONGEST_HOLD_SECONDS:
            self._held.pop(key, None)
            return False
        self.add_after(key, left)
        return True

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    async def _work(self) -> None:
        while True:
            _, _, key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
            started = asyncio.get_running_loop().time()
            is_good = await self._look_at(key)
            self._done(asyncio.get_running_loop().time() - started, is_good)
            self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _look_at(self, key: Key) -> bool:
        """Look at one run; return whether that went well."""
        try:
            seconds = await self._look(key)
        except Exception as error:  # noqa: BLE001  one run's failure must not stop the others
            self._fail(key, error)
            return False
        self._failures.pop(key, None)
        if seconds is not None:
            self.add_after(key, seconds)
        return True

    def _fail(self, key: Key, error: Exception) -> None:
        """Put a run off; a defect of ours keeps its traceback."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = min(FIRST_BACK_OFF_SECONDS * 2 ** min(failures - 1, 10), LONGEST_BACK_OFF_SECONDS)
        self._again.discard(key)
        self.add_after(key, seconds)
        known = isinstance(error, ClusterError)
        log.log(
            logging.WARNING if known else logging.ERROR,
            "looked at the run in vain, again in %g s: %s",
            seconds,
            error,
            exc_info=None if known else error,
            extra={"namespace": key[0], "run": key[1]},
        )
