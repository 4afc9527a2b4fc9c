"""The sha256 of large objects met before, so that none is read twice only to be hashed.

An object is known by its location, size and version (`Entry`). The file is a memory and no
truth: one that cannot be read counts as empty and is written anew.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from selfimprove_pipeline.store import Entry
from selfimprove_pipeline.store.files import explained, replacing


class Digests:
    """A file of sha256 by object, shared by the processes of a machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self) -> dict[str, str]:
        """Return what is known, by `identity`."""
        try:
            content = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        is_whole = isinstance(content, dict) and all(
            isinstance(value, str) for value in content.values()
        )
        return content if is_whole else {}

    def add(self, digests: Mapping[str, str]) -> None:
        """Remember more, beside what other processes have added meanwhile."""
        with explained(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock"):
                content = json.dumps(self.known() | dict(digests), indent=1, sort_keys=True)
                with replacing(self._path) as partial:
                    partial.write_text(content)


def identity(location: str, entry: Entry) -> str:
    """Return how an object is known; `location` is its URI, or its path where it has one."""
    return f"{location} {entry.size} {entry.version}"
