"""The least that an operator on kopf does for an object: one Job created, one status patched.

`control_loop.py` starts it beside the operator and beside JobSet and measures all three. It has
kopf's low-level events and the operator's own client, so that what differs is the loop alone.
It serves the number of its calls as the operator does.

    .venv/bin/python benchmarks/bare_loop.py GROUP VERSION PLURAL --namespace NAME --port PORT
"""

import argparse
import asyncio
import signal
from typing import Any

import kopf
import prometheus_client

from selfimprove_operator.cluster.transport import Call, Resource, Transport

JOBS = Resource("batch/v1", "jobs")
CALLS = prometheus_client.Counter(
    "selfimprove_api_calls", "Calls to the API server.", ["verb", "resource", "status"]
)


def main() -> None:
    """Run until SIGTERM."""
    arguments = _arguments()
    prometheus_client.start_http_server(arguments.port, "127.0.0.1")
    asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> None:
    """Run kopf over one namespace, without what it would write by itself."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    transport = await Transport.connect(_count)
    resource = (arguments.group, arguments.version, arguments.plural)
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
    kopf.on.event(*resource, registry=registry)(_launch)
    await kopf.operator(
        registry=registry,
        settings=settings,
        memo=kopf.Memo(transport=transport),
        standalone=True,
        namespaces=[arguments.namespace],
        stop_flag=stop,
    )
    await transport.close()


def _count(verb: str, resource: str, status: str) -> None:
    CALLS.labels(verb, resource, status).inc()


async def _launch(
    type: str | None,  # noqa: A002  kopf's name
    body: kopf.Body,
    memo: Any,
    resource: kopf.Resource,
    **_: Any,
) -> None:
    """Give an object that has no Job its Job, and note that."""
    if type == "DELETED" or "job" in body.get("status", {}):
        return
    name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
    await memo.transport.ask(Call("create", JOBS, namespace, body=_job(body)))
    kind = Resource(f"{resource.group}/{resource.version}", resource.plural)
    status = {"status": {"job": name}}
    await memo.transport.ask(Call("patch", kind, namespace, name, "status", body=status))


def _job(body: kopf.Body) -> dict[str, Any]:
    metadata = body["metadata"]
    owner = {"apiVersion": body["apiVersion"], "kind": body["kind"], "controller": True}
    owner |= {"name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": metadata["name"], "ownerReferences": [owner]},
        "spec": dict(body["spec"]),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("group", "version", "plural"):
        parser.add_argument(name)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--port", type=int, required=True, help="port of /metrics")
    return parser.parse_args()


if __name__ == "__main__":
    main()
