"""Which fields of a run may change after its start."""

from typing import Final

MUTABLE: Final = frozenset(
    {
        "suspend",
        "iterations",
        "deadlines",
        "retries",
        "ttlSecondsAfterFinished",
        "deletionPolicy",
        "pods",
    }
)
"""Fields of the spec, by the user's names, that do not change the models; `iterations` may only
grow."""
