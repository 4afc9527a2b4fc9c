"""Which rows of an artifact are this pod's, when several pods make it together.

Rows are dealt out by a digest of their id, so every pod knows its own without asking another,
and a prompt's answers and translations are with one pod. The number of pods is in no key.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from selfimprove_pipeline.contract.environment import COMPLETION_INDEX, SHARDS
from selfimprove_pipeline.contract.errors import InputError


@dataclass(frozen=True)
class Share:
    """One of `count` equal shares of all ids."""

    number: int = 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether all rows are this pod's."""
        return self.count == 1

    def owns(self, identifier: str) -> bool:
        """Return whether a row belongs to this share."""
        digest = hashlib.sha256(identifier.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number


WHOLE: Final = Share()


def share_of(environment: Mapping[str, str]) -> Share:
    """Return the share that the environment tells of."""
    count = int(environment.get(SHARDS) or 1)
    if count == 1:
        return WHOLE
    number = int(environment.get(COMPLETION_INDEX) or -1)
    if not 0 <= number < count:
        expected = f"expected 0 to {count - 1} with {SHARDS}={count}"
        message = f"{COMPLETION_INDEX}: {expected}, found {number}"
        raise InputError(message)
    return Share(number, count)
