"""Requests that score one token after the same text are found together, and none is lost."""

from collections.abc import Iterator, Sequence

from selfimprove_pipeline.engine import Request
from selfimprove_pipeline.engine.intake import take
from selfimprove_pipeline.engine.options import MOST_OPTIONS, by_context
from selfimprove_pipeline.run.shards import Share
from selfimprove_pipeline.workers.tasks.lm_eval import dealt_by


def option(text: int, token: int, *, scored: int = 1) -> Request:
    return Request(
        key=f"{text}/{token}", group="", prompt=(9, text, token), max_tokens=1, scored=scored
    )


def sizes(requests: Sequence[Request]) -> list[int]:
    """Return how many come together, all of them in their order."""
    found = [together for together in by_context(requests) if together]
    assert [request for together in found for request in together] == [*requests]
    return [len(together) for together in found]


def test_neighbours_after_the_same_text_come_together() -> None:
    """Another text ends them, and a request for a text or for several tokens comes alone."""
    several = [option(1, 1, scored=2), option(1, 2, scored=2)]
    written = [option(1, 1, scored=0), option(1, 2, scored=0)]
    some = [option(1, 1), option(1, 2), option(1, 3)]
    assert sizes([*some, option(2, 1), option(2, 2)]) == [3, 2]
    assert sizes([*some, *several, *some, *written]) == [3, 1, 1, 3, 1, 1]
    assert sizes([]) == []


def test_no_more_come_together_than_an_engine_tells_of() -> None:
    """What is left comes after them."""
    assert sizes([option(1, token) for token in range(MOST_OPTIONS + 2)]) == [MOST_OPTIONS, 2]


def test_a_pause_holds_nothing_back() -> None:
    """What came before it is handed on, and the giver is asked again when that may be done."""
    done: list[Request] = []

    def requests() -> Iterator[Request | None]:
        yield option(1, 1)
        yield option(1, 2)
        while not done:
            yield None
        yield option(1, 3)

    waiting = by_context(requests())
    assert take(waiting, under_way=0) == (option(1, 1), option(1, 2))
    assert take(waiting, under_way=1) is None
    assert take(waiting, under_way=1) is None
    done.append(option(1, 1))
    assert take(waiting, under_way=0) == (option(1, 3),)

    done.clear()
    waiting = by_context(requests())
    assert take(waiting, under_way=0) == (option(1, 1), option(1, 2))
    done.append(option(1, 1))  # at once, as where there is no room for them
    assert take(waiting, under_way=0) == (option(1, 3),)


def test_options_of_one_text_are_dealt_to_one_pod() -> None:
    """Every pod has texts; other requests are dealt out each for itself."""
    shares = [Share(number, 3) for number in range(3)]

    def pods(requests: Sequence[Request]) -> set[int]:
        return {one.number for one in shares for r in requests if one.owns(dealt_by(r))}

    texts = [[option(text, token) for token in range(4)] for text in range(20)]
    assert all(len(pods(options)) == 1 for options in texts)
    assert pods([options[0] for options in texts]) == {0, 1, 2}
    assert pods([option(1, token, scored=2) for token in range(20)]) == {0, 1, 2}
