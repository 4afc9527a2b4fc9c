"""The door to the API server: paths, patches, and what its answers mean."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from selfimprove_operator.cluster.door import RESOURCES, Cluster, merge_patch
from selfimprove_operator.cluster.errors import (
    ClusterError,
    Conflict,
    Missing,
    NamespaceEnding,
    Refused,
    Unavailable,
    refusal,
)
from support.memory_cluster import applied

T = TypeVar("T")

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


def without_nulls(value: Any) -> Any:
    """Return a value as the API stores it: a null in an object is no field."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return value


@given(documents, documents)
def test_a_merge_patch_makes_the_new_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Vanished keys, changed lists and objects in the place of scalars included."""
    before = without_nulls(old)

    assert applied(before, merge_patch(before, new)) == without_nulls(new)


@given(documents)
def test_what_has_not_changed_is_not_sent(document: dict[str, Any]) -> None:
    """A status that stays as it is makes an empty patch."""
    assert merge_patch(document, document) == {}


def test_a_merge_patch_sends_what_differs_and_no_more() -> None:
    """Of a changed object the changed keys; a list whole; null for what is gone."""
    old = {"a": {"x": 1, "y": 2}, "list": [1, 2], "gone": 3, "same": {"deep": [1]}}
    new = {"a": {"x": 1, "y": 3}, "list": [1], "same": {"deep": [1]}, "made": 4}

    assert merge_patch(old, new) == {"a": {"y": 3}, "list": [1], "gone": None, "made": 4}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Pod", "/api/v1/namespaces/ns/pods/x/log"),
        ("Job", "/apis/batch/v1/namespaces/ns/jobs/x/log"),
        (
            "SelfImproveRun",
            "/apis/selfimprove.dev/v1alpha1/namespaces/ns/selfimproveruns/x/log",
        ),
    ],
)
def test_paths_are_those_of_the_api(kind: str, path: str) -> None:
    """The core group has a root of its own."""
    assert RESOURCES[kind].path("ns", "x", "log") == path


def answer(message: str, **more: Any) -> bytes:
    return json.dumps({"kind": "Status", "message": message, **more}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(400, answer("bad"), Refused, id="a field that does not exist"),
        pytest.param(401, answer("Unauthorized"), Unavailable, id="a token being renewed"),
        pytest.param(403, answer("exceeded quota"), Refused, id="quota"),
        pytest.param(
            403,
            answer("no", details={"causes": [{"reason": "NamespaceTerminating"}]}),
            NamespaceEnding,
            id="a namespace that ends",
        ),
        pytest.param(404, answer("not found"), Missing, id="not there"),
        pytest.param(409, answer("modified"), Conflict, id="modified since"),
        pytest.param(422, answer("invalid"), Refused, id="invalid"),
        pytest.param(429, answer("slow down"), Unavailable, id="too many requests"),
        pytest.param(500, answer("webhook down"), Unavailable, id="a webhook that is down"),
        pytest.param(503, b"<html>busy</html>", Unavailable, id="a proxy's page"),
        pytest.param(403, b"[]", Refused, id="JSON of no known form"),
        pytest.param(403, answer("no", details=None), Refused, id="no details"),
    ],
)
def test_an_answer_means_what_the_operator_can_do(
    status: int, body: bytes, kind: type[ClusterError]
) -> None:
    """Decide again, try again later, or show the request's fault."""
    assert type(refusal(status, body)) is kind


def test_an_error_is_one_line() -> None:
    """A message of several lines becomes a condition's single one."""
    error = refusal(422, answer("spec.a: wrong\n  spec.b: missing\n"))

    assert str(error) == "spec.a: wrong spec.b: missing"


def kubeconfig(folder: Path, port: int) -> Path:
    """Write a configuration for a server without TLS."""
    named: dict[str, Any] = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps({**named, "apiVersion": "v1", "current-context": "x"}))
    return path


