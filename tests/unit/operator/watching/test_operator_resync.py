"""Listings against the index: only what stays different is mended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove_operator.cluster.door import Version
from selfimprove_operator.watching.resync import Difference, compare


def objects(**versions: str) -> dict[str, Version]:
    return {uid: Version("default", f"name-{uid}", number) for uid, number in versions.items()}


@pytest.mark.parametrize(
    ("listed", "indexed", "kind"),
    [
        pytest.param({"a": "5"}, {}, "missing", id="the index lost an addition"),
        pytest.param({}, {"a": "5"}, "gone", id="the index lost a deletion"),
        pytest.param({"a": "5"}, {"a": "4"}, "stale", id="the index lost a change"),
        pytest.param({"a": "10"}, {"a": "9"}, "stale", id="versions are numbers, no texts"),
    ],
)
def test_a_difference_is_due_after_a_minute(
    listed: dict[str, str], indexed: dict[str, str], kind: str
) -> None:
    """What differs is remembered first, and due when it still differs 60 s later."""
    first = compare(objects(**listed), objects(**indexed), young={}, now=1000)
    second = compare(objects(**listed), objects(**indexed), young=first.young, now=1059)
    third = compare(objects(**listed), objects(**indexed), young=second.young, now=1060)

    assert (first.due, second.due) == ((), ())
    assert [(each.kind, each.since) for each in third.due] == [(kind, 1000)]
    assert third.young == {}


@pytest.mark.parametrize(
    ("listed", "indexed"),
    [
        pytest.param({"a": "5"}, {"a": "5"}, id="equal"),
        pytest.param({"a": "5"}, {"a": "6"}, id="the listing is the older one"),
        pytest.param({}, {}, id="nothing at all"),
    ],
)
def test_what_is_the_same_or_newer_in_the_index_is_no_difference(
    listed: dict[str, str], indexed: dict[str, str]
) -> None:
    """A listing from a server's cache may be behind the watches."""
    compared = compare(objects(**listed), objects(**indexed), young={}, now=1000)

    assert (compared.due, compared.young) == ((), {})


def test_a_busy_object_is_not_stale_while_the_index_follows_it() -> None:
    """An object that differs at every comparison, each time anew, is never due."""
    young = compare(objects(a="5"), objects(a="4"), young={}, now=1000).young
    later = compare(objects(a="9"), objects(a="8"), young=young, now=1060)

    assert later.due == ()
    assert [each.since for each in later.young.values()] == [1060]


def test_a_busy_object_that_the_index_lost_is_stale() -> None:
    """That the listing goes on while the index stands still does not make it young again."""
    young = compare(objects(a="5"), objects(a="4"), young={}, now=1000).young
    later = compare(objects(a="9"), objects(a="4"), young=young, now=1060)

    assert [(each.kind, each.since) for each in later.due] == [("stale", 1000)]


def test_a_difference_of_another_kind_is_a_new_one() -> None:
    """An object that was missing, came, and is gone now has not been different for long."""
    young = compare(objects(a="5"), {}, young={}, now=1000).young
    later = compare({}, objects(a="5"), young=young, now=1060)

    assert later.due == ()
    assert [(each.kind, each.since) for each in later.young.values()] == [("gone", 1060)]


versions = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5).map(str))


@given(versions, versions, st.integers(0, 200))
def test_every_difference_is_either_young_or_due(
    listed: dict[str, str], indexed: dict[str, str], seconds: int
) -> None:
    """Nothing is forgotten between two comparisons, and nothing due before its time."""
    left, right = objects(**listed), objects(**indexed)
    first = compare(left, right, young={}, now=0)
    second = compare(left, right, young=first.young, now=seconds)
    found: list[Difference] = [*second.due, *second.young.values()]

    assert sorted(each.version.name for each in found) == sorted(
        each.version.name for each in first.young.values()
    )
    assert bool(second.due) == (seconds >= 60 and bool(found))
