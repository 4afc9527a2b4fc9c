"""A `ClusterApi` in memory: what an API server does with objects, faults on demand included.

Nothing happens by itself: `job_controller` plays the Job controller, the nodes and the garbage
collector, one step at a time. Every change is told in `watched`, in the order of the server.
"""

import copy
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from typing_extensions import override

from selfimprove_operator.api import times
from selfimprove_operator.api.status import (
    GROUP,
    KIND,
    LABEL_MANAGED_BY,
    LABEL_RUN_UID,
    PLURAL,
    VERSION,
)
from selfimprove_operator.cluster.door import (
    ClusterApi,
    Created,
    JSONObject,
    Kind,
    Manifest,
    Version,
    merge_patch,
)
from selfimprove_operator.cluster.errors import Conflict, Missing, NamespaceEnding, Refused

Identity = tuple[Kind, str, str]


class Call(NamedTuple):
    verb: str
    kind: str
    namespace: str
    name: str


class Watched(NamedTuple):
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Manifest


Fault = Callable[[Literal["before", "after"], Call], None]
"""Raises to make a call fail before it has its effect, or after it (the caller never knows)."""


def no_fault(when: str, call: Call) -> None:
    """Let every call succeed."""


@dataclass(frozen=True)
class _Write:
    """What a patch may touch."""

    kind: Kind
    namespace: str
    name: str
    is_status: bool = False


