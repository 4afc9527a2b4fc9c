"""Training prompts that an evaluation suite has as well, exactly or nearly, in one language.

A score on prompts that a model was trained on tells what it remembers. Two prompts are the same
when they are equal after NFC, white space and case. They are nearly the same when the sets of
their character trigrams have a Jaccard similarity of at least .8, after NFKC and case, of letters,
marks and digits alone: without word boundaries, so that it works in every script. Each number
counts as one digit, because a word problem with other numbers is the same lesson. Texts with
fewer than 20 such characters are compared exactly alone: too many short questions are alike.

The search is exact: every row of a possible size is compared, as one number of many bits.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.text import matching

SIMILAR: Final = Fraction(4, 5)
"""Jaccard similarity from which on two prompts are nearly the same."""
SHINGLE: Final = 3
"""Characters of a shingle."""
FEWEST: Final = 20
"""Characters that a text needs to be compared beyond equality."""
NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True)
class Match:
    """A training prompt and the row of a suite that is most like it, by their ids."""

    prompt: str
    row: str
    similarity: float
    is_exact: bool


def matches(prompts: Sequence[Prompt], rows: Sequence[Prompt]) -> Iterator[Match]:
    """Yield a match for each prompt that is in the rows, exactly or nearly."""
    known = _Rows(rows)
    for prompt in prompts:
        found = known.match(prompt)
        if found is not None:
            yield found


class _Rows:
    """The rows of a suite in one language, ready to be searched."""

    def __init__(self, rows: Sequence[Prompt]) -> None:
        self._ids = [row.id for row in rows]
        self._exact: dict[str, str] = {}
        for row in rows:
            self._exact.setdefault(_same(row.prompt), row.id)
        sets = [_shingles(row.prompt) for row in rows]
        self._bit = {shingle: bit for bit, shingle in enumerate(sorted(set[str]().union(*sets)))}
        self._by_size = sorted(
            (len(found), place, self._bits(found)) for place, found in enumerate(sets)
        )
        self._sizes = [size for size, _, _ in self._by_size]

    def match(self, prompt: Prompt) -> Match | None:
        """Return the row that is most like a prompt, the first of several."""
        same = self._exact.get(_same(prompt.prompt))
        if same is not None:
            return Match(prompt.id, same, 1.0, is_exact=True)
        similar = self._similar(_shingles(prompt.prompt))
        if not similar:
            return None
        similarity, place = max(similar, key=lambda found: (found[0], -found[1]))
        return Match(prompt.id, self._ids[place], similarity, is_exact=False)

    def _similar(self, shingles: frozenset[str]) -> list[tuple[float, int]]:
        """Return similarity and place of the rows that are similar enough.

        Such a row has at least its share of the shingles, and so they of the row's.
        """
        size, (share, whole) = len(shingles), SIMILAR.as_integer_ratio()
        known = [shingle for shingle in shingles if shingle in self._bit]
        if not size or len(known) * whole < size * share:
            return []
        bits = self._bits(known)
        first = bisect_left(self._sizes, size * share / whole)
        last = bisect_right(self._sizes, size * whole / share)
        return [
            (common / (size + other - common), place)
            for other, place, row in self._by_size[first:last]
            if (common := (row & bits).bit_count()) * (share + whole) >= share * (size + other)
        ]

    def _bits(self, shingles: Iterable[str]) -> int:
        """Return a set as the bits of a number: of two, common members are counted at once."""
        made = bytearray(len(self._bit) // 8 + 1)
        for bit in map(self._bit.__getitem__, shingles):
            made[bit >> 3] |= 1 << (bit & 7)
        return int.from_bytes(made, "little")


def _same(text: str) -> str:
    return matching.normalized(text).casefold()


def _shingles(text: str) -> frozenset[str]:
    """Return the trigrams of a text, none of one that is too short."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_KEPT)
    plain = NUMBER.sub("0", folded)
    if len(plain) < FEWEST:
        return frozenset()
    return frozenset(plain[start : start + SHINGLE] for start in range(len(plain) - SHINGLE + 1))


class _Kept(dict[int, int | None]):
    """Keeps letters, marks and digits in `str.translate`, and forgets everything else."""

    def __missing__(self, code: int) -> int | None:
        kept = code if unicodedata.category(chr(code))[0] in "LMN" else None
        self[code] = kept
        return kept


_KEPT: Final = _Kept()
