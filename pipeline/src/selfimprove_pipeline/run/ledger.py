"""The index of a run: what its processes note in it, and what later ones take from it.

It lists the models, the keys and what computed them. A pod that cannot tell something itself,
such as the versions of an engine that its image does not have, finds it here. The local runner
and every pod write it (`runner`, `pod`); people read it through `show` and `report`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.errors import SelfImproveError
from selfimprove_pipeline.contract.manifests import (
    Index,
    IterationIndex,
    Manifest,
    Overlaps,
    RunOutcome,
    Stop,
    timestamp,
)
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.recipe.changing import MUTABLE
from selfimprove_pipeline.measuring import gates
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import Survey, manifests_of, survey


@dataclass
class Ledger:
    """The index of a run in the making, written whenever a worker has ended."""

    setting: Setting
    started: str = field(default_factory=timestamp)
    iterations: dict[int, IterationIndex] = field(default_factory=dict)
    overlaps: Overlaps | None = None
    stop: Stop | None = None

    def __post_init__(self) -> None:
        """Begin with what an earlier start of the same recipe has found or made."""
        earlier = index_of(self.setting)
        if earlier is not None:
            self.iterations = {entry.index: entry for entry in earlier.iterations}
            self.overlaps, self.stop = earlier.overlaps, earlier.stop

    def enter(self, index: int, model: Model, found: Survey) -> None:
        """Note what an iteration has now, and whether the run ends with it."""
        spec = self.setting.spec
        stop = gates.stop_of(index, self.setting.last, spec.gates, manifests_of(found))
        if stop is not None:
            self.iterations = {n: entry for n, entry in self.iterations.items() if n <= index}
        if stop is not None or (self.stop is not None and self.stop.iteration == index):
            self.stop = stop
        manifests = [m for state in found.values() for m in state.manifests.values()]
        self.iterations[index] = IterationIndex(
            index=index,
            model_uri=model.uri,
            model_digest=model.digest,
            keys={name: _keys(state.manifests) for name, state in found.items()},
            finished=tuple(name for name, state in found.items() if state.is_finished),
            computed=tuple(m.key for m in manifests if m.created >= self.started),
            begun=_begun(self.setting.iteration(index, model), found),
            toolchain=_sections(self.setting.toolchain),
        )
        self.write("Running")

    def write(self, outcome: RunOutcome, message: str = "") -> Index:
        """Write the index to the store and return it."""
        run = self.setting.run
        index = Index(
            name=run.metadata.name,
            outcome=outcome,
            message=message,
            started=self.started,
            overlaps=self.overlaps,
            recipe=_recipe(self.setting),
            requested_revision=self.setting.requested_revision,
            model_revision=run.spec.model.revision,
            decided=dict(self.setting.decided),
            stop=self.stop,
            iterations=tuple(self.iterations[number] for number in sorted(self.iterations)),
        )
        self.setting.repository.write_index(index, run.metadata.namespace)
        return index


def index_of(setting: Setting) -> Index | None:
    """Return the run's index if it is of a recipe that makes the same models, else None."""
    found = setting.read_index()
    if found is None or _decides(found.recipe) != _decides(_recipe(setting)):
        return None
    return found


def entry_of(setting: Setting, number: int) -> IterationIndex | None:
    """Return what the run's index says of an iteration, None where it says nothing."""
    index = index_of(setting)
    entries = index.iterations if index else ()
    return next((entry for entry in entries if entry.index == number), None)


def noted_model(setting: Setting, index: int) -> Model | None:
    """Return M_index by name and digest as the run's index has it, for keys alone."""
    entry = entry_of(setting, index)
    return None if entry is None else Model(entry.model_uri, entry.model_digest, ())


def model_at(setting: Setting, index: int) -> Model:
    """Return M_index of a run whose earlier iterations are finished, its files to be checked.

    It is what the training that the index names has made. Where the index names none, all
    earlier iterations are surveyed.
    """
    if index == 0:
        return setting.base
    entry = entry_of(setting, index - 1)
    key = entry.keys.get("train", {}).get("") if entry else None
    manifest = setting.repository.manifest("train", key) if key else None
    return _surveyed_model(setting, index) if manifest is None else setting.trained(manifest)


def _surveyed_model(setting: Setting, index: int) -> Model:
    model = setting.base
    for earlier in range(index):
        found = survey(setting.iteration(earlier, model), setting.repository.manifest)
        if not found["train"].is_finished:
            message = f"M{earlier + 1} is not trained yet; run iteration {earlier} first"
            raise SelfImproveError(message)
        model = setting.trained(found["train"].manifests[""])
    return model


def _recipe(setting: Setting) -> dict[str, Any]:
    return setting.spec.model_dump(mode="json", by_alias=True)


def _decides(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a recipe that decides what the models of an index are."""
    return {key: value for key, value in recipe.items() if key not in MUTABLE}


def _begun(iteration: keys.Iteration, found: Survey) -> dict[str, dict[str, str]]:
    """Return the keys of what is missing, of what was made ahead, and of the reference pass."""
    begun: dict[str, dict[str, str]] = {
        name: {target.part: target.key for target in state.missing}
        for name, state in found.items()
        if state.missing
    }
    if "translate" in found and not found["translate"].is_finished:
        ahead = {f"{part} ahead": one.key for part, one in keys.ahead(iteration).items()}
        begun["translate"] = {**begun.get("translate", {}), **ahead}
    iteration = gates.applied(iteration, manifests_of(found))
    pairs = found["pair"].manifests.get("") if "pair" in found else None
    done: dict[tuple[Stage, str], str] = {("pair", ""): pairs.digest} if pairs else {}
    for target in keys.targets("reference", iteration, done) or ():
        begun["reference"] = {target.part: target.key}
    return begun


def _sections(toolchain: keys.Toolchain) -> dict[str, dict[str, str]]:
    return {name: dict(found) for name, found in vars(toolchain).items() if found is not None}


def _keys(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    return {part: manifest.key for part, manifest in manifests.items()}
