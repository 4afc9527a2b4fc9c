"""The snapshot of what a run uses, taken when it is accepted: recipe, images and pod defaults.

It is stored in a ControllerRevision that the run owns. All launches are built from it, so an
upgrade of the operator or its chart does not change runs that have started.
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
"""Largest run file in bytes: all annotations of a pod together may have 256 KiB."""

SIZES: Final = ("nvidia.com/gpu", "amd.com/gpu", "memory", "ephemeral-storage")
"""Limits of the training pods that the run file has, by which workers judge a model's size."""

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
        """The metadata of objects that a run has once; the uid keeps a later run's apart."""
        return {
            "name": f"{self.name}-{self.uid[:8]}",
            "namespace": self.namespace,
            "labels": self.labels,
            "ownerReferences": [self.reference],
        }


class Snapshot(Part):
    """The `data` of the ControllerRevision."""

    run: dict[str, Any]
    """run for the workers: resolved, with the chart's storage, without mutable fields."""

    pods: Pods
    """pods of the chart's settings."""

    engine: Engine
    """engine of the inference pods."""

    network_policy: NetworkPolicySettings
    """networkPolicy of the chart's settings."""

    multi_node: MultiNode
    """multiNode is the kind of object that trains on several nodes."""

    version: str
    """version of the operator that accepted the run."""

    @property
    def spec(self) -> Spec:
        """The resolved spec as it was accepted, with mutable fields at their defaults."""
        return Run.model_validate_json(json.dumps(self.run)).spec


def take(run: Run, settings: Settings, multi_node: MultiNode) -> Snapshot:
    """Take the snapshot of a resolved run; InputError if its run file is too large for a pod."""
    dumped = run.model_dump(mode="json", by_alias=True, exclude_none=True)
    metadata = {key: dumped["metadata"][key] for key in ("name", "namespace")}
    spec = {key: value for key, value in dumped["spec"].items() if key not in MUTABLE}
    storage = settings.storage.model_dump(mode="json", by_alias=True, exclude_none=True)
    endpoint = spec["storage"].get("endpoint")
    if endpoint and storage.get("endpoint") not in (None, endpoint):
        storage.pop("caRef", None)  # the chart's CA is that of the chart's endpoint
    spec["storage"] = {**storage, **spec["storage"]}
    taken = Snapshot(
        run={**dumped, "metadata": metadata, "spec": spec},
        pods=settings.pods,
        engine=settings.engine,
        network_policy=settings.network_policy,
        multi_node=multi_node,
        version=VERSION,
    )
    size = len(run_file(taken, iterations=100).encode())
    if size <= RUN_FILE_LIMIT:
        return taken
    sizes = {}
    for path, _ in recipe.fields():
        value: Any = spec
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        sizes[path] = len(rows.canonical(value))
    largest = max(sizes, key=lambda path: sizes[path])
    message = (
        f"spec: the resolved recipe has {size} bytes of JSON and may have {RUN_FILE_LIMIT}; "
        f"shorten spec.{largest} ({sizes[largest]} bytes)"
    )
    raise InputError(message)


def run_file(snapshot: Snapshot, *, iterations: int, training: PodSettings | None = None) -> str:
    """Return the run file of a launch, with the current iterations and training pods' limits."""
    spec = {**snapshot.run["spec"], "iterations": iterations}
    limits = ((training and training.resources) or {}).get("limits", {})
    if sizes := {name: limits[name] for name in SIZES if name in limits}:
        spec["pods"] = {"training": {"resources": {"limits": sizes}}}
    return rows.canonical({**snapshot.run, "spec": spec}).decode()


def digest(snapshot: Snapshot) -> str:
    """Return the digest of the resolved recipe without mutable fields."""
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
