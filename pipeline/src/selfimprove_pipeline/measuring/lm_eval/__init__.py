"""Tasks of lm-eval (the LM Evaluation Harness), asked of our own engines.

`benchmarks` makes tasks ready, from a folder or from those that lm-eval brings. A task is worked
in two steps, so that its requests can go through the engine beside all others: `requests` finds
them, `result` lets lm-eval score what came back. The only importer of lm-eval, which is imported
where a task is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.rows import FinishReason
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.measuring.lm_eval.quiet import quiet
from selfimprove_pipeline.method.rendering import Renderer

PACKAGE: Final = "lm-eval"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One document of a task, what the model made of it and what that is worth."""

    id: str
    """id is the place of the document in its split, from 0."""
    prompt: str
    """prompt is the document's context; the whole text where that is what is scored."""
    completion: str
    """completion is the text that was written, or the likeliest option; empty where the text
    itself is scored."""
    finish_reason: FinishReason
    """finish_reason of what was written; `stop` where nothing was."""
    completion_tokens: int
    """completion_tokens that were written, 0 where prompts were scored."""
    score: float | None
    """score in the task's first metric; None where it has no value a document."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a model came to in a task."""

    samples: tuple[Sample, ...]
    """samples in the order of the documents."""
    metric: str
    """metric is `acc_norm` if the task has it, else the first that has a number a document."""
    measures: dict[str, float]
    """measures are the metrics over all documents and their standard errors (`acc_stderr`); a
    filter's name follows after a comma unless it is `none`."""
    results: dict[str, Any]
    """results in lm-eval's own format, without what a machine or a time adds."""


class Benchmark(Protocol):
    """One task of lm-eval, ready to be asked."""

    @property
    def name(self) -> str:
        """The task's name in lm-eval."""

    @property
    def fingerprint(self) -> str:
        """Digest of what decides requests and scores: task, code, documents, lm-eval's version."""

    def requests(self, renderer: Renderer, *, max_length: int, group: str) -> tuple[Request, ...]:
        """Return what is asked of a model, each request once, its key a digest of its content.

        `max_length` is the longest prompt that the engine can score: one token less than its
        `max_model_len`.
        """

    def result(
        self, renderer: Renderer, *, max_length: int, completions: Mapping[str, Completion]
    ) -> Outcome:
        """Return the scores of the completions of all `requests`, by their keys."""


def versions() -> dict[str, str]:
    """Return the version of lm-eval; an `InputError` tells where it is absent."""
    try:
        return {PACKAGE: metadata.version(PACKAGE)}
    except metadata.PackageNotFoundError as error:
        msg = (
            f"a suite of kind nlp: expected {PACKAGE}, which has its tasks, found none; "
            "install selfimprove[evaluation]"
        )
        raise InputError(msg) from error


def benchmarks(
    folder: Path | None,
    names: Sequence[str] = (),
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    chat_template: bool = False,
) -> tuple[Benchmark, ...]:
    """Return tasks of lm-eval by name, each once, in the order of their names.

    `folder` holds YAML files of tasks and what they name; a name that is not there is one of
    lm-eval's own. Groups and tags stand for their tasks; no names at all for all of the folder.
    `limit` takes the first documents of each task. `num_fewshot` overrules the task's own number
    unless that is 0. Each task that cannot be had raises `InputError`.
    """
    versions()
    # Imported here because lm-eval takes seconds, and most runs have no task of it.
    with quiet():
        from selfimprove_pipeline.measuring.lm_eval.folder import load  # noqa: PLC0415

    return load(folder, names, limit=limit, num_fewshot=num_fewshot, chat_template=chat_template)
