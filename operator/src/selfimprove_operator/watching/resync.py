"""What a listing says that the index does not: a watch that lost something shows here.

Both change all the time and neither is the newer one, so that a difference counts only when it
has stood for 60 s. The loop compares every 5 minutes, and once more when something differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from selfimprove_operator.cluster.door import Version

GRACE_SECONDS: Final = 60.0

Kind = Literal["missing", "stale", "gone"]
"""Not in the index; in it with an older version; in it alone."""


@dataclass(frozen=True)
class Difference:
    """An object of which listing and index say different things."""

    kind: Kind
    version: Version
    """version as listed; as indexed where it is gone."""
    since: float
    """since when it has been seen, in seconds since the epoch."""


@dataclass(frozen=True)
class Compared:
    """What a comparison came to."""

    due: tuple[Difference, ...]
    """due are differences of 60 s and more: the index has to be mended."""
    young: Mapping[str, Difference]
    """young are the others by uid, to be given to the next comparison."""


def compare(
    listed: Mapping[str, Version],
    indexed: Mapping[str, Version],
    *,
    young: Mapping[str, Difference],
    now: float,
) -> Compared:
    """Compare the objects of one kind by uid; `young` is what the last comparison left."""
    found: dict[str, Difference] = {}
    for uid in listed.keys() | indexed.keys():
        difference = _difference(listed.get(uid), indexed.get(uid), young.get(uid), now)
        if difference is not None:
            found[uid] = difference
    is_due = {uid: now - each.since >= GRACE_SECONDS for uid, each in found.items()}
    return Compared(
        due=tuple(each for uid, each in found.items() if is_due[uid]),
        young={uid: each for uid, each in found.items() if not is_due[uid]},
    )


def _difference(
    listed: Version | None, indexed: Version | None, before: Difference | None, now: float
) -> Difference | None:
    """Return how an object differs, and since when it does."""
    if listed is None or indexed is None:
        kind: Kind = "gone" if listed is None else "missing"
        version = listed or indexed
        assert version is not None, "one of them has it"  # noqa: S101
        return before if before and before.kind == kind else Difference(kind, version, now)
    if before and before.kind == "stale" and _is_older(indexed, before.version):
        return before
    return Difference("stale", listed, now) if _is_older(indexed, listed) else None


def _is_older(one: Version, other: Version) -> bool:
    """Compare versions of one object; they are numbers that grow (Kubernetes says so)."""
    return int(one.resource_version) < int(other.resource_version)
