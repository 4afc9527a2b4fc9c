"""From stored pairs to token rows: rendering, and counting the rows that are too long.

TRL would tokenise conversational rows itself and train a template's line feed after the end of
turn. Here the tokens come from `rendering.Renderer`, the same that generation uses. `plan` orders
the rows, `trainer` trains on them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from selfimprove_pipeline.contract.rows import Message, Pair

OVERLONG = "overlong"
NO_PAIRS = (
    "expected pairs to train on, found none: all candidates were dropped; see the reasons in "
    "drops.jsonl of the pair artifact, then change spec.pairing or the prompts"
)
"""The message for an empty file of pairs; worth a look before a training is started."""

Key = tuple[str, str, str]
"""A pair's id, language and partner; unique in an iteration."""


class Renders(Protocol):
    """What this module needs of `rendering.Renderer`."""

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> tuple[int, ...]:
        """Return the tokens up to where the assistant's turn begins."""

    def completion_ids(self, messages: Sequence[Message], completion: str) -> tuple[int, ...]:
        """Return the tokens of the assistant's turn, the last one its end-of-turn token."""


@dataclass(frozen=True)
class TokenRow:
    """One pair as tokens."""

    key: Key
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the longer side, prompt included."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    def tokens(self, *, with_rejected: bool) -> int:
        """Tokens of the chosen side or of both, the prompt in each."""
        chosen = len(self.prompt_ids) + len(self.chosen_ids)
        rejected = len(self.prompt_ids) + len(self.rejected_ids)
        return chosen + (rejected if with_rejected else 0)


@dataclass(frozen=True)
class Rows:
    """The rows to train on, and how many others there were by language and reason."""

    kept: tuple[TokenRow, ...]
    drops: dict[str, dict[str, int]]


def tokenize(pairs: Iterable[Pair], renderer: Renders, *, max_length: int) -> Rows:
    """Return the pairs as tokens; a row with a side over `max_length` tokens is a counted drop."""
    rows = [_row(pair, renderer) for pair in pairs]
    overlong = Counter(row.key[1] for row in rows if row.length > max_length)
    return Rows(
        kept=tuple(row for row in rows if row.length <= max_length),
        drops={language: {OVERLONG: count} for language, count in sorted(overlong.items())},
    )


def _row(pair: Pair, renderer: Renders) -> TokenRow:
    return TokenRow(
        key=(pair.id, pair.language, pair.partner),
        prompt_ids=renderer.prompt_ids(pair.prompt),
        chosen_ids=_completion(pair, pair.chosen, renderer),
        rejected_ids=_completion(pair, pair.rejected, renderer),
    )


def _completion(pair: Pair, side: Sequence[Message], renderer: Renders) -> tuple[int, ...]:
    (turn,) = side
    return renderer.completion_ids(pair.prompt, turn.content)
