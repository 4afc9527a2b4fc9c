"""Requests to the API server: paths, credentials, timeouts, and which error a failure is.

The client library is used for its configuration (the pod's token and its renewal, KUBECONFIG) and
its connections. Its model classes are never imported: they would take a lot of memory.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Self

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from selfimprove_operator.cluster.errors import Unavailable, refusal

Count = Callable[[str, str, str], None]
"""Counts one request by verb, resource and HTTP status (`none` if there was no response)."""

AGENT: Final = "selfimprove-operator"
CONNECTIONS: Final = 16
TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)

Verb = Literal["get", "list", "create", "patch", "delete"]
_METHODS: Final[Mapping[Verb, str]] = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "patch": "PATCH",
    "delete": "DELETE",
}


class Resource(NamedTuple):
    """Where the objects of a kind are served."""

    group_version: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of a collection, an object or its subresource."""
        root = "apis" if "/" in self.group_version else "api"
        of_namespace = ("namespaces", namespace) if namespace else ()
        parts = (root, self.group_version, *of_namespace, self.plural, name, subresource)
        return "".join(f"/{part}" for part in parts if part)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, by the verb and resource that RBAC names."""

    verb: Verb
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    accept: str = "application/json"

    @property
    def path(self) -> str:
        """The path on the server, without the query."""
        return self.resource.path(self.namespace, self.name, self.subresource)

    @property
    def counted_as(self) -> str:
        """The resource as RBAC names it, such as `pods/log`."""
        return "/".join(part for part in (self.resource.plural, self.subresource) if part)

    @property
    def headers(self) -> dict[str, str]:
        """The media types of the request and of the response."""
        sent = "application/merge-patch+json" if self.verb == "patch" else "application/json"
        return {"Accept": self.accept, "Content-Type": sent}


class Transport:
    """At most 16 connections to one API server."""

    def __init__(self, client: ApiClient, count: Count) -> None:
        self._client = client
        self._count = count

    @classmethod
    async def connect(cls, count: Count) -> Self:
        """Connect to the cluster that the pod runs in, else to that of KUBECONFIG."""
        settings = Configuration(connection_pool_maxsize=CONNECTIONS)
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=settings
            )
        else:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=os.environ.get("KUBECONFIG"),
                client_configuration=settings,
                persist_config=False,
            )
        client = ApiClient(settings)
        client.user_agent = AGENT
        return cls(client, count)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def ask(self, call: Call, client_timeout: aiohttp.ClientTimeout = TIMEOUT) -> bytes:
        """Send one request, count it, and return the body of the response.

        Raises `errors.ClusterError` if there is no response, or one with a status of 400 or more.
        """
        counted = "none"
        try:
            method, url, headers, sent, _ = await self._client.param_serialize(
                _METHODS[call.verb],
                call.path,
                query_params=list(call.query.items()),
                header_params=call.headers,
                body=call.body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(
                method, url, headers, sent, _request_timeout=client_timeout
            )
            body: bytes = await response.read()  # type: ignore[no-untyped-call]
            counted = str(response.status)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = f"the API server does not respond: {error or type(error).__name__}"
            raise Unavailable(text) from error
        finally:
            self._count(call.verb, call.counted_as, counted)
        if response.status >= 400:  # noqa: PLR2004  HTTP's own range
            raise refusal(response.status, body)
        return body
