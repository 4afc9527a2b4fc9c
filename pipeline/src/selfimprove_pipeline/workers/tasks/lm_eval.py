"""Tasks of lm-eval as one artifact of a model: asked of its engine, scored by lm-eval itself.

lm-eval first tells what it wants to know (`measuring.lm_eval`). The engine's replies are kept in
the store like all other rows, so that a kill costs only what runs; from all of them lm-eval makes
its results. The artifact has a row for each document, and `results.json` in lm-eval's own format.
"""

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Any, Final

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.manifests import digest
from selfimprove_pipeline.contract.recipe import Suite
from selfimprove_pipeline.contract.rows import Evaluated, Reply, lines
from selfimprove_pipeline.engine import Completion, Engine, Request
from selfimprove_pipeline.measuring import lm_eval
from selfimprove_pipeline.measuring.lm_eval import Benchmark, Outcome
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.shards import Share
from selfimprove_pipeline.workers.tasks import Made, Rows, Task
from selfimprove_pipeline.workers.tasks.shared import Bench
from selfimprove_pipeline.workers.tasks.wanted import Wanted, ready

FINGERPRINT_DIGITS: Final = 12
ROWS: Final = f"{keys.TASKS}.jsonl"


def task(bench: Bench, suite: Suite, target: Target, engine: Engine) -> Task[Reply]:
    """Return the task of all benchmarks of a suite."""
    found = _benchmarks(bench.setting, suite)
    max_length = engine.max_model_len - 1  # vLLM writes a token also where it only scores
    group = f"evaluate/{target.part}"
    asked = {
        request.key: request
        for benchmark in found
        for request in benchmark.requests(bench.renderer, max_length=max_length, group=group)
    }

    def pending(done: Rows[Reply], share: Share) -> Iterator[Wanted]:
        return ready(r for key, r in asked.items() if share.owns(dealt_by(r)) and key not in done)

    def versions() -> dict[str, str]:
        # What a key cannot have: of a task by name, what the hub had when it was run.
        told = {f"task {one.name}": one.fingerprint[:FINGERPRINT_DIGITS] for one in found}
        return {**bench.template(), **lm_eval.versions(), **told}

    def make(replies: Sequence[Reply]) -> Made:
        completions = {reply.id: _completion(reply) for reply in replies}
        outcomes = {
            benchmark.name: benchmark.result(
                bench.renderer, max_length=max_length, completions=completions
            )
            for benchmark in found
        }
        return _made(outcomes, replies)

    return Task(
        target=target,
        kind=Reply,
        order=list(asked),
        pending=pending,
        row=_reply,
        make=make,
        versions=versions,
    )


def dealt_by(request: Request) -> str:
    """Return what decides which pod a request goes to: options of one token go with their text."""
    return digest(request.context) if request.scored == 1 else request.key


def _benchmarks(setting: Setting, suite: Suite) -> tuple[Benchmark, ...]:
    return lm_eval.benchmarks(
        _folder(setting, suite),
        suite.tasks or (),
        limit=suite.limit,
        num_fewshot=suite.num_fewshot,
        chat_template=bool(suite.apply_chat_template),
    )


def _folder(setting: Setting, suite: Suite) -> Path | None:
    """Return a folder on this machine with a suite's files, None of a suite without any."""
    files = setting.tasks[suite.name]
    if not files:
        return None
    if outside := [name for name in files if _is_outside(PurePosixPath(name))]:
        message = f"{suite.uri}: expected names of files inside the folder, found {outside[0]}"
        raise InputError(message)
    folder = setting.cache / "tasks" / setting.suite_digests[suite.name, keys.TASKS]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(dir=folder.parent))
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        _put(made, folder)
    return folder


def _is_outside(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts


def _put(made: Path, folder: Path) -> None:
    """Give a folder its name; another process may have been faster."""
    try:
        made.rename(folder)
    except OSError:
        shutil.rmtree(made)


def _reply(completion: Completion, _: Rows[Reply]) -> Reply:
    return Reply(
        id=completion.key,
        log_likelihood=completion.log_likelihood,
        is_greedy=completion.is_greedy,
        text=completion.text,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
    )


def _completion(reply: Reply) -> Completion:
    return Completion(
        key=reply.id,
        text=reply.text,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        log_likelihood=reply.log_likelihood,
        is_greedy=reply.is_greedy,
    )


def _made(outcomes: Mapping[str, Outcome], replies: Sequence[Reply]) -> Made:
    """Return a row a document, lm-eval's results, and its measures as `<task>/<measure>`."""
    rows = [row for name, outcome in outcomes.items() for row in _rows(name, outcome)]
    measures = {
        f"{name}/{measure}": value
        for name, outcome in outcomes.items()
        for measure, value in {**outcome.measures, **_shown(outcome)}.items()
    }
    results = json.dumps(_merged(outcomes.values()), ensure_ascii=False, indent=2)
    return Made(
        files={ROWS: lines(rows)},
        side_files={keys.RESULTS: f"{results}\n".encode()},
        rows=len(rows),
        counts={"completionTokens": sum(reply.completion_tokens for reply in replies)},
        measures=measures,
    )


def _scores(outcome: Outcome) -> dict[str, float]:
    """Return the documents' scores by id, nothing of a task without such from 0 to 1."""
    scores = {sample.id: sample.score for sample in outcome.samples}
    known = {name: score for name, score in scores.items() if score is not None}
    return known if all(0 <= score <= 1 for score in known.values()) else {}


def _shown(outcome: Outcome) -> dict[str, float]:
    """Return the mean that tables show of a task, where it has one, and how many documents."""
    scores = list(_scores(outcome).values())
    mean = {"score": math.fsum(scores) / len(scores)} if scores else {}
    return {**mean, "n": len(outcome.samples)}


def _merged(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return the results of several tasks as lm-eval tells them of one start."""
    merged: dict[str, Any] = {}
    for outcome in outcomes:
        for section, told in outcome.results.items():
            is_by_task = isinstance(told, dict)
            merged[section] = {**merged.get(section, {}), **told} if is_by_task else told
    return merged


def _rows(name: str, outcome: Outcome) -> Iterator[Evaluated]:
    """Yield a task's documents as answers whose language is the task."""
    scores = _scores(outcome)
    for sample in outcome.samples:
        yield Evaluated(
            id=f"{name}/{sample.id}",
            language=name,
            prompt=sample.prompt,
            completion=sample.completion,
            finish_reason=sample.finish_reason,
            completion_tokens=sample.completion_tokens,
            score=scores.get(sample.id),
            identified=None,
            is_off_target=False,
            is_empty=not sample.completion.strip(),
            is_evasive=False,
        )
