"""The rows, names and digests of artifacts: what the stages hand to each other.

An artifact is a folder `<prefix>/artifacts/<stage>/<key>/` with its files and, written last,
`manifest.json`. Rows are frozen models, one JSON object a line, in the order of the prompts.
Times and package versions stand in the manifest, never in rows, so that equal rows have
equal digests.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

CONTRACT = "1"
"""Version of rows and keys; a change of meaning raises it, and nothing old is reused."""

MANIFEST = "manifest.json"

INDEX = "index.json"

TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "*.jinja",
    "additional_chat_templates/*.jinja",
)
"""Patterns of the files of a model folder that make its tokenizer and its chat template."""

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


class File(Row):
    """One file of an artifact."""

    name: str
    size: int
    sha256: str
    is_payload: bool = True
    """isPayload files make the digest; the others (README, metrics, logs) do not."""


class Manifest(Row):
    """What an artifact is, from what it was made, and how it went. It is written last."""

    contract: str = CONTRACT
    stage: str
    part: str = ""
    """part is the language, the direction `<source>_<target>` or `<suite>.<language>`."""
    key: str
    digest: str
    """digest of the payload files."""
    files: tuple[File, ...]
    rows: int | None = None
    inputs: dict[str, str] = Field(default_factory=dict)
    """inputs by name, as the digests that went into the key."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """recipe holds the resolved values that went into the key."""
    versions: dict[str, str] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    drops: dict[str, dict[str, int]] = Field(default_factory=dict)
    """drops by language and reason."""
    measures: dict[str, float] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    """seconds: `wall` of the stage's work, `engineStart` of its share of an engine's start."""
    created: str = ""
    """created in UTC, RFC 3339."""


class Overlap(Row):
    """A training prompt that a suite has too, and the row of the suite that is most like it."""

    suite: str
    language: str
    prompt: str
    """prompt and row are ids."""
    row: str
    similarity: float
    """similarity is 1 also where only numbers, punctuation or white space differ."""
    is_exact: bool


class Overlaps(Row):
    """What the training prompts and the suites of a run have in common, in words."""

    inputs: str
    """inputs is the digest of the prompts and rows that were compared."""
    warnings: tuple[str, ...]
    """warnings are one for each suite and language."""


RunOutcome = Literal["Running", "Suspended", "Succeeded", "Failed"]

StopReason = Literal["NoPairs", "StoppedByGate"]


class Stop(Row):
    """Why a run has ended before its last iteration, or without its last model."""

    reason: StopReason
    message: str
    iteration: int
    """iteration at which it was decided."""
    final: int
    """final is the index of the model that the run has come to."""


class Index(Row):
    """What a run has: the keys of its artifacts by iteration and stage."""

    name: str
    outcome: RunOutcome
    message: str = ""
    recipe: dict[str, Any]
    """recipe is the resolved spec."""
    requested_revision: str | None = None
    """requestedRevision of an `hf://` model is what the file says: a branch, a tag or nothing."""
    model_revision: str | None = None
    """modelRevision is the commit that it was resolved to when the run began."""
    decided: dict[str, int | str] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """decided are the values of `training` that the file leaves open and the model's config
    decided when the run began, by name."""
    started: str = ""
    """started is when the latest start of the run began, in UTC, RFC 3339."""
    overlaps: Overlaps | None = None
    """overlaps of prompts and suites, None where there is nothing to compare."""
    stop: Stop | None = Field(default=None, exclude_if=lambda value: value is None)
    """stop says why the run has ended early, absent where it has not."""
    iterations: tuple["IterationIndex", ...] = ()

    @property
    def final(self) -> int:
        """The index of the model that the run has come to so far."""
        return self.stop.final if self.stop else len(self.iterations) - 1


class IterationIndex(Row):
    """The keys of one iteration: `keys[stage][part]`."""

    index: int
    model_uri: str
    model_digest: str
    keys: dict[str, dict[str, str]] = Field(default_factory=dict)
    finished: tuple[str, ...] = ()
    """finished are the stages of which every artifact is there."""
    computed: tuple[str, ...] = ()
    """computed are the keys that the latest start of the run computed; others were there."""
    begun: dict[str, dict[str, str]] = Field(default_factory=dict)
    """begun are keys, like `keys`, of what is not finished and of the reference pass: what else
    the run leaves in the bucket."""
    toolchain: dict[str, dict[str, str]] = Field(default_factory=dict)
    """toolchain holds, by section of `stages.Toolchain`, what computes the iteration, as far as
    a process that has it was there."""


RowT = TypeVar("RowT", bound=Row)


def timestamp() -> str:
    """Return the time now in UTC, RFC 3339, for a manifest's `created`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys, no spaces and no escapes: equal values give equal bytes."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def digest_of(digests: Mapping[str, str]) -> str:
    """Return one digest of several named ones, such as those of a folder's files."""
    return digest(dict(digests))


def payload_digest(files: Iterable[File]) -> str:
    """Return the digest of an artifact from those of its payload files."""
    return digest_of({file.name: file.sha256 for file in files if file.is_payload})


def lines(rows: Iterable[Row]) -> bytes:
    """Return rows as one JSONL file."""
    return b"".join(row.line() for row in rows)


def rows(kind: type[RowT], content: bytes) -> tuple[RowT, ...]:
    """Return the rows of a JSONL file."""
    return tuple(kind.of_line(line) for line in content.splitlines() if line.strip())


def artifact_prefix(bucket: str, prefix: str, stage: str, key: str) -> str:
    """Return the URI of an artifact's folder, with a slash at its end."""
    return _under(bucket, prefix, f"artifacts/{stage}/{key}/")


def index_uri(bucket: str, prefix: str, namespace: str | None, name: str) -> str:
    """Return the URI of a run's index."""
    return run_prefix(bucket, prefix, namespace, name) + INDEX


def run_prefix(bucket: str, prefix: str, namespace: str | None, name: str) -> str:
    """Return the URI of a run's own folder, with a slash at its end."""
    return f"{runs_prefix(bucket, prefix)}{namespace or 'local'}.{name}/"


def runs_prefix(bucket: str, prefix: str) -> str:
    """Return the URI of the folder of all runs, with a slash at its end."""
    return _under(bucket, prefix, "runs/")


def _under(bucket: str, prefix: str, rest: str) -> str:
    return f"s3://{bucket}/{prefix}/{rest}" if prefix else f"s3://{bucket}/{rest}"
