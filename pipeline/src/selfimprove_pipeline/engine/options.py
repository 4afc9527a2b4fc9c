"""Requests that score one token each after the same text, put together.

An engine that has read the text knows what each token is worth there. Asked one by one, it would
read the text once for each: all the examples again for every option of a question.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from selfimprove_pipeline.engine import Request

MOST_OPTIONS: Final = 128
"""Options of one text at most, as many as vLLM tells of at once."""


def by_context(requests: Iterable[Request | None]) -> Iterator[tuple[Request, ...] | None]:
    """Yield requests in their order, neighbours that score one token after the same text together.

    All others come alone. None ends what is together, as nobody knows when there will be more.
    """
    held: list[Request] = []
    for request in requests:
        is_over = bool(held) and not (request and _fits(request, held))
        if is_over:
            yield tuple(held)
            held.clear()
        if request is None:
            # What was held may be done by now: whether there is more has to be asked again.
            if not is_over:
                yield None
        elif request.scored == 1:
            held.append(request)
        else:
            yield (request,)
    if held:
        yield tuple(held)


def _fits(request: Request, held: Sequence[Request]) -> bool:
    is_option = request.scored == 1 and len(held) < MOST_OPTIONS
    return is_option and request.context == held[0].context
