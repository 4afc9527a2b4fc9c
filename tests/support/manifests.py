"""Runs with the manifests that the operator makes of them, stored as readable YAML.

Each folder of tests/data/manifests has a run, settings where they are its own, and a file for
each launch (`<iteration>-<unit>.yaml`), the ControllerRevision and the NetworkPolicy. After a
wanted change `SELFIMPROVE_WRITE_GOLDEN=1 pytest -k manifests tests/unit/operator` writes them
anew; the difference is for a person to read.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from typing_extensions import override

from selfimprove_operator.api import settings
from selfimprove_operator.api.status import Launch
from selfimprove_operator.launches import jobs, network, snapshot, units
from selfimprove_operator.launches.blueprint import Blueprint
from selfimprove_operator.launches.pods import RUN_ANNOTATION
from selfimprove_operator.launches.snapshot import MultiNode, Owner, Snapshot
from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.recipe import Run
from selfimprove_pipeline.inputs.run_file import document, validation

FOLDER: Final = Path(__file__).resolve().parents[1] / "data" / "manifests"
WRITE: Final = "SELFIMPROVE_WRITE_GOLDEN"
UID: Final = "2f6b0a51-5c1e-4f0e-9a57-0d9d5a1f7c11"
Manifest = Mapping[str, Any]

LAUNCHES: Final[Mapping[str, Sequence[Launch]]] = {
    "plain": (
        Launch(unit="check", iteration=0),
        Launch(unit="inference", iteration=0),
        Launch(unit="training", iteration=1, attempts=1, disruptions=2),
    ),
    "separate": (Launch(unit="generate", iteration=0), Launch(unit="delete", iteration=0)),
    "nodes": (Launch(unit="training", iteration=0),),
    "jobset": (Launch(unit="training", iteration=0),),
    "shards": (Launch(unit="inference", iteration=1),),
    "private": (Launch(unit="inference", iteration=0), Launch(unit="delete", iteration=0)),
}
CASES: Final = tuple(LAUNCHES)


@cache
def run(case: str) -> Run:
    """Return the run of a case, resolved."""
    content = (FOLDER / case / "run.yaml").read_bytes()
    return recipe.resolve(validation.judge(document.parse(content, "run.yaml")))


@cache
def taken(case: str) -> Snapshot:
    """Return what the run of a case is accepted with; the version is no part of any test."""
    own = FOLDER / case / "settings.yaml"
    given = settings.load(own if own.exists() else FOLDER / "settings.yaml")
    multi_node: MultiNode = "JobSet" if case == "jobset" else "IndexedJob"
    return snapshot.take(run(case), given, multi_node).model_copy(update={"version": "0.0.0"})


def owner(case: str) -> Owner:
    """Return the run of a case as the owner of its children."""
    metadata = run(case).metadata
    assert metadata.namespace is not None
    return Owner(metadata.namespace, metadata.name, UID)


def blueprint(case: str, launch: Launch) -> Blueprint:
    """Return a launch of the run of a case."""
    spec = run(case).spec
    unit = units.unit(launch.unit, spec, launch.iteration)
    return Blueprint(launch, unit, owner(case), taken(case), spec)


def built(case: str) -> Iterator[tuple[str, list[Manifest]]]:
    """Yield the name of each file of a case with the manifests that it is to hold."""
    for launch in LAUNCHES[case]:
        made = jobs.manifests(blueprint(case, launch))
        yield f"{launch.iteration}-{launch.unit}.yaml", list(made)
    if case == "plain":
        yield "revision.yaml", [snapshot.revision(taken(case), owner(case))]
    if case == "private":
        yield "network-policy.yaml", [network.network_policy(owner(case), taken(case))]


def text(manifests: Sequence[Manifest]) -> str:
    """Return manifests as YAML; the run file, one long line of JSON, is replaced by its name."""
    shown = copy.deepcopy(list(manifests))
    for manifest in shown:
        for template in templates(manifest):
            template["metadata"]["annotations"][RUN_ANNOTATION] = "the run file"
    return yaml.dump_all(shown, Dumper=_Plain, sort_keys=False, width=100)


def templates(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield the pod template of a Job or of each Job in a JobSet."""
    spec = manifest.get("spec", {})
    for job in spec.get("replicatedJobs", ()):
        yield job["template"]["spec"]["template"]
    if "template" in spec:
        yield spec["template"]


class _Plain(yaml.SafeDumper):
    """A dumper that writes a value in full wherever it stands."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        return True
