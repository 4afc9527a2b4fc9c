"""Comparison of a listing with the informer cache, which shows that a watch has lost an event.

client-go relists when a watch breaks; a watch that only lost an event looks healthy. Either side
may be a little newer than the other, so a difference counts only once it has lasted for 60 s.
`Process` compares every 5 minutes, and again soon after a difference was found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from selfimprove_operator.cluster.door import Version

GRACE_SECONDS: Final = 60.0

Kind = Literal["missing", "stale", "gone"]
"""Not in the cache; there with an older version; only in the cache."""


@dataclass(frozen=True)
class Difference:
    """An object that is not the same in the listing and in the cache."""

    kind: Kind
    version: Version
    """version as listed, or as cached if the object is gone."""
    since: float
    """since is when the difference was first found, in seconds since the epoch."""


@dataclass(frozen=True)
class Compared:
    """The result of a comparison."""

    due: tuple[Difference, ...]
    """due are differences that have lasted for 60 s: the cache has to be corrected."""
    young: Mapping[str, Difference]
    """young are the others by uid, for the next comparison."""


def compare(
    listed: Mapping[str, Version],
    cached: Mapping[str, Version],
    *,
    young: Mapping[str, Difference],
    now: float,
) -> Compared:
    """Compare the objects of one kind by uid; `young` comes from the last comparison."""
    due: list[Difference] = []
    still_young: dict[str, Difference] = {}
    for uid in listed.keys() | cached.keys():
        difference = _difference(listed.get(uid), cached.get(uid), young.get(uid), now)
        if difference is None:
            continue
        if now - difference.since >= GRACE_SECONDS:
            due.append(difference)
        else:
            still_young[uid] = difference
    return Compared(tuple(due), still_young)


def _difference(
    listed: Version | None, cached: Version | None, before: Difference | None, now: float
) -> Difference | None:
    """Return how an object differs and since when, None if it does not."""
    if listed is None or cached is None:
        kind: Kind = "gone" if listed is None else "missing"
        version = listed or cached
        assert version is not None, "it is in one of them"  # noqa: S101
        return before if before and before.kind == kind else Difference(kind, version, now)
    # An object that changes all the time is stale only if the cache is behind what was listed
    # back then; the difference keeps its time as long as that is so.
    if before and before.kind == "stale" and _is_older(cached, before.version):
        return before
    return Difference("stale", listed, now) if _is_older(cached, listed) else None


def _is_older(one: Version, other: Version) -> bool:
    """Compare resource versions as integers, which Kubernetes allows for one object's versions."""
    return int(one.resource_version) < int(other.resource_version)
