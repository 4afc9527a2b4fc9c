"""`selfimprove worker NAME`: one worker of one iteration, as the runner and pods start it.

Both start the very same process with the same environment, so both come to the same bytes. A
pod adds what nobody beside it could know: it notes in the run's index and tells its outcome.
"""

import os
import time
from argparse import Namespace
from contextlib import suppress
from typing import Final

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.contract.errors import InputError, SelfImproveError
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.stages import WORKERS
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.report import publish
from selfimprove_pipeline.run import ledger, numbers, opening, overlaps, sizing, status, survey
from selfimprove_pipeline.run.numbers import Outcome
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import Survey, are_finished
from selfimprove_pipeline.train.processes import nodes
from selfimprove_pipeline.workers import (
    check,
    delete,
    engines,
    inference,
    pairing,
    pod,
    rank_processes,
    training,
)
from selfimprove_pipeline.workers.events import Emitter

WARNING_CHARACTERS: Final = 300
"""Characters of a warning that fit into the termination message, whatever their script."""

POLL_SECONDS: Final = 5.0
"""Time between two looks at what the machine of the first rank has committed."""


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
    setting = _equipped(opening.setting_of(arguments), arguments)
    model = ledger.model_at(setting, arguments.iteration)
    training.work(setting, arguments.iteration, model, arguments.scratch, emitter.progress)


def _work(arguments: Namespace, emitter: Emitter) -> Outcome | None:
    """Return what a worker came to; None for one that nobody but the local runner watches."""
    match arguments.worker:
        case "check":
            return _check(opening.setting_of(arguments), arguments.iteration, emitter)
        case "report":
            return _report(opening.setting_of(arguments), arguments.iteration)
        case "delete":
            return _delete(arguments, emitter)
    setting = opening.setting_of(arguments, only_measures=arguments.only_evaluate)
    setting = _equipped(setting, arguments)
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
        found = _noted(setting, index, model, names)
    survey.expect_finished(found, names, f"the {arguments.worker} worker of iteration {index}")
    return pod.outcome_of(setting, index, model, found, names)


def _noted(setting: Setting, index: int, model: Model, names: tuple[Stage, ...]) -> Survey:
    """Return what an iteration has after the work, noted in the index.

    Of several machines that train, one commits; the others' ranks may end before it has.
    """
    found = pod.note(setting, index, model)
    while nodes.count_of(os.environ) > 1 and any(found[name].missing for name in names):
        time.sleep(POLL_SECONDS)
        found = pod.note(setting, index, model)
    return found


def _stages(arguments: Namespace, setting: Setting, emitter: Emitter) -> None:
    """Do what is missing of a worker's stages; rows and progress go to store and output."""
    index, names = arguments.iteration, _names(arguments)
    if arguments.worker != "light" and (warning := devices.check()):
        emitter.emit("warning", message=warning)
    model = _model(arguments.worker, setting, index)
    match arguments.worker:
        case "inference":
            start = engines.starter(setting)
            inference.work(setting, index, model, start, emitter.progress, names=names)
        case "light":
            pairing.work(setting, index, model, emitter.progress, names=names)
        case "training":
            training.check(setting, index, model)
            rank_processes.run(setting)


def _model(worker: str, setting: Setting, index: int) -> Model:
    """Return M_index; a light worker, which opens no model, takes it as the index has it."""
    noted = ledger.noted_model(setting, index) if worker == "light" else None
    return noted or ledger.model_at(setting, index)


def _names(arguments: Namespace) -> tuple[Stage, ...]:
    """Return the stages that are asked for, in their order."""
    all_names = WORKERS[arguments.worker]
    asked = arguments.stages or all_names
    if unknown := [name for name in asked if name not in all_names]:
        message = f"--stages: expected some of {', '.join(all_names)}, found {', '.join(unknown)}"
        raise InputError(message)
    return tuple(name for name in all_names if name in asked)


def _check(setting: Setting, index: int, emitter: Emitter) -> Outcome:
    found = check.work(setting)
    common = overlaps.look(setting)
    pod.begin(setting, common)
    shape = sizing.shape(setting)
    warnings = (*(common.warnings if common else ()), *sizing.look(setting, shape, None))
    for line in warnings:
        emitter.emit("warning", message=line)
    for line in sizing.lines(setting, shape, sizing.place_of(setting)):
        emitter.emit("memory", message=line)
    totals = {"warning": warnings[0][:WARNING_CHARACTERS]} if warnings else {}
    return Outcome(digest=manifests.digest_of(found), iteration=index, totals=totals)


def _report(setting: Setting, index: int) -> Outcome:
    """Tell the run's outcome in the index, then publish what it has come to."""
    metadata = setting.run.metadata
    model = ledger.model_at(setting, index)
    if ledger.entry_of(setting, index) is None:  # without suites no pod has been at the last model
        pod.note(pod.equipped(setting, "light", index), index, model)
    noted = pod.end(setting)
    digests = publish.publish(setting.repository, metadata.namespace, metadata.name)
    entries = {entry.index: entry for entry in noted.iterations}
    found = {
        name: status.manifests_of(name, entries[index], setting.repository)
        for name in status.NAMES
        if index in entries
    }
    languages = tuple(numbers.by_language(setting.spec, found))
    return Outcome(
        manifests.digest_of(digests),
        index,
        model=model.digest,
        totals=numbers.stopped(noted.stop),
        languages=languages,
    )


def _delete(arguments: Namespace, emitter: Emitter) -> Outcome:
    repository, metadata = opening.place_of(arguments)

    def tell(stage: str, key: str, objects: int) -> None:
        emitter.emit("removed", stage=stage, key=key, objects=objects)

    removed = delete.work(repository, metadata.namespace, metadata.name, tell)
    totals = {
        "artifacts": len(removed.keys),
        "kept": len(removed.kept),
        "objects": removed.objects,
    }
    return Outcome(removed.digest, arguments.iteration, totals=totals)
