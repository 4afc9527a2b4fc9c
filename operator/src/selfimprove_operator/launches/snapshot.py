"""What a run uses, fixed when it is accepted: resolved recipe, images and pod defaults.

It is kept in a ControllerRevision that the run owns. Every launch is drawn from it, so an
upgrade of the operator or of its chart changes no run that is under way.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal

from selfimprove_operator.api import status
from selfimprove_operator.api.settings import Engine, NetworkPolicySettings, Settings
from selfimprove_pipeline.contract import manifests, recipe, rows
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Pods, PodSettings, Run, Spec
from selfimprove_pipeline.contract.recipe.base import Part
from selfimprove_pipeline.contract.recipe.changing import MUTABLE

VERSION: Final = version("selfimprove")

RUN_FILE_LIMIT: Final = 200 * 1024
"""Bytes of the run file: an object's annotations together may have 256 KiB."""

SIZES: Final = ("nvidia.com/gpu", "amd.com/gpu", "memory", "ephemeral-storage")
"""Limits of the pods that train which every worker is told."""

MultiNode = Literal["IndexedJob", "JobSet"]


@dataclass(frozen=True)
class Owner:
    """The run that owns its children."""

    namespace: str
    name: str
    uid: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels that every child of the run has."""
        return {
            "app.kubernetes.io/name": "selfimprove",
            status.LABEL_MANAGED_BY: status.MANAGED_BY,
            status.LABEL_RUN: self.name,
            status.LABEL_RUN_UID: self.uid,
        }

    @property
    def reference(self) -> dict[str, Any]:
        """The owner reference of every child."""
        return {
            "apiVersion": recipe.API_VERSION,
            "kind": recipe.KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of what a run has one of; a deleted run's namesake has another name."""
        return {
            "name": f"{self.name}-{self.uid[:8]}",
            "namespace": self.namespace,
            "labels": self.labels,
            "ownerReferences": [self.reference],
        }


class Snapshot(Part):
    """The `data` of the ControllerRevision."""

    run: dict[str, Any]
    """run as the workers read it: resolved, with the chart's storage, without what may change."""

    pods: Pods
    """pods as the chart had them."""

    engine: Engine
    """engine of the inference pods."""

    network_policy: NetworkPolicySettings
    """networkPolicy as the chart had it."""

    multi_node: MultiNode
    """multiNode is what trains on several nodes."""

    version: str
    """version of the operator that accepted the run."""

    @property
    def spec(self) -> Spec:
        """The resolved spec as it was accepted, mutable fields at their defaults."""
        return Run.model_validate_json(json.dumps(self.run)).spec


def take(run: Run, settings: Settings, multi_node: MultiNode) -> Snapshot:
    """Return the snapshot of a resolved run; InputError means that its run file is too large."""
    dumped = run.model_dump(mode="json", by_alias=True, exclude_none=True)
    metadata = {key: dumped["metadata"][key] for key in ("name", "namespace")}
    spec = {key: value for key, value in dumped["spec"].items() if key not in MUTABLE}
    spec["storage"] = _storage(spec["storage"], settings)
    taken = Snapshot(
        run={**dumped, "metadata": metadata, "spec": spec},
        pods=settings.pods,
        engine=settings.engine,
        network_policy=settings.network_policy,
        multi_node=multi_node,
        version=VERSION,
    )
    _refuse_what_is_too_large(taken)
    return taken


def _storage(given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a run's storage over the chart's, whose CA is of no use with another endpoint."""
    chart = settings.storage.model_dump(mode="json", by_alias=True, exclude_none=True)
    if "endpoint" in chart and given.get("endpoint", chart["endpoint"]) != chart["endpoint"]:
        chart.pop("caRef", None)
    return {**chart, **given}


def _refuse_what_is_too_large(snapshot: Snapshot) -> None:
    size = len(run_file(snapshot, iterations=100).encode())
    if size <= RUN_FILE_LIMIT:
        return
    values = {path: _at(snapshot.run["spec"], path) for path, _ in recipe.fields()}
    sizes = {path: len(rows.canonical(value)) for path, value in values.items()}
    largest = max(sizes, key=lambda path: sizes[path])
    message = (
        f"spec: expected a resolved recipe of at most {RUN_FILE_LIMIT} bytes of JSON, "
        f"found {size}; shorten spec.{largest} ({sizes[largest]} bytes)"
    )
    raise InputError(message)


def _at(value: Any, path: str) -> Any:
    """Return the value at a dotted path, None where there is none."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def run_file(snapshot: Snapshot, *, iterations: int, training: PodSettings | None = None) -> str:
    """Return the run file of a launch, with the iterations that the run has now.

    Of the pods that train it tells what they may take, by which workers judge the model's size.
    """
    spec = {**snapshot.run["spec"], "iterations": iterations}
    limits = ((training and training.resources) or {}).get("limits", {})
    if told := {name: limits[name] for name in SIZES if name in limits}:
        spec["pods"] = {"training": {"resources": {"limits": told}}}
    return rows.canonical({**snapshot.run, "spec": spec}).decode()


def digest(snapshot: Snapshot) -> str:
    """Return the digest of the resolved recipe without what may change."""
    return manifests.digest(snapshot.run["spec"])


def revision(snapshot: Snapshot, owner: Owner) -> dict[str, Any]:
    """Return the ControllerRevision that holds a snapshot."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": owner.metadata,
        "data": snapshot.model_dump(mode="json", by_alias=True, exclude_none=True),
        "revision": 1,
    }


def of_revision(manifest: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot that a ControllerRevision holds."""
    return Snapshot.model_validate_json(json.dumps(manifest["data"]))
