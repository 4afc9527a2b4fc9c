"""The batches of an engine whose rows depend on the rows beside them."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Final, cast

from selfimprove_pipeline.engine import Request

BATCH_SIZE: Final = 64
"""Rows of a batch at most: part of every result."""


def batches(
    requests: Iterable[Request | None], size: int = BATCH_SIZE
) -> Iterator[tuple[Request, ...]]:
    """Yield the batches that requests are decoded in: consecutive ones of one kind, `size` at most.

    They follow from the requests alone, whoever completes them and when. None among the requests
    raises RuntimeError: a batch cannot wait for its own completions.
    """
    for _, alike in itertools.groupby(requests, key=_likeness):
        while batch := tuple(itertools.islice(alike, size)):
            yield cast("tuple[Request, ...]", batch)  # `_likeness` refuses None


def _likeness(request: Request | None) -> tuple[str, bool, float, float, float]:
    if request is None:
        msg = "an engine with fixed batches takes requests without a pause"
        raise RuntimeError(msg)
    how = (request.temperature, request.top_p, request.repetition_penalty)
    return (request.group, request.scored > 0, *how)
