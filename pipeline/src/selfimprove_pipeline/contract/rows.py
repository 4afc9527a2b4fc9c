"""The rows that the stages hand to each other.

Rows are frozen models, one JSON object a line, in the order of the prompts. Times and package
versions stand in the manifest, never in rows, so that equal rows have equal digests.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

FinishReason = Literal["stop", "length", "overlong"]
"""`stop`: the model ended its turn; `length`: the token limit did; `overlong`: the prompt did
not fit, there is no text."""


class Row(BaseModel):
    """What all rows share: frozen, camelCase, nothing unknown."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )

    def line(self) -> bytes:
        """Return the row as canonical JSON with a line feed."""
        return canonical(self.model_dump(mode="json", by_alias=True)) + b"\n"

    @classmethod
    def of_line(cls, line: str | bytes) -> Self:
        """Return the row that a line holds."""
        return cls.model_validate_json(line)


class Prompt(Row):
    """A prompt as the user gives it; parallel prompts share their id."""

    id: str
    prompt: str
    answer: str | None = None
    """answer is the gold answer; only the score stage, the suites and a filter of pairs read it."""
    follows: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """follows is the id of the prompt whose answer this one comes after, in one conversation."""
    reference: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """reference is a good answer that a judge may look at; no model sees it."""


class Answer(Row):
    """What the model answered to one prompt in one language."""

    id: str
    language: str
    completion: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class Translation(Row):
    """An answer of the source language in the target language, or the reason it has no text."""

    id: str
    source: str
    target: str
    text: str | None
    finish_reason: FinishReason
    error: str | None = None
    """error says why there is no text: `unclosed`, `truncated`, `overlong`, `noSource`."""
    attempts: int = 1
    prompt_tokens: int
    completion_tokens: int


class Ahead(Row):
    """A translation that was made before its answers were an artifact."""

    id: str
    answer: str
    """answer is the digest of the text that was translated."""
    translation: Translation


class Message(Row):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Pair(Row):
    """A preference pair in TRL's conversational format, with where it comes from."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    id: str
    language: str
    partner: str
    """partner is the other language of the translation that made this pair."""


class Drop(Row):
    """A row that did not become a pair, with its reason; texts as far as they exist."""

    id: str
    language: str
    partner: str
    reason: str
    chosen: str | None = None
    rejected: str | None = None


class ReferenceLogps(Row):
    """Summed log-probabilities of a pair's completions under the reference model M_t, in nats."""

    id: str
    language: str
    partner: str
    chosen: float
    rejected: float


class Grading(Row):
    """What a judge said of a pair's texts that stood in one order: grades from 0 to 10."""

    chosen: float | None
    """chosen and rejected are None when what was said holds no two grades."""
    rejected: float | None
    said: str
    prompt_tokens: int
    completion_tokens: int


class Score(Row):
    """What a pair's texts are worth: against gold answers 1 right, 0 wrong; to a judge 0 to 10."""

    id: str
    language: str
    partner: str
    chosen: float | None
    """chosen and rejected are None while a judge's answer is open or where it is malformed."""
    rejected: float | None
    first: Grading | None = Field(default=None, exclude_if=lambda value: value is None)
    """first is what the judge said with the chosen text in the first place."""
    second: Grading | None = Field(default=None, exclude_if=lambda value: value is None)
    """second is what the judge said with the chosen text in the second place."""

    @property
    def is_right(self) -> bool | None:
        """Whether the chosen text is the better one; None of a tie, and where it is not known."""
        if self.chosen is None or self.rejected is None or self.chosen == self.rejected:
            return None
        return self.chosen > self.rejected


class Evaluated(Row):
    """One answer of a suite and what was measured on it."""

    id: str
    language: str
    prompt: str
    completion: str
    finish_reason: FinishReason
    completion_tokens: int
    score: float | None
    """score is 1 right, 0 wrong; None when the suite has no gold answers."""
    extracted: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """extracted is the number that an answer to `mgsm` comes to; absent where there is none."""
    identified: str | None
    """identified is the language found in the completion; None when the text is too short or no
    detector knows it."""
    is_off_target: bool
    is_empty: bool
    is_evasive: bool


class GatedLanguage(Row):
    """Is a model worse than the one before in a language? The paired difference on one suite."""

    language: str
    decision: Literal["Passed", "Worse", "NotMeasured"]
    n: int = 0
    """n prompts that both models have answered."""
    change: float | None = None
    """change of the suite's score, or of the share in the right language where it has none."""
    low: float | None = None
    high: float | None = None
    """low and high are the bounds of the change's 95 % interval."""
    p: float | None = None
    """p of no change, corrected over the languages by Holm's method."""


class Ballot(Row):
    """What a judge said of two answers that stood in one order."""

    preference: float | None
    """preference for the model's answer from 0 to 1, None when what was said names neither."""
    said: str
    prompt_tokens: int
    completion_tokens: int


class Verdict(Row):
    """Is the model's answer to a prompt better than another one? Decided by rule or by a judge."""

    id: str
    language: str
    preference: float | None
    """preference for the model's answer from 0 to 1, .5 for a tie; None while a ballot is open
    or where one is malformed."""
    rule: Literal["identical", "wrongLanguage", "bothWrongLanguage"] | None = None
    """rule that decided without a question."""
    first: Ballot | None = None
    """first is the ballot with the model's answer in the first place."""
    second: Ballot | None = None
    """second is the ballot with the model's answer in the second place."""
    characters: int
    """characters of the model's answer."""
    opponent_characters: int


class Grade(Row):
    """How good is the model's answer to one turn of a conversation? From 0 to 10, by a judge."""

    id: str
    conversation: str
    """conversation is the id of its first turn."""
    language: str
    grade: float | None
    """grade from 0 to 10, None where what was said is none."""
    rule: Literal["wrongLanguage"] | None = None
    """rule that decided without a question."""
    said: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Reply(Row):
    """What a model replied to one request of lm-eval: the likelihood of a text, or a text."""

    id: str
    """id is the digest of what was asked."""
    log_likelihood: float | None
    is_greedy: bool | None
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


RowT = TypeVar("RowT", bound=Row)


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys, no spaces and no escapes: equal values give equal bytes."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def lines(rows: Iterable[Row]) -> bytes:
    """Return rows as one JSONL file."""
    return b"".join(row.line() for row in rows)


def rows(kind: type[RowT], content: bytes) -> tuple[RowT, ...]:
    """Return the rows of a JSONL file."""
    return tuple(kind.of_line(line) for line in content.splitlines() if line.strip())


@dataclass(frozen=True)
class Gamed:
    """A verdict on the references' own model when it was told to be short, or to be long."""

    preference: float
    """preference for its answer, from 0 to 1."""
    length: float
    """length of the reference minus that of its answer, in standard deviations."""
    difficulty: float


@dataclass(frozen=True, kw_only=True)
class Difficulties:
    """How hard the instructions of a suite are in one language."""

    by_id: Mapping[str, float]
    gamed: tuple[Gamed, ...] = ()
    """gamed verdicts keep the weight of the length near what it is for every model."""
