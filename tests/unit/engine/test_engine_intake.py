"""Requests are taken one by one, and a giver that has none for now is asked again later."""

import pytest

from selfimprove_pipeline.engine.intake import take


def test_a_giver_may_have_nothing_until_something_is_done() -> None:
    """None is no end: what comes after it is taken like everything else."""
    requests = iter(["a", None, "b"])
    assert take(requests, under_way=0) == "a"
    assert take(requests, under_way=1) is None
    assert take(requests, under_way=0) == "b"
    assert take(requests, under_way=0) is None, "the giver has ended"


def test_waiting_for_nothing_is_a_mistake_of_the_giver() -> None:
    """None with nothing under way would wait for ever: it is told at once."""
    with pytest.raises(RuntimeError, match="none is under way"):
        take(iter([None]), under_way=0)
