"""A run whose model lies on a hub in the cluster, with the light role on the light image.

The light image has nothing of torch, and the check of such a model runs in it. Two engines a pod
answer and translate, and the rows of the training are packed.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from selfimprove_pipeline.contract.manifests import Manifest
from support import hub_server
from support.cli import MINIATURE
from support.hub_server import Hub
from support.kube import JSON, kubectl
from support.live_runs import LiveRun
from support.operators import OperatorProcess
from support.places import SECRET, Place, digests, keys, on_this_machine

IMAGES: Final = {
    "light": "localhost/selfimprove-light:dev",
    "inference": "localhost/selfimprove-cpu:dev",
    "training": "localhost/selfimprove-cpu:dev",
}
NAME: Final = "owner/miniature"
COMMIT: Final = "5" * 40
HUB: Final = "hub"
PORT: Final = 8080
ONLINE: Final = {"HF_ENDPOINT": f"http://{HUB}:{PORT}", "HF_HUB_OFFLINE": "0"}


def spec() -> JSON:
    """Return what is different from the small run: all roles ask the hub in the cluster."""
    env = [{"name": name, "value": value} for name, value in ONLINE.items()]
    return {
        "model": {"uri": f"hf://{NAME}"},
        "iterations": 1,
        "inference": {"engines": 2},
        "pods": {role: {"env": env} for role in IMAGES},
    }


def hub_pod(inputs: str) -> JSON:
    """Return a pod that serves the miniature's M0 from the store, by the hub's interface."""
    return {
        "metadata": {"name": HUB, "labels": {"app": HUB}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": HUB,
                    "image": IMAGES["light"],
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", f"/{HUB}/server.py"],
                    "args": [NAME, COMMIT, f"{inputs}/m0", str(PORT)],
                    "env": [
                        {"name": "AWS_ENDPOINT_URL", "value": os.environ["S3_ENDPOINT_FROM_PODS"]}
                    ],
                    "envFrom": [{"secretRef": {"name": SECRET}}],
                    "volumeMounts": [{"name": HUB, "mountPath": f"/{HUB}"}],
                    "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
            "volumes": [{"name": HUB, "configMap": {"name": HUB}}],
        },
    }


@pytest.fixture(scope="module")
def hub(here: Place) -> str:
    """Run a hub in the namespace; it goes with it."""
    text = Path(hub_server.__file__).read_text()
    place = f"/api/v1/namespaces/{here.namespace}"
    script = {"metadata": {"name": HUB}, "data": {"server.py": text}}
    here.kube.ask("POST", f"{place}/configmaps", script)
    here.kube.ask("POST", f"{place}/pods", hub_pod(here.inputs))
    service = {"selector": {"app": HUB}, "ports": [{"port": PORT}]}
    here.kube.ask("POST", f"{place}/services", {"metadata": {"name": HUB}, "spec": service})
    kubectl("-n", here.namespace, "wait", "--for=condition=Ready", f"pod/{HUB}", "--timeout=180s")
    return HUB


@pytest.fixture(scope="module")
def beside(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[JSON]]:
    """Begin the same file on this machine, with a hub that has the same model."""
    folder = tmp_path_factory.mktemp("beside")
    files = {path.name: path.read_bytes() for path in (MINIATURE / "m0").iterdir()}
    with hub_server.running(Hub(NAME, COMMIT, files)) as endpoint, ThreadPoolExecutor(1) as pool:
        online = {**ONLINE, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hub")}
        body = here.manifest(**spec())
        yield pool.submit(
            on_this_machine, body, here.inputs, folder, "transformers", environment=online
        )


@pytest.fixture(scope="module")
def finished(
    here: Place,
    hub: str,  # noqa: ARG001  it must be there
    operator: OperatorProcess,  # noqa: ARG001  likewise
    beside: Future[JSON],  # noqa: ARG001  it runs meanwhile
) -> LiveRun:
    """Return a run that went from the hub's M0 to M1."""
    run = here.apply(**spec())
    run.until_done(within=600)
    return run


def test_a_model_of_the_hub_is_checked_and_scored_on_the_light_image(finished: LiveRun) -> None:
    """Every role ran on the image of its own, and the light ones need no more than theirs."""
    ran: dict[str, set[str]] = {}
    for job in finished.jobs:
        role = job["metadata"]["labels"]["app.kubernetes.io/component"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        ran.setdefault(role, set()).add(container["image"])

    assert ran == {role: {image} for role, image in IMAGES.items()}


def test_a_branch_of_the_hub_is_pinned_to_its_commit(finished: LiveRun, here: Place) -> None:
    """The index has the commit that the default branch was at when the run began."""
    index = here.repository(finished).read_index(finished.namespace, finished.name)

    assert index is not None, json.dumps(finished.status)
    assert index.model_revision == COMMIT


def test_two_engines_a_pod_make_the_rows_and_pairs_are_packed(
    finished: LiveRun, here: Place
) -> None:
    """The manifests tell how many engines there were, and how the pairs lay in their passes."""
    repository = here.repository(finished)
    index = repository.read_index(finished.namespace, finished.name)
    assert index is not None
    first = index.iterations[0].keys

    def manifests(stage: str) -> list[Manifest]:
        found = (repository.manifest(stage, key) for key in first[stage].values())
        return [manifest for manifest in found if manifest is not None]

    assert {one.counts["engines"] for one in manifests("generate")} == {2}
    assert [one.versions["layout"] for one in manifests("train")] == ["packed"]


def test_the_same_file_gives_the_same_models_on_one_machine(
    finished: LiveRun, here: Place, beside: Future[JSON]
) -> None:
    """`selfimprove run` with the same hub comes to the same keys, pairs and M1."""
    shown, expected = here.shown(finished), beside.result()

    assert keys(shown) == keys(expected)
    assert digests(shown) == digests(expected)
    assert list(digests(shown))[:2] == ["M0", "M1"]
