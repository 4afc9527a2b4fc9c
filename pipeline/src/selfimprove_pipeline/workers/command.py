"""`selfimprove worker NAME`: one worker of one iteration, as the runner and pods start it.

Both start the very same process with the same environment, so both come to the same bytes. A
pod adds what nobody beside it could know: it notes in the run's index and tells its outcome.
"""

import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from selfimprove_pipeline import artifacts, devices, ledger, local, machine, outcome, pod, show
from selfimprove_pipeline.chat import Renderer
from selfimprove_pipeline.engine import Engine
from selfimprove_pipeline.errors import InputError, SelfImproveError, error_of
from selfimprove_pipeline.events import Emitter
from selfimprove_pipeline.outcome import Outcome
from selfimprove_pipeline.recipe import Stage
from selfimprove_pipeline.report import publish
from selfimprove_pipeline.train import launch, nodes
from selfimprove_pipeline.workers import check, delete, inference, light, training
from selfimprove_pipeline.workers.setting import Model, Setting
from selfimprove_pipeline.workers.survey import are_finished

STAGES: Final[Mapping[str, tuple[Stage, ...]]] = dict(local.WORKERS)
"""Stages of the workers of an iteration."""

TERMINATED_FROM: Final = 128
"""Exit codes above this one are 128 + the signal that ended the process."""


def run(arguments: Namespace, emitter: Emitter) -> int:
    """Do one worker's work and return its exit code; its error is told as an event."""
    try:
        made = _work(arguments, emitter)
    except SelfImproveError as error:
        emitter.emit("error", message=str(error))
        pod.failed(error)
        return error.exit_code
    except Exception as error:
        pod.failed(error)
        raise
    if made is not None:
        pod.succeeded(made, emitter)
    return 0


def rank(arguments: Namespace, emitter: Emitter) -> None:
    """Train as one rank of several."""
    setting = _equipped(machine.setting_of(arguments), arguments)
    model = ledger.model_at(setting, arguments.iteration)
    training.work(setting, arguments.iteration, model, arguments.scratch, emitter.progress)


def _work(arguments: Namespace, emitter: Emitter) -> Outcome | None:
    """Return what a worker came to; None for one that nobody but the local runner watches."""
    match arguments.worker:
        case "check":
            return _check(machine.setting_of(arguments), arguments.iteration)
        case "report":
            return _report(machine.setting_of(arguments), arguments.iteration)
        case "delete":
            return _delete(arguments, emitter)
    setting = _equipped(machine.setting_of(arguments), arguments)
    if not pod.is_here():
        _stages(arguments, setting, emitter)
        return None
    try:
        return _in_pod(arguments, setting, emitter)
    except InputError as error:
        with suppress(SelfImproveError):  # the error that ended the work is the one to tell
            pod.note_failure(setting, error)
        raise


def _equipped(setting: Setting, arguments: Namespace) -> Setting:
    if not pod.is_here():
        return setting
    return pod.equipped(setting, arguments.worker, arguments.iteration)


def _in_pod(arguments: Namespace, setting: Setting, emitter: Emitter) -> Outcome:
    """Do what is missing of a pod's stages; finished ones are told without opening the model."""
    index, names = arguments.iteration, _names(arguments)
    model = ledger.noted_model(setting, index)
    found = None if model is None else pod.note(setting, index, model)
    if model is None or found is None or not are_finished(found, names):
        model = _model(arguments.worker, setting, index)
        pod.note(setting, index, model)
        _stages(arguments, setting, emitter)
        found = pod.note(setting, index, model)
    local.expect_finished(found, names, f"the {arguments.worker} worker of iteration {index}")
    return pod.outcome_of(setting, index, model, found, names)


def _stages(arguments: Namespace, setting: Setting, emitter: Emitter) -> None:
    """Do what is missing of a worker's stages; rows and progress go to store and output."""
    index, names = arguments.iteration, _names(arguments)
    model = _model(arguments.worker, setting, index)
    match arguments.worker:
        case "inference":
            inference.work(setting, index, model, starter(setting), emitter.progress, names=names)
        case "light":
            light.work(setting, index, model, names=names)
        case "training":
            training.check(setting, index, model)
            _launch(setting)


