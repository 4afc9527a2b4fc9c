"""Requests that are not made yet, and which of them goes next.

A `Wanted` is a few words where the request is a few thousand tokens, so all that is open can be
counted and ordered before anything is rendered. A `Queue` hands out the most urgent one: first
what others wait for, then what takes longest, since a long text that begins last runs alone.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from selfimprove_pipeline.engine import Request
from selfimprove_pipeline.measuring.judged.questions import Question
from selfimprove_pipeline.method.translate import Passage

Asked = Request | Passage | Question

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that can be made when there is room for it."""

    make: Callable[[], Asked]
    size: int = 0
    """size of the text that it is about, in characters: how long the completion may take."""
    leads: bool = False
    """leads says that other requests wait for its row."""


def ready(requests: Iterable[Asked]) -> Iterator[Wanted]:
    """Yield requests that cost nothing to make, as what they are."""
    for request in requests:
        yield Wanted(lambda request=request: request)  # type: ignore[misc]


def urgency(wanted: Wanted) -> tuple[bool, int]:
    """Return what is smallest for the request that goes first."""
    return (not wanted.leads, -wanted.size)


def as_they_come(_: Wanted) -> tuple[bool, int]:
    """Return the same for all, so that none is before one that came earlier."""
    return (False, 0)


class Queue(Generic[T]):
    """What is wanted, most urgent first; what is equally urgent goes in the order it came."""

    def __init__(self, urgency: Callable[[Wanted], tuple[bool, int]]) -> None:
        """Take what is smallest for the request that goes first."""
        self._urgency = urgency
        self._heap: list[tuple[tuple[bool, int], int, T, Wanted]] = []
        self._numbers: Final = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, owner: T, wanted: Wanted) -> None:
        """Add a request that somebody wants."""
        heapq.heappush(self._heap, (self._urgency(wanted), next(self._numbers), owner, wanted))

    def take(self) -> tuple[T, Wanted] | None:
        """Take the most urgent one and whose it is, None where nothing waits."""
        if not self._heap:
            return None
        _, _, owner, wanted = heapq.heappop(self._heap)
        return owner, wanted
