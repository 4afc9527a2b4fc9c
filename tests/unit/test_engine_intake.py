"""Requests are taken one by one, and a giver that has none for now is asked again later."""

from collections.abc import Iterator

import pytest

from selfimprove_pipeline.engine import Request
from selfimprove_pipeline.engine.intake import Intake


def request(key: str) -> Request:
    return Request(key=key, group="", prompt=(1,), max_tokens=1)


def test_none_pauses_until_a_completion_has_been_taken() -> None:
    """A giver with nothing is not asked again before something has changed for it."""
    asked = 0

    def giver() -> Iterator[Request | None]:
        nonlocal asked
        for one in (request("a"), None, request("b"), None, None):
            asked += 1
            yield one

    intake = Intake(giver())
    first = intake.take(under_way=0)
    assert first is not None
    assert first.key == "a"
    assert [intake.take(under_way=1) for _ in range(3)] == [None] * 3
    assert asked == 2
    intake.resume()
    second = intake.take(under_way=0)
    assert second is not None
    assert second.key == "b"
    assert intake.take(under_way=1) is None
    intake.resume()
    assert intake.take(under_way=1) is None
    assert asked == 5
    intake.resume()
    assert intake.take(under_way=0) is None, "the giver has ended"


def test_waiting_for_nothing_is_a_mistake_of_the_giver() -> None:
    """None with nothing under way would wait for ever: it is told at once."""
    intake = Intake([None])
    with pytest.raises(RuntimeError, match="none is under way"):
        intake.take(under_way=0)
