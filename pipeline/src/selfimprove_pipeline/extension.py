"""What packages with suites of their own import. It stays where it is; the rest may move.

A package names an `Extension` by an entry point of the group `selfimprove.suites`
(`docs/formats.md`). Its rows are `Prompt`s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from selfimprove_pipeline.contract.rows import Prompt

__all__ = ["Extension", "Prompt"]


class Extension(Protocol):
    """A kind of suite."""

    def read(
        self, uri: str, languages: Sequence[str], read_file: Callable[[str], bytes | None]
    ) -> Mapping[str, tuple[Prompt, ...]]:
        """Return the rows of each language, parallel by id.

        `read_file` returns the content of a URI, None where nothing is. What is wrong with a file
        is a ValueError, of one line.
        """

    def score(self, completion: str, row: Prompt, language: str) -> float | None:
        """Return what an answer is worth from 0 to 1, None where that cannot be told."""
