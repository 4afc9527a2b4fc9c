"""The informer cache: every run with its Jobs and Pods, as the watches last reported them.

Events of different kinds arrive in any order, and the answers to our own writes are put here before
their watch events arrive. So an object is replaced only by a version that is not older. Runs are
kept as compact JSON to save memory: there may be a thousand.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

from selfimprove_operator.cluster.door import Kind, Version
from selfimprove_operator.decisions import observed
from selfimprove_operator.decisions.actions import Facts
from selfimprove_operator.decisions.drive import Observed
from selfimprove_operator.decisions.observed import Child, JSONObject, Pod, Run

Key = tuple[str, str]
"""Namespace and name of a run."""

METADATA: Final = (
    "namespace",
    "name",
    "uid",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "finalizers",
)


class Index:
    """Runs by key, and their Jobs and Pods by the uid of the run."""

    def __init__(self) -> None:
        self._runs: dict[Key, tuple[str, int, bytes]] = {}
        self._keys: dict[str, Key] = {}
        self._jobs: dict[str, dict[str, Child]] = {}
        self._pods: dict[str, dict[str, Pod]] = {}
        self._homes: dict[str, str] = {}
        """homes is the run's uid by the uid of a Job or Pod, whose labels may be removed."""

    def put_run(self, body: JSONObject) -> Key:
        """Add or update a run, unless the cache has a newer version."""
        metadata = body["metadata"]
        key = metadata["namespace"], metadata["name"]
        version = int(metadata["resourceVersion"])
        known = self._runs.get(key)
        if known is None or known[0] != metadata["uid"] or known[1] <= version:
            kept = {name: metadata[name] for name in METADATA if name in metadata}
            trimmed = {"metadata": kept, "spec": body["spec"], "status": body.get("status") or {}}
            content = json.dumps(trimmed, separators=(",", ":"), ensure_ascii=False).encode()
            self._runs[key] = (metadata["uid"], version, content)
            self._keys[metadata["uid"]] = key
        return key

    def drop_run(self, body: JSONObject) -> Key:
        """Remove a run that was deleted, unless another one has its name by now."""
        metadata = body["metadata"]
        key, uid = (metadata["namespace"], metadata["name"]), metadata["uid"]
        self._keys.pop(uid, None)
        if key in self._runs and self._runs[key][0] == uid:
            del self._runs[key]
        return key

    def put_job(self, body: JSONObject, *, run_uid: str | None = None) -> Key | None:
        """Add or update a Job; `run_uid` is needed if it may have lost the label of its run."""
        child = observed.child(body)
        home = run_uid or self._homes.get(child.uid, child.run_uid)
        return self._put(self._jobs, home, child)

    def drop_job(self, body: JSONObject) -> Key | None:
        """Remove a Job that was deleted or has lost the label that we watch by."""
        return self._drop(self._jobs, observed.child(body))

    def forget_job(self, run_uid: str, name: str) -> None:
        """Remove a Job that does not exist according to the API server."""
        self._jobs.get(run_uid, {}).pop(name, None)

    def forget(self, kind: Kind, namespace: str, name: str) -> Key | None:
        """Remove an object that is no longer listed; return the key of its run if that is left."""
        if kind == "SelfImproveRun":
            cached = self._runs.pop((namespace, name), None)
            if cached is not None:
                self._keys.pop(cached[0], None)
            return None
        for uid, children in (self._jobs if kind == "Job" else self._pods).items():
            child = children.get(name)
            if child is not None and child.namespace == namespace:
                del children[name]
                return self._keys.get(uid)
        return None

    def put_pod(self, body: JSONObject) -> Key | None:
        """Add or update a Pod."""
        pod = observed.pod(body)
        return self._put(self._pods, pod.run_uid, pod)

    def drop_pod(self, body: JSONObject) -> Key | None:
        """Remove a Pod that was deleted."""
        return self._drop(self._pods, observed.pod(body))

    def run(self, key: Key) -> Run | None:
        """Return a run, None if the cache does not have it."""
        cached = self._runs.get(key)
        return None if cached is None else observed.run(json.loads(cached[2]))

    def observed(self, key: Key, facts: Mapping[str, Facts]) -> Observed | None:
        """Return a run with its Jobs and Pods and what else is known about it."""
        run = self.run(key)
        if run is None:
            return None
        jobs = self._jobs.get(run.uid, {})
        pods = list(self._pods.get(run.uid, {}).values())
        children = (
            dataclasses.replace(job, pods=tuple(p for p in pods if p.job == job.name))
            for job in jobs.values()
        )
        lingering = tuple(pod for pod in pods if pod.job not in jobs)
        return Observed(run, tuple(children), lingering, facts.get(run.uid, Facts()))

    def keys(self) -> tuple[Key, ...]:
        """Return the keys of all runs."""
        return tuple(self._runs)

    def key_of(self, run_uid: str) -> Key | None:
        """Return the key of the run with a uid."""
        return self._keys.get(run_uid)

    def versions(self, kind: Kind) -> dict[str, Version]:
        """Return the cached objects of a kind, by uid."""
        if kind == "SelfImproveRun":
            return {
                uid: Version(key[0], key[1], str(version))
                for key, (uid, version, _) in self._runs.items()
            }
        by_run: Mapping[str, Mapping[str, Child | Pod]]
        by_run = self._jobs if kind == "Job" else self._pods
        return {
            child.uid: Version(child.namespace, child.name, child.resource_version)
            for children in by_run.values()
            for child in children.values()
        }

    def _put(self, table: dict[str, dict[str, Any]], uid: str, child: Child | Pod) -> Key | None:
        mine = table.setdefault(uid, {})
        known = mine.get(child.name)
        is_newer = known is None or int(known.resource_version) <= int(child.resource_version)
        if is_newer:
            mine[child.name] = child
            self._homes[child.uid] = uid
        return self._keys.get(uid)

    def _drop(self, table: dict[str, dict[str, Any]], child: Child | Pod) -> Key | None:
        uid = self._homes.pop(child.uid, child.run_uid)
        mine = table.get(uid, {})
        known = mine.get(child.name)
        if known is not None and known.uid == child.uid:
            del mine[child.name]
        if not mine:
            table.pop(uid, None)
        return self._keys.get(uid)
