"""A second implementation of `Engine`: texts by rule, requests one by one or in fixed batches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from selfimprove_pipeline.engine import Completion, Request

VERSIONS: Final[Mapping[str, str]] = {}


@dataclass
class Ruled:
    """Its text depends on the request alone, and every fifth first translation fails.

    It has at most `window` requests under way, of which any may finish first.
    """

    has_fixed_batches: bool = False
    engines: int = 1
    window: int = 4
    salt: str = ""
    """salt stands in the answers: those of an engine whose texts depend on its neighbours."""
    asked: list[Request] = field(default_factory=list)
    calls: int = 0
    idle: list[int] = field(default_factory=list)
    """idle has the number of requests under way whenever none was to be had for now."""
    start_seconds: float = 0.0
    max_model_len: int = 4096

    @property
    def versions(self) -> Mapping[str, str]:
        return VERSIONS

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        self.calls += 1
        waiting, luck = iter(requests), Random(0)
        under_way: list[Request] = []
        is_over = False
        while True:
            while not is_over and len(under_way) < self.window:
                try:
                    request = next(waiting)
                except StopIteration:
                    is_over = True
                    break
                if request is None:
                    assert under_way
                    assert not self.has_fixed_batches
                    self.idle.append(len(under_way))
                    break
                self.asked.append(request)
                under_way.append(request)
            if not under_way:
                return
            yield self._completion(under_way.pop(luck.randrange(len(under_way))))

    def close(self) -> None:
        """Hold nothing."""

    def _completion(self, request: Request) -> Completion:
        name = request.key.partition("/")[2]
        number = int(name[1:])
        is_translation = request.group.startswith("translate/")
        text = f"{self.salt}{request.group} {name} " * (1 + number % 3)
        fails = is_translation and number % 5 == 0 and request.temperature == 0
        return Completion(
            key=request.key,
            text="" if not is_translation and number % 7 == 6 else text,
            finish_reason="length" if fails else "stop",
            stop_text="</translated>" if is_translation and not fails else None,
            prompt_tokens=len(request.prompt),
            completion_tokens=number + 1,
        )
