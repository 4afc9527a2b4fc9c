"""The only door to the API server: raw JSON objects in and out, and five kinds of errors.

There are no model classes, since a thousand runs have to fit into little memory. `ClusterApi`
is what the rest of the operator knows; `Cluster` speaks to a real API server, and the tests
have a second implementation in memory. Watching is kopf's.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, Protocol, Self

import aiohttp
from typing_extensions import override

from selfimprove_operator.api.status import GROUP, KIND, LABEL_RUN_UID, PLURAL, SELECTOR, VERSION
from selfimprove_operator.cluster.errors import Conflict, Missing, Refused, Unavailable
from selfimprove_operator.cluster.transport import AGENT, Call, Count, Resource, Transport
from selfimprove_pipeline.contract.environment import CONTAINER

Manifest = dict[str, Any]
JSONObject = Mapping[str, Any]
Kind = Literal[
    "SelfImproveRun",
    "Job",
    "JobSet",
    "Pod",
    "Service",
    "ControllerRevision",
    "NetworkPolicy",
    "Event",
]

PATIENCE_FOR_LOGS: Final = aiohttp.ClientTimeout(total=5, sock_connect=5)
NODE_FAILED: Final = 500
"""HTTP status of a log whose node does not answer the API server."""
EVENTS: Final = 200
"""Events of one object that are read at most."""

_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


RESOURCES: Final[Mapping[str, Resource]] = {
    KIND: Resource(f"{GROUP}/{VERSION}", PLURAL),
    "Job": Resource("batch/v1", "jobs"),
    "JobSet": Resource("jobset.x-k8s.io/v1alpha2", "jobsets"),
    "Pod": Resource("v1", "pods"),
    "Service": Resource("v1", "services"),
    "ControllerRevision": Resource("apps/v1", "controllerrevisions"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
    "Event": Resource("v1", "events"),
}


class Created(NamedTuple):
    """What a create came to."""

    manifest: Manifest
    """manifest as the API server holds it."""
    existed: bool
    """existed tells that it was there before, with whatever content it has."""


@dataclass(frozen=True, slots=True)
class Version:
    """An object in a listing: who it is and how recent."""

    namespace: str
    name: str
    resource_version: str


class ClusterApi(Protocol):
    """What the operator asks of a cluster. Every method raises `errors.ClusterError` alone."""

    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return an object as it is now, None where there is none."""
        ...

    async def create(self, manifest: JSONObject, *, dry_run: bool = False) -> Created:
        """Create an object, or return the one of its name that is there already."""
        ...

    async def patch(self, kind: Kind, namespace: str, name: str, patch: JSONObject) -> Manifest:
        """Apply a JSON merge patch; `metadata.resourceVersion` in it is a precondition."""
        ...

    async def patch_run(self, namespace: str, name: str, patch: JSONObject) -> Manifest:
        """Apply a JSON merge patch to a run, such as to its finalizers."""
        ...

    async def patch_status(
        self,
        namespace: str,
        name: str,
        status: JSONObject,
        resource_version: str,
        *,
        old: JSONObject,
    ) -> Manifest:
        """Make a run's status `status` where it still is `old`, else raise `Conflict`."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete an object with what it owns, if it is still the one of this uid."""
        ...

    async def versions(self, kind: Kind) -> dict[str, Version]:
        """Return what exists of a kind by uid, a few seconds old; of children, the labelled."""
        ...

    async def pods_of(self, namespace: str, run_uid: str) -> list[Manifest]:
        """Return the pods of a run as they are now."""
        ...

    async def last_log_line(self, namespace: str, pod: str, limit_bytes: int) -> str | None:
        """Return the last line of a pod's log, cut at the limit; None where none can be had."""
        ...

    async def events_of(self, namespace: str, uid: str) -> list[Manifest]:
        """Return the Events about an object."""
        ...

    async def serves(self, group_version: str, plural: str) -> bool:
        """Return whether the API server serves a resource."""
        ...


def merge_patch(old: JSONObject, new: JSONObject) -> Manifest:
    """Return the JSON merge patch (RFC 7386) that makes `new` of `old`.

    Lists are replaced whole; a key whose value is None counts as absent, as in the API.
    """
    patch: Manifest = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            if inner := merge_patch(before, after):
                patch[key] = inner
        else:
            patch[key] = after
    return patch


