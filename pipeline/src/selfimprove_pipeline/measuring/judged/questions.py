"""What a judge is asked and what it says: two texts in one order, and the places they have.

`contests` asks which of two answers is better, `pairs` what each of them is worth; `external`
carries the questions to an endpoint.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from selfimprove_pipeline.contract.rows import Ballot, Grade, Grading, Message, Score, Verdict
from selfimprove_pipeline.engine import Completion

Place = Literal["first", "second"]
"""Where the text in question stands, the model's answer or the chosen text of a pair."""
PLACES: Final[tuple[Place, ...]] = ("first", "second")

MOST_SAID: Final = 200
"""Characters that are kept of what a judge said."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question to a judge."""

    key: str
    """key is `<place>:<id>`."""
    messages: tuple[Message, ...]
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class Opinion(Completion):
    """What a judge said to a question."""

    first_token: Mapping[str, float]
    """first_token holds the probabilities of the likeliest first tokens, nothing if the endpoint
    does not give them."""


def question(identifier: str, place: Place, content: str, max_tokens: int) -> Question:
    """Return a question about the texts of an id in one order."""
    message = Message(role="user", content=content)
    return Question(key=f"{place}:{identifier}", messages=(message,), max_tokens=max_tokens)


def said_of(row: Verdict | Score | Grade) -> tuple[Ballot | Grading | Grade, ...]:
    """Return the judge's answers that a row holds."""
    if isinstance(row, Grade):
        return () if row.rule else (row,)
    return tuple(one for one in (row.first, row.second) if one is not None)


def cost(said: Sequence[Ballot | Grading | Grade]) -> dict[str, int]:
    """Return how much was asked for some answers of a judge, as manifests count it."""
    return {
        "questions": len(said),
        "promptTokens": sum(one.prompt_tokens for one in said),
        "completionTokens": sum(one.completion_tokens for one in said),
    }


def opinion_of(completion: Completion) -> Opinion:
    """Return a completion as what it is when a judge was asked."""
    if not isinstance(completion, Opinion):
        message = f"expected an opinion of a judge, found {type(completion).__name__}"
        raise TypeError(message)
    return completion


def id_of(key: str) -> str:
    """Return the id of a question's key."""
    return key.partition(":")[2]


def place_of(key: str) -> str:
    """Return the place of a question's key."""
    return key.partition(":")[0]


def places(identifier: str, own: str, other: str, positions: str) -> tuple[Place, ...]:
    """Return where a text is to stand beside another one.

    A random place depends on the texts alone, so that the exchanged texts are the same question.
    """
    if positions == "both":
        return PLACES
    first, second = (
        hashlib.sha256(f"{identifier}\n{text}".encode()).digest() for text in (own, other)
    )
    return ("first",) if first < second else ("second",)
