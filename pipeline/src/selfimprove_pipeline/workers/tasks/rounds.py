"""One round of requests: handed to an engine as it takes them, until nothing is open.

Of an engine that takes requests in any order, a round also has what its own completions let be
asked: the translations of an answer, another attempt, the next turn. Elsewhere it has what was
open as it began, in that order, because a row's bytes may depend on the rows beside it.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfimprove_pipeline.contract.rows import Row
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.workers.tasks import Follower, Open
from selfimprove_pipeline.workers.tasks.wanted import Asked, Queue, Wanted, as_they_come, urgency


@dataclass
class Progress:
    """How far a worker is; a snapshot of it is what progress bars show."""

    stage: str
    total: int
    done: int = 0
    completion_tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens a second since the first request."""
        return self.completion_tokens / max(time.monotonic() - self.started, 1e-3)


class Round:
    """What goes to an engine, and what is made of what comes back."""

    def __init__(self, opened: Sequence[Open[Any]], *, is_open_ended: bool) -> None:
        """Take what is open; `is_open_ended` is a round that grows while it runs."""
        self._opened = opened
        self._is_open_ended = is_open_ended
        self._queue = Queue[int](urgency if is_open_ended else as_they_come)
        self._under_way = 0
        self._last = time.monotonic()
        self._progress: dict[str, Progress] = {}
        self._followers = {
            number: [
                (place, follower)
                for place, follower in enumerate(opened)
                if is_open_ended and follower.needs is one
            ]
            for number, one in enumerate(opened)
        }
        for number, one in enumerate(opened):
            for wanted in one.task.pending(one.rows, one.share):
                self._put(number, wanted)
                for _, follower in self._followers[number]:  # one request each, as far as is known
                    self._of(follower).total += 1

    def __bool__(self) -> bool:
        """Return whether anything is to be asked."""
        return bool(self._queue)

    def requests(self) -> Iterator[Asked | None]:
        """Yield requests, made as they are taken; None while only completions can open more."""
        while True:
            taken = self._queue.take()
            if taken is not None:
                number, wanted = taken
                self._under_way += 1
                self._opened[number].task.tally.requested += 1
                request = wanted.make()
                yield dataclasses.replace(request, key=f"{number}/{request.key}")
            elif self._is_open_ended and self._under_way:
                yield None
            else:
                return

    def take_in(self, completion: Completion) -> tuple[Open[Any], Progress]:
        """Keep the row of a completion; return whose it is and how far its stage is."""
        number, _, key = completion.key.partition("/")
        one = self._opened[int(number)]
        self._under_way -= 1
        row = one.add(dataclasses.replace(completion, key=key))
        progress = self._of(one)
        progress.done += 1
        progress.completion_tokens += completion.completion_tokens
        if self._is_open_ended:
            self._open_more(int(number), one, row)
        now = time.monotonic()
        one.task.tally.seconds, self._last = one.task.tally.seconds + now - self._last, now
        return one, progress

    def _open_more(self, number: int, one: Open[Any], row: Row) -> None:
        for wanted in one.task.opened(row, one.rows):
            self._put(number, wanted)
        for place, follower in self._followers[number]:
            self._of(follower).total -= 1
            for wanted in _heard(follower, row):
                self._put(place, wanted)

    def _put(self, number: int, wanted: Wanted) -> None:
        self._queue.put(number, wanted)
        self._of(self._opened[number]).total += 1

    def _of(self, one: Open[Any]) -> Progress:
        stage = one.task.target.stage
        if stage not in self._progress:
            self._progress[stage] = Progress(stage=stage, total=0)
        return self._progress[stage]


def opened_follower(follower: Follower[Any], needs: Open[Any]) -> Open[Any]:
    """Return a follower opened, told of the rows of its share that are there already."""
    one = Open(follower, needs.repository, needs.share, needs)
    for identifier, row in needs.rows.items():
        if needs.share.owns(identifier):
            _heard(one, row)
    return one


def _heard(follower: Open[Any], row: Row) -> Iterable[Wanted]:
    task = follower.task
    return task.heard(row, follower.rows) if isinstance(task, Follower) else ()
