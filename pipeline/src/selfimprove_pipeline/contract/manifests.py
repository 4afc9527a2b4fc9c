"""The manifests, indexes, names and digests of artifacts; `rows` has what stands in them.

An artifact is a folder `<prefix>/artifacts/<stage>/<key>/` with its files and, written last,
`manifest.json`. Times and package versions stand in the manifest, never in rows, so that equal
rows have equal digests.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from selfimprove_pipeline.contract.rows import Row, canonical

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
    """toolchain holds, by section of `keys.Toolchain`, what computes the iteration, as far as
    a process that has it was there."""


def timestamp() -> str:
    """Return the time now in UTC, RFC 3339, for a manifest's `created`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def digest_of(digests: Mapping[str, str]) -> str:
    """Return one digest of several named ones, such as those of a folder's files."""
    return digest(dict(digests))


def payload_digest(files: Iterable[File]) -> str:
    """Return the digest of an artifact from those of its payload files."""
    return digest_of({file.name: file.sha256 for file in files if file.is_payload})


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
