"""One loop and N objects at once, in a namespace of its own: what `control_loop.py` repeats."""

import asyncio
import contextlib
import json
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kubernetes.aio.client import ApiClient, CustomObjectsApi
from kubernetes.aio.watch import Watch
from loops import Loop, Process, started

from selfimprove_operator.cluster.errors import Missing, Unavailable
from selfimprove_operator.cluster.transport import Call, Resource, Transport

JOBS: Final = Resource("batch/v1", "jobs")
PODS: Final = Resource("v1", "pods")
NAMESPACES: Final = Resource("v1", "namespaces")
BACKGROUND: Final = {"propagationPolicy": "Background"}
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
WARM: Final = [f"warm-{number}" for number in range(4)]
"""Objects before the others, which open everyone's connections."""
START_SECONDS: Final = 120
IDLE_SECONDS: Final = 30
LONGEST_SECONDS: Final = 900
QUIET_SHARE: Final = 0.05
"""Share of one core below which a loop counts as quiet."""
IDLE_SHARE: Final = 0.7
"""Share of the machine that is free before objects are created."""


@dataclass(frozen=True)
class Measured:
    """What one loop did with N objects at once; times in seconds, sizes in MiB."""

    loop: str
    runs: int
    accepted: float
    """accepted is the median of the create call itself."""
    p50: float
    p95: float
    max: float
    late: float
    """late is the 95th percentile of the delay with which this program woke up meanwhile."""
    calls: Mapping[str, float]
    """calls a run by verb and resource; empty where they are not counted."""
    cpu: float
    rss: float | None
    """rss is the memory with all N live; None where the process is not known."""
    peak: float | None


@dataclass
class Clock:
    """When what was sent, answered and launched, by the name of the object."""

    sent: dict[str, float] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)
    launched: dict[str, float] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)

    async def launches(self, namespace: str, version: str) -> None:
        """Note the first Job of each object, until cancelled."""
        async with ApiClient() as client:
            watch = Watch().stream(  # type: ignore[no-untyped-call]
                CustomObjectsApi(client).list_namespaced_custom_object,
                *("batch", "v1", namespace, "jobs"),
                resource_version=version,
                _headers={"Accept": METADATA},
            )
            async for event in watch:
                now = time.perf_counter()
                for owner in event["object"]["metadata"].get("ownerReferences", ()):
                    self.launched.setdefault(owner["name"], now)

    async def delays(self) -> None:
        """Note how much later than asked for this program wakes up, until cancelled."""
        while True:
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            self.late.append(time.perf_counter() - due)

    def waited(self, names: Iterable[str]) -> list[float]:
        """Return the times from sending objects to their Jobs, in order."""
        return sorted(self.launched[name] - self.sent[name] for name in names)


