"""The only access to the API server: raw JSON objects in and out, and five kinds of errors.

There are no model classes, to save memory. The rest of the operator knows only `ClusterApi`.
`Cluster` implements it with a real API server; the tests have an implementation in memory. kopf
does the watching.
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

LOG_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, sock_connect=5)
"""Short: a log comes from the node, which may be gone, and a worker waits for it."""
NODE_FAILED: Final = 500
"""HTTP status of a log request if the node does not respond to the API server."""
EVENTS: Final = 200
"""Largest number of Events that are read about one object."""

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
    """The result of a create."""

    manifest: Manifest
    """manifest as the API server has it."""
    existed: bool
    """existed: an object of this name was there before, whose content may differ."""


@dataclass(frozen=True, slots=True)
class Version:
    """Name and resource version of an object in a listing."""

    namespace: str
    name: str
    resource_version: str


class ClusterApi(Protocol):
    """What the operator does with a cluster. The methods raise only `errors.ClusterError`."""

    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return an object as it is now, None if it does not exist."""
        ...

    async def create(self, manifest: JSONObject, *, dry_run: bool = False) -> Created:
        """Create an object, or return the existing one of the same name."""
        ...

    async def patch(self, kind: Kind, namespace: str, name: str, patch: JSONObject) -> Manifest:
        """Apply a JSON merge patch; `metadata.resourceVersion` in it is a precondition."""
        ...

    async def patch_run(self, namespace: str, name: str, patch: JSONObject) -> Manifest:
        """Apply a JSON merge patch to a run's metadata, such as its finalizers."""
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
        """Replace a run's status, which is `old` at this version, else raise `Conflict`."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete an object and what it owns, unless another one with its name has replaced it."""
        ...

    async def versions(self, kind: Kind) -> dict[str, Version]:
        """List a kind by uid, from the API server's cache; Jobs and Pods only with our label."""
        ...

    async def pods_of(self, namespace: str, run_uid: str) -> list[Manifest]:
        """List the pods of a run as they are now."""
        ...

    async def last_log_line(self, namespace: str, pod: str, limit_bytes: int) -> str | None:
        """Return the last line of a pod's log, cut at the limit; None if it cannot be read."""
        ...

    async def events_of(self, namespace: str, uid: str) -> list[Manifest]:
        """List the Events about an object."""
        ...

    async def serves(self, group_version: str, plural: str) -> bool:
        """Return whether the API server serves a resource."""
        ...


def merge_patch(old: JSONObject, new: JSONObject) -> Manifest:
    """Return the JSON merge patch (RFC 7386) from `old` to `new`.

    Lists are replaced as a whole; a key with the value None counts as absent, as in the API.
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
        """Connect to the cluster that the pod runs in, else to that of KUBECONFIG.

        Only `namespaces` are listed, all of them if there are none.
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
        # Missing: it is gone. Conflict: it is gone, and another object has its name.
        with contextlib.suppress(Missing, Conflict):
            await self._transport.ask(
                Call("delete", RESOURCES[kind], namespace, name, body=options)
            )

    @override
    async def versions(self, kind: Kind) -> dict[str, Version]:
        def identity(found: Manifest) -> Manifest:
            """Keep only the identity of each object while the listing is parsed, to save memory."""
            if "uid" in found and "resourceVersion" in found:
                return {key: found[key] for key in ("namespace", "name", "uid", "resourceVersion")}
            return found

        query = {"resourceVersion": "0"}  # from the API server's watch cache, without etcd
        if kind != KIND:
            query["labelSelector"] = SELECTOR
        found: dict[str, Version] = {}
        for namespace in self._namespaces:
            call = Call("list", RESOURCES[kind], namespace, query=query, accept=_METADATA_ONLY)
            listing = _parsed(await self._transport.ask(call), identity)
            for item in listing["items"] or ():  # an empty listing of metadata has null
                metadata = item["metadata"]
                found[metadata["uid"]] = Version(
                    metadata["namespace"], metadata["name"], metadata["resourceVersion"]
                )
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
            body = await self._transport.ask(call, LOG_TIMEOUT)
        except Refused:  # the container has not started, or is gone
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
        text = "the response of the API server is not JSON; check for a proxy in between"
        raise Unavailable(text) from error
    return parsed
