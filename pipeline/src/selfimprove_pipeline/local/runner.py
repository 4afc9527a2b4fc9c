"""Run a whole file on this machine: each stage in a process, in order, resumable.

The store is the only memory: what it has is never computed again, so running again is how a
run is resumed. What it has found and made is noted in the run's index (`ledger`).
"""

from collections.abc import Callable
from typing import Protocol

from selfimprove_pipeline.contract.errors import TryAgainError
from selfimprove_pipeline.contract.manifests import Index
from selfimprove_pipeline.contract.stages import WORKERS, Worker
from selfimprove_pipeline.run import overlaps
from selfimprove_pipeline.run.ledger import Ledger
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import (
    Survey,
    are_finished,
    expect_finished,
    survey,
)


class Spawn(Protocol):
    """Starts a worker for one iteration and returns when it has ended well.

    Its failure is raised here as the error that it had.
    """

    def __call__(self, worker: Worker, index: int) -> None:
        """Run one worker to its end."""


def run(
    setting: Setting,
    spawn: Spawn,
    on_worker: Callable[[Worker, int], None],
    on_warning: Callable[[str], None],
) -> Index:
    """Do what is missing of a run, iteration after iteration, and return its index.

    Wrong inputs are told before anything is computed, and leave the index as it was. A start
    that finds the inputs of an earlier one does not warn of them again.
    """
    ledger = Ledger(setting)
    if setting.spec.suspend:
        return ledger.write("Suspended", "spec.suspend is true; set it to false to go on")
    setting.check_inputs()
    known, ledger.overlaps = ledger.overlaps, overlaps.look(setting, ledger.overlaps)
    if ledger.overlaps is not None and ledger.overlaps != known:
        for line in ledger.overlaps.warnings:
            on_warning(line)
    ledger.stop = None  # what is there now decides anew
    try:
        _iterate(setting, ledger, spawn, on_worker)
    except TryAgainError:
        raise  # the store may be what did not answer, and the run can go on
    except Exception as error:
        ledger.write("Failed", f"{error}".splitlines()[0] if f"{error}" else type(error).__name__)
        raise
    return ledger.write("Succeeded", ledger.stop.message if ledger.stop else "")


def _iterate(
    setting: Setting, ledger: Ledger, spawn: Spawn, on_worker: Callable[[Worker, int], None]
) -> None:
    model = setting.base
    for index in range(setting.last + 1):
        found = _state(setting, ledger, index, model)
        for worker, names in WORKERS.items():
            if are_finished(found, names):
                continue
            on_worker(worker, index)
            spawn(worker, index)
            found = _state(setting, ledger, index, model)
            expect_finished(found, names, f"the {worker} worker of iteration {index}")
        if ledger.stop is not None:
            return
        if index < setting.last:
            model = setting.trained(found["train"].manifests[""])


def _state(setting: Setting, ledger: Ledger, index: int, model: Model) -> Survey:
    """Return what an iteration has, and note it in the index."""
    found = survey(setting.iteration(index, model), setting.repository.manifest)
    ledger.enter(index, model, found)
    return found
