"""How engines take requests one by one from a giver that may have none for now."""

from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def take(requests: Iterator[T | None], *, under_way: int) -> T | None:
    """Return the next request; None where there is none now, or no more.

    `under_way` are the requests whose completions are still to come. With none under way and none
    given nothing would ever change: that raises RuntimeError.
    """
    try:
        request = next(requests)
    except StopIteration:
        return None
    if request is None and not under_way:
        msg = "requests wait for a completion, and none is under way"
        raise RuntimeError(msg)
    return request