@dataclass(frozen=True)
class Trial:
    """A loop in a namespace."""

    transport: Transport
    loop: Loop
    namespace: str
    connections: int
    clock: Clock = field(default_factory=Clock)

    async def warm_up(self, process: Process) -> None:
        """Have the loop start, and open all connections."""
        await self.create(WARM)
        await until(lambda: len(self.clock.launched) == len(WARM), f"{self.loop.name} to start")
        await until(lambda: _is_quiet(process), f"{self.loop.name} to be quiet")
        try:
            await until(_is_idle, "most of this machine to be free", IDLE_SECONDS)
        except TimeoutError as error:
            print(f"{self.loop.name} is measured on a busy machine: {error}", file=sys.stderr)

    async def load(self, runs: int, process: Process) -> Measured:
        """Create all objects at once, and wait for their Jobs, their pods and rest."""
        calls, cpu = await process.calls(), process.cpu_seconds
        self.clock.late.clear()
        names = [f"run-{number:04}" for number in range(runs)]
        await self.create(names)
        all_of_them = runs + len(WARM)
        await until(lambda: len(self.clock.launched) >= all_of_them, "all Jobs", LONGEST_SECONDS)
        late, waited = sorted(self.clock.late), self.clock.waited(names)
        await until(lambda: self._has(PODS, all_of_them), "all pods", LONGEST_SECONDS)
        await until(lambda: _is_quiet(process), f"{self.loop.name} to be quiet", LONGEST_SECONDS)
        more = await process.calls()
        more.subtract(calls)
        accepted = [self.clock.answered[name] - self.clock.sent[name] for name in names]
        return Measured(
            loop=self.loop.name,
            runs=runs,
            accepted=statistics.median(accepted),
            p50=_at(waited, 0.5),
            p95=_at(waited, 0.95),
            max=waited[-1],
            late=_at(late, 0.95),
            calls={name: count / runs for name, count in sorted(more.items()) if count},
            cpu=process.cpu_seconds - cpu,
            rss=process.mib("VmRSS"),
            peak=process.mib("VmHWM"),
        )

    async def create(self, names: Sequence[str]) -> None:
        """Create objects from as many connections as there are."""
        slots = asyncio.Semaphore(self.connections)

        async def create(name: str) -> None:
            async with slots:
                body = self.loop.manifest(self.namespace, name)
                self.clock.sent[name] = time.perf_counter()
                call = Call("create", self.loop.resource, self.namespace, body=body)
                await self.transport.ask(call)
                self.clock.answered[name] = time.perf_counter()

        await asyncio.gather(*(create(name) for name in names))

    async def clean(self) -> None:
        """Delete everything in the namespace, then it, and wait until it is gone."""
        await until(self._is_deleted, "all objects to be deleted", LONGEST_SECONDS)
        await until(lambda: self._has_none(JOBS, PODS), "no Jobs and pods", LONGEST_SECONDS)
        await self.transport.ask(Call("delete", NAMESPACES, name=self.namespace, body=BACKGROUND))
        await until(self._is_gone, f"{self.namespace} to be gone", LONGEST_SECONDS)

    async def _is_deleted(self) -> bool:
        """Delete all objects; False where that took longer than a call may."""
        try:
            for resource in (self.loop.resource, JOBS, PODS):
                await self.transport.ask(Call("delete", resource, self.namespace, body=BACKGROUND))
        except Unavailable:
            return False
        return True

    async def _has(self, resource: Resource, number: int) -> bool:
        return await self._count(resource) >= number

    async def _has_none(self, *resources: Resource) -> bool:
        return not any([await self._count(resource) for resource in resources])

    async def _is_gone(self) -> bool:
        try:
            await self.transport.ask(Call("get", NAMESPACES, name=self.namespace))
        except Missing:
            return True
        return False

    async def _count(self, resource: Resource) -> int:
        """Return how many objects of a kind there are, at the price of one."""
        call = Call("list", resource, self.namespace, query={"limit": "1"})
        found = json.loads(await self.transport.ask(call))
        return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))


async def measure(transport: Transport, loop: Loop, runs: int, connections: int) -> Measured:
    """Measure a loop, and leave nothing behind."""
    trial = Trial(transport, loop, f"benchmark-{secrets.token_hex(4)}", connections)
    metadata = {"name": trial.namespace}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    await transport.ask(Call("create", NAMESPACES, body=body))
    try:
        async with started(loop, trial.namespace) as process, _watching(trial):
            await trial.warm_up(process)
            return await trial.load(runs, process)
    finally:
        await trial.clean()


async def until(
    holds: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = START_SECONDS
) -> None:
    """Wait for a condition; TimeoutError says for which."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > end:
            message = f"expected {what} within {seconds:.0f} s, found none"
            raise TimeoutError(message)
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _watching(trial: Trial) -> AsyncIterator[None]:
    """Keep the trial's clock running."""
    listed = json.loads(await trial.transport.ask(Call("list", JOBS, trial.namespace)))
    version = listed["metadata"]["resourceVersion"]
    tasks = [
        asyncio.create_task(trial.clock.launches(trial.namespace, version)),
        asyncio.create_task(trial.clock.delays()),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                print(f"the watch ended: {ended}", file=sys.stderr)


async def _is_quiet(process: Process) -> bool:
    """Return whether a process computes next to nothing for two seconds."""
    before = process.cpu_seconds
    await asyncio.sleep(2)
    return process.cpu_seconds - before < 2 * QUIET_SHARE


async def _is_idle() -> bool:
    """Return whether most of this machine is free for two seconds."""
    before = _ticks()
    await asyncio.sleep(2)
    idle, total = (after - earlier for after, earlier in zip(_ticks(), before, strict=True))
    return idle >= IDLE_SHARE * total


def _ticks() -> tuple[int, int]:
    """Return how long this machine was idle, and how long it was."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3], sum(ticks)


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