def _model(worker: str, setting: Setting, index: int) -> Model:
    """Return M_index; a light worker, which opens no model, takes it as the index has it."""
    noted = ledger.noted_model(setting, index) if worker == "light" else None
    return noted or ledger.model_at(setting, index)


def _names(arguments: Namespace) -> tuple[Stage, ...]:
    """Return the stages that are asked for, in their order."""
    all_names = STAGES[arguments.worker]
    asked = arguments.stages or all_names
    if unknown := [name for name in asked if name not in all_names]:
        message = f"--stages: expected some of {', '.join(all_names)}, found {', '.join(unknown)}"
        raise InputError(message)
    return tuple(name for name in all_names if name in asked)


def _check(setting: Setting, index: int) -> Outcome:
    found = check.work(setting)
    pod.begin(setting)
    return Outcome(digest=artifacts.digest_of(found), iteration=index)


def _report(setting: Setting, index: int) -> Outcome:
    """Tell the run's outcome in the index, then publish what it has come to."""
    metadata = setting.run.metadata
    noted = pod.end(setting)
    digests = publish.publish(setting.repository, metadata.namespace, metadata.name)
    entries = {entry.index: entry for entry in noted.iterations}
    found = {
        name: show.manifests_of(name, entries[index], setting.repository)
        for name in show.NAMES
        if index in entries
    }
    languages = tuple(outcome.by_language(setting.spec, found))
    return Outcome(artifacts.digest_of(digests), index, languages=languages)


def _delete(arguments: Namespace, emitter: Emitter) -> Outcome:
    repository, metadata = machine.place_of(arguments)

    def tell(stage: str, key: str, objects: int) -> None:
        emitter.emit("removed", stage=stage, key=key, objects=objects)

    removed = delete.work(repository, metadata.namespace, metadata.name, tell)
    totals = {
        "artifacts": len(removed.keys),
        "kept": len(removed.kept),
        "objects": removed.objects,
    }
    return Outcome(removed.digest, arguments.iteration, totals=totals)


def starter(setting: Setting) -> Callable[[Path, Renderer], Engine]:
    """Return how the run's engine is started on a model's folder."""
    return _start_vllm(setting) if setting.engine == "vllm" else _start_transformers(setting)


def _start_vllm(setting: Setting) -> Callable[[Path, Renderer], Engine]:
    from selfimprove_pipeline.engine import vllm_engine  # noqa: PLC0415  heavy

    spec = setting.spec
    return lambda folder, renderer: vllm_engine.start(
        folder,
        inference=spec.inference,
        dtype=spec.inference.dtype or spec.model.dtype,
        stop_token_ids=renderer.end_of_turn_ids,
        seed=spec.generation.seed,
    )


def _start_transformers(setting: Setting) -> Callable[[Path, Renderer], Engine]:
    from selfimprove_pipeline.engine import transformers_engine  # noqa: PLC0415  heavy

    spec = setting.spec
    dtype = spec.inference.dtype or spec.model.dtype
    return lambda folder, renderer: transformers_engine.TransformersEngine(
        folder,
        stop_token_ids=renderer.end_of_turn_ids,
        dtype="float32" if dtype == "auto" else dtype,
        max_model_len=spec.inference.max_model_len,
    )


def _launch(setting: Setting) -> None:
    """Start the ranks of a training with this worker's own arguments."""
    prefix = f"training-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_scratch(setting)) as scratch:
        own = [*sys.argv[sys.argv.index("training") + 1 :], "--scratch", scratch]
        command = ["-m", "selfimprove_pipeline", "worker", "rank", *own]
        ended = launch.launch(
            command,
            processes=devices.ranks(devices.usable_gpus()),
            nodes=nodes.nodes_of(os.environ),
        )
    if ended.code > TERMINATED_FROM:
        raise SystemExit(ended.code)
    if ended.code:
        raise error_of(ended.code, ended.line)


def _scratch(setting: Setting) -> Path:
    """Return the folder for work files, without those that a killed training left behind."""
    folder = setting.cache / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("training-*"):
        if not _is_running(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    return folder


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
