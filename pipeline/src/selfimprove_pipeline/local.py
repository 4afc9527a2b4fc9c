"""Run a whole file on this machine: each stage in a process, in order, resumable.

The store is the only memory: what it has is never computed again, so running again is how a
run is resumed. The index in the store only tells people what the run consists of.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from selfimprove_pipeline import artifacts
from selfimprove_pipeline.artifacts import Index, IterationIndex, Manifest, RunOutcome
from selfimprove_pipeline.errors import SelfImproveError, TryAgainError
from selfimprove_pipeline.recipe import Stage
from selfimprove_pipeline.workers.setting import Model, Setting
from selfimprove_pipeline.workers.survey import INFERENCE, LIGHT, Survey, are_finished, survey

Worker = Literal["inference", "light", "training"]

WORKERS: Final[tuple[tuple[Worker, tuple[Stage, ...]], ...]] = (
    ("inference", INFERENCE),
    ("light", LIGHT),
    ("training", ("train",)),
)
"""The processes of an iteration in their order, and the stages that each one finishes."""


class Spawn(Protocol):
    """Starts a worker for one iteration and returns when it has ended well.

    Its failure is raised here as the error that it had.
    """

    def __call__(self, worker: Worker, index: int) -> None:
        """Run one worker to its end."""


@dataclass
class Ledger:
    """The index of a run in the making, written whenever a worker has ended."""

    setting: Setting
    started: str = field(default_factory=artifacts.timestamp)
    iterations: dict[int, IterationIndex] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with what an earlier start of the same recipe has found or made."""
        earlier = self.setting.read_index()
        if earlier is not None and _decides(earlier.recipe) == _decides(self._recipe()):
            self.iterations = {entry.index: entry for entry in earlier.iterations}

    def enter(self, index: int, model: Model, found: Survey) -> None:
        """Note what an iteration has now."""
        manifests = [m for state in found.values() for m in state.manifests.values()]
        self.iterations[index] = IterationIndex(
            index=index,
            model_uri=model.uri,
            model_digest=model.digest,
            keys={name: _keys(state.manifests) for name, state in found.items()},
            finished=tuple(name for name, state in found.items() if state.is_finished),
            computed=tuple(m.key for m in manifests if m.created >= self.started),
        )
        self.write("Running")

    def write(self, outcome: RunOutcome, message: str = "") -> Index:
        """Write the index to the store and return it."""
        run = self.setting.run
        index = Index(
            name=run.metadata.name,
            outcome=outcome,
            message=message,
            recipe=self._recipe(),
            requested_revision=self.setting.requested_revision,
            model_revision=run.spec.model.revision,
            iterations=tuple(self.iterations[number] for number in sorted(self.iterations)),
        )
        self.setting.repository.write_index(index, run.metadata.namespace)
        return index

    def _recipe(self) -> dict[str, Any]:
        return self.setting.spec.model_dump(mode="json", by_alias=True)


def run(setting: Setting, spawn: Spawn, on_worker: Callable[[Worker, int], None]) -> Index:
    """Do what is missing of a run, iteration after iteration, and return its index.

    Wrong inputs are told before anything is computed, and leave the index as it was.
    """
    ledger = Ledger(setting)
    if setting.spec.suspend:
        return ledger.write("Suspended", "spec.suspend is true; set it to false to go on")
    setting.check_inputs()
    try:
        _iterate(setting, ledger, spawn, on_worker)
    except TryAgainError:
        raise  # the store may be what did not answer, and the run can go on
    except Exception as error:
        ledger.write("Failed", f"{error}".splitlines()[0] if f"{error}" else type(error).__name__)
        raise
    return ledger.write("Succeeded")


def _iterate(
    setting: Setting, ledger: Ledger, spawn: Spawn, on_worker: Callable[[Worker, int], None]
) -> None:
    model = setting.base
    for index in range(setting.last + 1):
        found = _state(setting, ledger, index, model)
        for worker, names in WORKERS:
            if are_finished(found, names):
                continue
            on_worker(worker, index)
            spawn(worker, index)
            found = _state(setting, ledger, index, model)
            if not are_finished(found, names):
                message = (
                    f"expected the {worker} worker of iteration {index} to finish "
                    f"{', '.join(names)}, found them open: prompts, suites or the model changed "
                    "while it ran; run again"
                )
                raise SelfImproveError(message)
        if index < setting.last:
            model = setting.trained(found["train"].manifests[""])


def _state(setting: Setting, ledger: Ledger, index: int, model: Model) -> Survey:
    """Return what an iteration has, and note it in the index."""
    found = survey(setting.iteration(index, model), setting.repository.manifest)
    ledger.enter(index, model, found)
    return found


def model_at(setting: Setting, index: int) -> Model:
    """Return M_index of a run whose earlier iterations are finished."""
    model = setting.base
    for earlier in range(index):
        found = survey(setting.iteration(earlier, model), setting.repository.manifest)
        if not found["train"].is_finished:
            message = f"expected M{index}, found a run that has not trained M{earlier + 1} yet"
            raise SelfImproveError(message)
        model = setting.trained(found["train"].manifests[""])
    return model


def _decides(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a recipe that decides what the models of an index are."""
    return {key: value for key, value in recipe.items() if key not in ("suspend", "iterations")}


def _keys(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    return {part: manifest.key for part, manifest in manifests.items()}