class Cluster(ClusterApi):
    """A `ClusterApi` on a real API server, with at most 16 connections."""

    def __init__(self, transport: Transport, namespaces: Sequence[str] = ()) -> None:
        self._transport = transport
        self._namespaces = tuple(namespaces) or ("",)

    @classmethod
    async def connect(cls, count: Count, namespaces: Sequence[str] = ()) -> Self:
        """Return the cluster that the pod runs in, else that of KUBECONFIG.

        Listings are limited to `namespaces` where some are given.
        """
        return cls(await Transport.connect(count), namespaces)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    @override
    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        try:
            return _parsed(await self._transport.ask(Call("get", RESOURCES[kind], namespace, name)))
        except Missing:
            return None

    @override
    async def create(self, manifest: JSONObject, *, dry_run: bool = False) -> Created:
        kind, metadata = manifest["kind"], manifest["metadata"]
        query = {"fieldManager": AGENT, "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        call = Call("create", RESOURCES[kind], metadata["namespace"], query=query, body=manifest)
        try:
            return Created(_parsed(await self._transport.ask(call)), existed=False)
        except Conflict:
            found = await self.read(kind, metadata["namespace"], metadata["name"])
            if found is None:
                raise
            return Created(found, existed=True)

    @override
    async def patch(self, kind: Kind, namespace: str, name: str, patch: JSONObject) -> Manifest:
        return await self._patch(Call("patch", RESOURCES[kind], namespace, name, body=patch))

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
        body = {
            "metadata": {"resourceVersion": resource_version},
            "status": merge_patch(old, status),
        }
        call = Call("patch", RESOURCES[KIND], namespace, name, "status", body=body)
        return await self._patch(call)

    @override
    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        # Missing: it is gone. Conflict: it is gone, and another has its name.
        with contextlib.suppress(Missing, Conflict):
            await self._transport.ask(
                Call("delete", RESOURCES[kind], namespace, name, body=options)
            )

    @override
    async def versions(self, kind: Kind) -> dict[str, Version]:
        query = {"resourceVersion": "0"}
        if kind != KIND:
            query["labelSelector"] = SELECTOR
        found: dict[str, Version] = {}
        for namespace in self._namespaces:
            call = Call("list", RESOURCES[kind], namespace, query=query, accept=_METADATA_ONLY)
            listing = _parsed(await self._transport.ask(call), _reduced)
            items = listing["items"] or ()  # an empty listing of metadata has null
            found |= {m["uid"]: _version(m) for m in (item["metadata"] for item in items)}
        return found

    @override
    async def pods_of(self, namespace: str, run_uid: str) -> list[Manifest]:
        query = {"labelSelector": f"{LABEL_RUN_UID}={run_uid}"}
        body = await self._transport.ask(Call("list", RESOURCES["Pod"], namespace, query=query))
        pods: list[Manifest] = _parsed(body)["items"]
        return pods

    @override
    async def last_log_line(self, namespace: str, pod: str, limit_bytes: int) -> str | None:
        query = {"container": CONTAINER, "tailLines": "1", "limitBytes": str(limit_bytes)}
        call = Call("get", RESOURCES["Pod"], namespace, pod, "log", query=query, accept="*/*")
        try:
            body = await self._transport.ask(call, PATIENCE_FOR_LOGS)
        except Refused:  # it has not started, or is gone
            return None
        except Unavailable as error:
            if error.status == NODE_FAILED or isinstance(error.__cause__, TimeoutError):
                return None
            raise
        return body.decode(errors="replace").rstrip("\n") or None

    @override
    async def events_of(self, namespace: str, uid: str) -> list[Manifest]:
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(EVENTS)}
        body = await self._transport.ask(Call("list", RESOURCES["Event"], namespace, query=query))
        events: list[Manifest] = _parsed(body)["items"]
        return events

    @override
    async def serves(self, group_version: str, plural: str) -> bool:
        try:
            body = await self._transport.ask(Call("get", Resource(group_version, "")))
        except Missing:
            return False
        return any(resource["name"] == plural for resource in _parsed(body)["resources"])

    async def _patch(self, call: Call) -> Manifest:
        call = replace(call, query={"fieldManager": AGENT, "fieldValidation": "Strict"})
        return _parsed(await self._transport.ask(call))


def _parsed(body: bytes, hook: Callable[[Manifest], Manifest] | None = None) -> Manifest:
    try:
        parsed: Manifest = json.loads(body, object_hook=hook)
    except ValueError as error:
        text = "the API server's answer is no JSON: a proxy on the way may have sent it"
        raise Unavailable(text) from error
    return parsed


def _reduced(found: Manifest) -> Manifest:
    """Drop all of an object but its identity while it is parsed: a listing stays small."""
    if "uid" in found and "resourceVersion" in found:
        return {key: found[key] for key in ("namespace", "name", "uid", "resourceVersion")}
    return found


def _version(metadata: JSONObject) -> Version:
    return Version(metadata["namespace"], metadata["name"], metadata["resourceVersion"])
