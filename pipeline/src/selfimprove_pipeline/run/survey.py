"""What of an iteration is in the store: each stage's targets and the manifests they have."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from selfimprove_pipeline.contract import keys, stages
from selfimprove_pipeline.contract.errors import SelfImproveError
from selfimprove_pipeline.contract.keys import Iteration, Target
from selfimprove_pipeline.contract.manifests import Manifest, timestamp
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.measuring import gates

FindManifest = Callable[[Stage, str], Manifest | None]


@dataclass(frozen=True)
class StageState:
    """A stage of one iteration as the store has it."""

    stage: Stage
    targets: tuple[Target, ...] | None
    """targets is None while the digest of an input, or what computes it, is not known."""
    manifests: Mapping[str, Manifest]
    """manifests of the finished targets, by part."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do; a stage without targets has nothing to do."""
        return self.targets is not None and len(self.manifests) == len(self.targets)

    @property
    def missing(self) -> tuple[Target, ...]:
        """The targets that are known and not finished."""
        return tuple(t for t in self.targets or () if t.part not in self.manifests)


Survey = Mapping[Stage, StageState]


def survey(iteration: Iteration, find: FindManifest) -> Survey:
    """Return the state of every stage of an iteration, in the table's order."""
    done: dict[tuple[Stage, str], str] = {}
    states: dict[Stage, StageState] = {}
    for stage in stages_of(iteration):
        targets = keys.targets(stage, iteration, done)
        found = {target.part: find(stage, target.key) for target in targets or ()}
        manifests = {part: manifest for part, manifest in found.items() if manifest is not None}
        done.update({(stage, part): manifest.digest for part, manifest in manifests.items()})
        states[stage] = StageState(stage, targets, manifests)
        iteration = gates.applied(iteration, manifests_of(states))
    return states


def manifests_of(found: Survey) -> Mapping[Stage, Mapping[str, Manifest]]:
    """Return the finished artifacts of an iteration by stage and part."""
    return {stage: state.manifests for stage, state in found.items()}


def manifest_of(target: Target, **described: Any) -> Manifest:
    """Return the manifest of a target made now; the repository fills in files and digest."""
    versions = {**target.versions, **described.pop("versions", {})}
    return Manifest(
        stage=target.stage,
        part=target.part,
        key=target.key,
        digest="",
        files=(),
        inputs=dict(target.inputs),
        recipe=dict(target.recipe),
        versions=versions,
        created=timestamp(),
        **described,
    )


def stages_of(iteration: Iteration) -> Iterator[Stage]:
    """Yield the stages of an iteration; the last model is evaluated and nothing else."""
    for info in stages.TABLE:
        if iteration.prompts or info.name in stages.MEASURING:
            yield info.name


def are_finished(found: Survey, names: tuple[Stage, ...]) -> bool:
    """Return whether each of some stages is finished or not part of the iteration."""
    return all(found[name].is_finished for name in names if name in found)


def expect_finished(found: Survey, names: tuple[Stage, ...], worker: str) -> None:
    """Raise unless a worker that has ended has finished its stages."""
    if are_finished(found, names):
        return
    message = (
        f"{worker} ended without finishing {', '.join(names)}: prompts, suites or the model "
        "changed while it ran, or an earlier stage is not finished; run again"
    )
    raise SelfImproveError(message)
