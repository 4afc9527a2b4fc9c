"""Several engines behind one: each in a process of its own, on its own GPUs.

A process that ends gives back all of a GPU's memory, and a GPU's fault is not this process's. Each
engine has as many requests as keep it busy (`Child.window`), so a fast one takes more than a slow
one, and few requests are spread evenly. Options of one text go to the same engine, which reads it
once. Where a row's bytes depend on the rows beside it, engines get whole batches, the same that one
engine would make: the number of engines changes no byte.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from multiprocessing.connection import wait

from selfimprove_pipeline.contract.errors import SelfImproveError
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.engine.batches import batches
from selfimprove_pipeline.engine.intake import take
from selfimprove_pipeline.engine.options import by_context
from selfimprove_pipeline.engine.pool.children import COMMAND, Child
from selfimprove_pipeline.engine.pool.jobs import Job
from selfimprove_pipeline.engine.pool.messages import Ready


def start(
    job: Job, environments: Sequence[Mapping[str, str]], *, command: Sequence[str] = COMMAND
) -> "EnginePool":
    """Start an engine for each environment, and return when all are ready.

    All at once: what they compile they compile side by side, and a warm cache serves them all. One
    that fails ends the others.
    """
    children: list[Child] = []
    try:
        for number, environment in enumerate(environments):
            children.append(Child(number, job, environment, command))
        return EnginePool(children, _all_ready(children))
    except BaseException:
        for child in children:
            child.end(0)
        raise


def _all_ready(children: Sequence[Child]) -> tuple[Ready, ...]:
    """Return what engines say of themselves; the first failure is raised at once."""
    told: dict[Child, Ready] = {}
    while starting := [child for child in children if child not in told]:
        told |= {child: child.ready() for child in _speaking(starting)}
    return tuple(told.values())


def _speaking(children: Sequence[Child]) -> list[Child]:
    """Wait until one of the engines says something or ends; return all that do."""
    found = wait([child.connection for child in children])
    return [child for child in children if child.connection in found]


class EnginePool:
    """Started engines that hold the same model; one `complete` at a time."""

    def __init__(self, children: Sequence[Child], told: Sequence[Ready]) -> None:
        """Take over engines that are ready; `told` is what they said."""
        self._children = list(children)
        self._first = told[0]
        self._start_seconds = max(ready.start_seconds for ready in told)
        self._numbers = count()
        same = {(*sorted(r.versions.items()), r.max_model_len, r.has_fixed_batches) for r in told}
        if len(same) > 1:
            found = " and ".join(str(sorted(ready.versions.items())) for ready in told)
            msg = f"expected equal engines in one pool, found {found}; give them one image"
            raise SelfImproveError(msg)

    @property
    def start_seconds(self) -> float:
        """Seconds that the slowest start took."""
        return self._start_seconds

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that determine the output, equal in all engines."""
        return self._first.versions

    @property
    def max_model_len(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self._first.max_model_len

    @property
    def has_fixed_batches(self) -> bool:
        """What its engines say."""
        return self._first.has_fixed_batches

    @property
    def engines(self) -> int:
        """How many there are."""
        return len(self._children)

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Yield completions as they come; requests are taken as an engine has room for them.

        An engine that ends raises: TryAgainError where another start may help. What nobody waits
        for any more is given up.
        """
        parcels: Iterator[tuple[Request, ...] | None] = (
            batches(requests) if self.has_fixed_batches else by_context(requests)
        )
        keys: dict[str, str] = {}
        try:
            while True:
                while (child := self._next()) and (parcel := take(parcels, under_way=len(keys))):
                    numbered = {str(next(self._numbers)): request for request in parcel}
                    keys |= {number: request.key for number, request in numbered.items()}
                    child.give(tuple(replace(r, key=number) for number, r in numbered.items()))
                if not keys:
                    return
                for child in _speaking(self._children):
                    for completion in child.done().completions:
                        key = keys.pop(completion.key, None)
                        if key is not None:  # else it is an earlier call's, forgotten too late
                            child.under_way -= 1
                            yield replace(completion, key=key)
        finally:
            if keys:
                for child in self._children:
                    child.forget()

    def close(self) -> None:
        """End all engines and their processes; more than once is fine."""
        for child in self._children:
            child.dismiss()
        for child in self._children:
            child.end()

    def _next(self) -> Child | None:
        """Return the engine with the fewest requests, None when each has enough."""
        with_room = [child for child in self._children if child.has_room]
        return min(with_room, key=lambda child: child.under_way, default=None)