class MemoryCluster(ClusterApi):
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.fault: Fault = no_fault
        self.calls: list[Call] = []
        self.watched: list[Watched] = []
        self.objects: dict[Identity, Manifest] = {}
        self.logs: dict[tuple[str, str], str] = {}
        self.ending_namespaces: set[str] = set()
        self.served = {("batch/v1", "jobs"), (f"{GROUP}/{VERSION}", PLURAL)}
        self._version = 100
        self._made = 0

    # What the operator calls.

    @override
    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        with self._call("get", kind, namespace, name):
            return copy.deepcopy(self.objects.get((kind, namespace, name)))

    @override
    async def create(self, manifest: JSONObject, *, dry_run: bool = False) -> Created:
        kind, metadata = manifest["kind"], manifest["metadata"]
        verb = "dry-run" if dry_run else "create"
        with self._call(verb, kind, metadata["namespace"], metadata["name"]):
            if metadata["namespace"] in self.ending_namespaces:
                raise NamespaceEnding(403, f"namespace {metadata['namespace']} is being terminated")
            found = self.objects.get((kind, metadata["namespace"], metadata["name"]))
            if found is not None:
                return Created(copy.deepcopy(found), existed=True)
            return Created(self.add(manifest, is_kept=not dry_run), existed=False)

    @override
    async def patch(self, kind: Kind, namespace: str, name: str, patch: JSONObject) -> Manifest:
        with self._call("patch", kind, namespace, name):
            return self._patch(_Write(kind, namespace, name), patch)

    @override
    async def patch_run(self, namespace: str, name: str, patch: JSONObject) -> Manifest:
        return await self.patch(KIND, namespace, name, patch)

    @override
    async def patch_status(
        self,
        namespace: str,
        name: str,
        status: JSONObject,
        resource_version: str,
        *,
        old: JSONObject,
    ) -> Manifest:
        patch = {
            "metadata": {"resourceVersion": resource_version},
            "status": merge_patch(old, status),
        }
        with self._call("patch-status", KIND, namespace, name):
            return self._patch(_Write(KIND, namespace, name, is_status=True), patch)

    @override
    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        with self._call("delete", kind, namespace, name):
            found = self.objects.get((kind, namespace, name))
            if found is not None and found["metadata"]["uid"] == uid:
                self.remove(kind, namespace, name)

    @override
    async def versions(self, kind: Kind) -> dict[str, Version]:
        with self._call("list", kind, "", ""):
            return {
                metadata["uid"]: Version(namespace, name, metadata["resourceVersion"])
                for namespace, name, metadata in self._metadata_of(kind)
                if kind == KIND or metadata.get("labels", {}).get(LABEL_MANAGED_BY)
            }

    @override
    async def pods_of(self, namespace: str, run_uid: str) -> list[Manifest]:
        with self._call("list", "Pod", namespace, ""):
            pods = [pod for pod in self.all("Pod") if pod["metadata"]["namespace"] == namespace]
            labels = [pod["metadata"].get("labels", {}) for pod in pods]
            mine = zip(pods, labels, strict=True)
            return [pod for pod, label in mine if label.get(LABEL_RUN_UID) == run_uid]

    @override
    async def last_log_line(self, namespace: str, pod: str, limit_bytes: int) -> str | None:
        with self._call("log", "Pod", namespace, pod):
            lines = self.logs.get((namespace, pod), "").splitlines()
            return lines[-1][:limit_bytes] if lines else None

    @override
    async def events_of(self, namespace: str, uid: str) -> list[Manifest]:
        with self._call("list", "Event", namespace, ""):
            events = [o for (kind, *_), o in self.objects.items() if kind == "Event"]
            mine = [event for event in events if event["involvedObject"]["uid"] == uid]
            return copy.deepcopy(mine)

    @override
    async def serves(self, group_version: str, plural: str) -> bool:
        with self._call("discover", plural, "", ""):
            return (group_version, plural) in self.served

    # What everybody else in a cluster does, without a fault and unrecorded.

    def add(self, manifest: JSONObject, *, is_kept: bool = True) -> Manifest:
        """Put an object into the cluster, completed as the server does."""
        made = cast("Manifest", copy.deepcopy(manifest))
        metadata = made["metadata"]
        self._made += 1
        metadata["uid"] = f"00000000-0000-4000-8000-{self._made:012d}"
        metadata["creationTimestamp"] = times.stamp(self.clock())
        metadata["generation"] = 1
        if made["kind"] == "Job":
            _complete_job(made)
        if is_kept:
            self._store("ADDED", made)
        return copy.deepcopy(made)

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return an object as it is, None where there is none."""
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    def all(self, kind: Kind) -> list[Manifest]:
        """Return all objects of a kind."""
        return [copy.deepcopy(o) for (each, *_), o in self.objects.items() if each == kind]

    def put(self, changed: Manifest) -> None:
        """Replace an object by a changed one, which gets a new resourceVersion."""
        metadata = changed["metadata"]
        before = self.objects[changed["kind"], metadata["namespace"], metadata["name"]]
        if changed == before:
            return
        made = copy.deepcopy(changed)
        if made.get("spec") != before.get("spec"):
            made["metadata"]["generation"] += 1
        self._store("MODIFIED", made)
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            self.vanish(made["kind"], metadata["namespace"], metadata["name"])

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object; one with finalizers waits for them."""
        found = copy.deepcopy(self.objects[kind, namespace, name])
        if not found["metadata"].get("finalizers"):
            self.vanish(kind, namespace, name)
        elif "deletionTimestamp" not in found["metadata"]:
            found["metadata"]["deletionTimestamp"] = times.stamp(self.clock())
            self.put(found)

    def vanish(self, kind: Kind, namespace: str, name: str) -> None:
        """Take an object out of the store."""
        found = self.objects.pop((kind, namespace, name))
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        self.watched.append(Watched("DELETED", found))

    def _store(self, change: Literal["ADDED", "MODIFIED"], made: Manifest) -> None:
        self._version += 1
        metadata = made["metadata"]
        metadata["resourceVersion"] = str(self._version)
        self.objects[made["kind"], metadata["namespace"], metadata["name"]] = made
        self.watched.append(Watched(change, copy.deepcopy(made)))

    def _patch(self, write: _Write, patch: JSONObject) -> Manifest:
        found = self.objects.get((write.kind, write.namespace, write.name))
        if found is None:
            raise Missing(404, f"{write.kind} {write.name} not found")
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, found["metadata"]["resourceVersion"]):
            message = f"{write.name}: the object has been modified"
            raise Conflict(message)
        patched = applied(found, patch)
        changed = copy.deepcopy(
            {**found, "status": patched.get("status")}
            if write.is_status
            else {**patched, "status": found.get("status")}
        )
        if changed["status"] is None:
            del changed["status"]
        if write.kind == "Job" and changed["spec"]["template"] != found["spec"]["template"]:
            raise Refused(422, f'Job.batch "{write.name}" is invalid: field is immutable')
        self.put(changed)
        return copy.deepcopy(
            self.objects.get((write.kind, write.namespace, write.name), self.watched[-1].object)
        )

    def _metadata_of(self, kind: Kind) -> list[tuple[str, str, JSONObject]]:
        return [
            (namespace, name, found["metadata"])
            for (each, namespace, name), found in self.objects.items()
            if each == kind
        ]

    @contextmanager
    def _call(self, verb: str, kind: str, namespace: str, name: str) -> Generator[None]:
        call = Call(verb, kind, namespace, name)
        self.calls.append(call)
        self.fault("before", call)
        yield
        self.fault("after", call)


def applied(value: Any, patch: Any) -> Any:
    """Return a value after a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            made.pop(key, None)
        else:
            made[key] = applied(made.get(key), change)
    return made


def _complete_job(job: Manifest) -> None:
    """Fill in what the API server defaults in a Job."""
    spec, uid = job["spec"], job["metadata"]["uid"]
    for key, value in (("parallelism", 1), ("completions", 1), ("suspend", False)):
        spec.setdefault(key, value)
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    template = spec["template"].setdefault("metadata", {})
    template["labels"] = template.get("labels", {}) | {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": job["metadata"]["name"],
    }
    job["status"] = {}
