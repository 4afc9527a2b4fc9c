"""The requests of one `complete` call, taken as there is room for them.

The giver may have nothing until it has seen another completion, and says so with None. What
follows from that is kept here, for every engine that takes requests one by one.
"""

from collections.abc import Iterable

from selfimprove_pipeline.engine import Request


class Intake:
    """Takes one request after the other, and pauses where the giver has none for now."""

    def __init__(self, requests: Iterable[Request | None]) -> None:
        """Take nothing yet."""
        self._requests = iter(requests)
        self._is_paused = False

    def take(self, *, under_way: int) -> Request | None:
        """Return the next request; None where none is to be had now.

        `under_way` are the requests whose completions are still to come. Nothing under way and
        nothing to give would wait for ever: it raises RuntimeError.
        """
        if self._is_paused:
            return None
        try:
            request = next(self._requests)
        except StopIteration:
            return None
        if request is None and not under_way:
            msg = "requests wait for a completion, and none is under way"
            raise RuntimeError(msg)
        self._is_paused = request is None
        return request

    def resume(self) -> None:
        """Ask again: a completion has been taken."""
        self._is_paused = False