class Asked:
    """A door to a server that gives one answer, and what came in through it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.requests: list[tuple[str, str, str | None]] = []
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(folder, self.port)))

    def play(
        self,
        steps: Callable[[Cluster], Awaitable[T]],
        respond: Callable[[web.Request], Awaitable[web.StreamResponse]] | None,
    ) -> T:
        """Let a cluster talk to the server; None: nobody listens."""

        async def handler(request: web.Request) -> web.StreamResponse:
            assert respond is not None
            token = request.headers.get("Authorization")
            self.requests.append((request.method, request.path_qs, token))
            return await respond(request)

        async def main() -> T:
            server = web.AppRunner(_app(handler), access_log=None)
            await server.setup()
            if respond is not None:
                await web.TCPSite(server, "127.0.0.1", self.port).start()
            cluster = await Cluster.connect(self._count)
            try:
                return await steps(cluster)
            finally:
                await cluster.close()
                await server.cleanup()

        return asyncio.run(main())

    def _count(self, verb: str, resource: str, code: str) -> None:
        self.calls.append((verb, resource, code))


def _app(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return app


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(tmp_path, monkeypatch)


def responding(status: int, body: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    return respond


async def read(cluster: Cluster) -> Any:
    return await cluster.read("Job", "ns", "job")


async def read_log(cluster: Cluster) -> str | None:
    return await cluster.last_log_line("ns", "pod", 100)


def test_a_call_has_its_token_and_is_counted(asked: Asked) -> None:
    """Verb, resource and status are what the benchmark and the metrics read."""
    found = asked.play(read, responding(200, b'{"kind": "Job"}'))

    assert found == {"kind": "Job"}
    assert asked.requests == [("GET", "/apis/batch/v1/namespaces/ns/jobs/job", "Bearer t0ken")]
    assert asked.calls == [("get", "jobs", "200")]


def test_a_server_that_is_away_is_unavailable(asked: Asked) -> None:
    """A refused connection is counted as well, without a status."""
    with pytest.raises(Unavailable, match="does not respond"):
        asked.play(read, None)

    assert asked.calls == [("get", "jobs", "none")]


def test_an_answer_that_is_no_json_is_unavailable(asked: Asked) -> None:
    """A login page with status 200 is not taken for an object."""
    with pytest.raises(Unavailable, match="not JSON"):
        asked.play(read, responding(200, b"<html>please log in</html>"))


def test_an_answer_cut_short_is_unavailable(asked: Asked) -> None:
    """A server that goes away in the middle of an answer has not answered."""

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"kind":')
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(Unavailable):
        asked.play(read, cut)


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        pytest.param(200, b'{"event":"progress"}\n', '{"event":"progress"}', id="a line"),
        pytest.param(200, b"", None, id="nothing yet"),
        pytest.param(200, b"xyz\xc3", "xyz\ufffd", id="cut in the middle of a letter"),
        pytest.param(400, answer("waiting to start"), None, id="the container has not started"),
        pytest.param(404, answer("not found"), None, id="the pod is gone"),
        pytest.param(500, answer("dial tcp: timeout"), None, id="the node does not answer"),
    ],
)
def test_a_log_that_cannot_be_read_is_none(
    asked: Asked, status: int, body: bytes, line: str | None
) -> None:
    """A run goes on without its progress."""
    assert asked.play(read_log, responding(status, body)) == line


def test_a_log_is_asked_for_again_where_the_server_is_away(asked: Asked) -> None:
    """Numbers are not given up because the API server restarts."""
    with pytest.raises(Unavailable):
        asked.play(read_log, responding(503, answer("busy")))


def test_only_the_last_line_of_the_stage_is_asked_for(asked: Asked) -> None:
    """A log may be gigabytes; a sidecar's is nobody's progress."""
    asked.play(read_log, responding(200, b""))

    (_, path, _), *_ = asked.requests
    assert path == ("/api/v1/namespaces/ns/pods/pod/log?container=stage&tailLines=1&limitBytes=100")


def test_a_listing_is_reduced_to_who_and_how_recent(asked: Asked) -> None:
    """A thousand runs are listed without their annotations and managed fields in memory."""
    metadata = {
        "namespace": "ns",
        "name": "run",
        "uid": "u",
        "resourceVersion": "7",
        "annotations": {"uid": "no uid of an object"},
        "managedFields": [{"fieldsV1": {"f:metadata": {}}}],
        "ownerReferences": [{"uid": "owner"}],
    }
    listing = {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": metadata}]}

    async def versions(cluster: Cluster) -> Any:
        return await cluster.versions("SelfImproveRun")

    found = asked.play(versions, responding(200, json.dumps(listing).encode()))

    assert {uid: tuple(vars_of(version)) for uid, version in found.items()} == {
        "u": ("ns", "run", "7")
    }


def vars_of(version: Any) -> list[str]:
    return [version.namespace, version.name, version.resource_version]
