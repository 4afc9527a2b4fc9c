"""One task of lm-eval: what it asks, what identifies it, and its scores as lm-eval has them."""

import contextlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.utils import set_torch_seed

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import digest
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.measuring.lm_eval import PACKAGE, Outcome, scores, versions
from selfimprove_pipeline.measuring.lm_eval.model import Answer, EngineLM
from selfimprove_pipeline.measuring.lm_eval.plain import code, plain
from selfimprove_pipeline.measuring.lm_eval.quiet import quiet
from selfimprove_pipeline.method.rendering import Renderer

BOOTSTRAP: Final = 1000
"""Draws for the standard error of a metric that has no formula for it; lm-eval's 100 000 would
take minutes. Those of means do not depend on it."""

KEPT: Final = (
    *("results", "group_subtasks", "configs", "versions"),
    *("n-shot", "higher_is_better", "n-samples"),
)
"""What of lm-eval's results tells neither of a machine nor of single documents."""

# lm-eval draws in a pool of processes, which a process with an engine must not fork.
os.environ.setdefault("DISABLE_MULTIPROC", "1")


@dataclass(frozen=True, kw_only=True)
class LoadedTask:
    """A task of lm-eval with its documents; a `Benchmark`."""

    name: str
    task: Task
    folder: Path | None
    """folder that the task's own paths are under, None of one that lm-eval brings."""
    limit: int | None
    chat_template: bool

    @cached_property
    def fingerprint(self) -> str:
        """Digest of what decides requests and scores, the same on every machine."""
        seed(self.task)
        with quiet():
            documents = (list(self.task.eval_docs), list(self.task.fewshot_docs() or ()))
        return digest(
            {
                "lmEval": versions(),
                "config": self._config,
                "version": self.task.VERSION,
                "code": code([type(self.task), self.task.config.to_dict(keep_callable=True)]),
                "documents": digest(json.loads(json.dumps(documents, default=str))),
                "limit": self.limit,
                "chatTemplate": self.chat_template,
            }
        )

    def requests(self, renderer: Renderer, *, max_length: int, group: str) -> tuple[Request, ...]:
        """Return each request once, found by a model that only takes note of them."""
        noted: dict[str, Request] = {}

        def note(requests: Sequence[Request]) -> Mapping[str, Completion]:
            noted.update((request.key, request) for request in requests)
            return {request.key: _blank(request) for request in requests}

        with self._named():
            self._ask(EngineLM(renderer, note, max_length=max_length, group=group))
        return tuple(noted.values())

    def result(
        self, renderer: Renderer, *, max_length: int, completions: Mapping[str, Completion]
    ) -> Outcome:
        """Return lm-eval's scores of the completions of all requests."""

        def known(_: Sequence[Request]) -> Mapping[str, Completion]:
            return completions

        with self._named():
            return self.evaluated(renderer, known, max_length=max_length)

    def evaluated(self, renderer: Renderer, answer: Answer, *, max_length: int) -> Outcome:
        """Return what lm-eval's own evaluator says of a model that `answer` speaks for."""
        seed(self.task)
        model = EngineLM(renderer, answer, max_length=max_length, group="")
        with quiet():
            found = evaluate(
                model,
                {"tasks": {self.name: self.task}, "groups": {}},
                limit=self.limit,
                bootstrap_iters=BOOTSTRAP,
                apply_chat_template=self.chat_template,
                fewshot_as_multiturn=self.chat_template,
            )
        results = {key: found[key] for key in KEPT}
        results["configs"] = {self.name: self._config}
        results["lm_eval_version"] = versions()[PACKAGE]
        return scores.outcome(
            found["samples"][self.name],
            model.written,
            found["results"][self.name],
            plain(results, self.folder),
        )

    @property
    def _config(self) -> Any:
        return plain(self.task.config.to_dict(keep_callable=True), self.folder)

    def _ask(self, model: EngineLM) -> None:
        """Put the task's requests to a model as lm-eval's evaluator does, and score nothing."""
        seed(self.task)
        with quiet():
            self.task.build_all_requests(
                limit=self.limit,
                apply_chat_template=self.chat_template,
                fewshot_as_multiturn=self.chat_template,
                chat_template=model.apply_chat_template if self.chat_template else None,
                tokenizer_name=model.tokenizer_name if self.chat_template else "",
            )
        by_type = defaultdict(list)
        for instance in self.task.instances:
            by_type[instance.request_type].extend([instance] * instance.repeats)
        for request_type, instances in by_type.items():
            getattr(model, request_type)(instances)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Put the task's name before what is wrong with it."""
        try:
            yield
        except InputError as error:
            msg = f"task {self.name}: {error}"
            raise InputError(msg) from error


def seed(task: Task | None = None) -> None:
    """Set the seeds that lm-eval sets before it makes a task and before it asks it."""
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)  # noqa: NPY002 - what tasks use is numpy's global generator
    set_torch_seed(DEFAULT_OTHER_SEED)
    if task is not None:
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _blank(request: Request) -> Completion:
    return Completion(
        key=request.key,
        text="",
        finish_reason="length",
        prompt_tokens=len(request.prompt),
        completion_tokens=0,
        log_likelihood=0.0,
        is_greedy=False,
    )
