"""A real cluster with nodes, a store and the images; `make test-cluster` runs what is here.

Each test module has a namespace of its own with an operator that watches nothing else. After
each module the minutes that it took are printed.
"""

import fcntl
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.cli import Cli
from support.kube import JSON, Kube, eventually
from support.operators import OperatorProcess, install_definition
from support.places import Place, digests, inputs_on_disk, on_this_machine, place, small
from support.s3 import Server

FOLDER: Final = Path(__file__).parent
STAGES: Final = ("localhost/selfimprove-cpu:dev", "localhost/selfimprove-light:dev")
OPERATOR: Final = "localhost/selfimprove-operator:dev"
REPORTED_WITHIN: Final = 60.0
"""Seconds within which a node reports an image that was loaded a moment ago."""
VARIABLES: Final = (
    "KUBECONFIG",
    "S3_ENDPOINT",
    "S3_ENDPOINT_FROM_PODS",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
)


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker means, wherever the tests are started from."""
    config.addinivalue_line("markers", "cluster: needs a cluster with nodes (KUBECONFIG)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(1500))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the minutes of each module, with those of its fixtures."""
    seconds: dict[str, float] = defaultdict(float)
    for outcome in ("passed", "failed", "error", ""):
        for report in terminalreporter.stats.get(outcome, ()):
            if isinstance(report, pytest.TestReport) and "/cluster/" in report.nodeid:
                seconds[report.nodeid.split("::")[0]] += report.duration
    for module, spent in seconds.items():
        terminalreporter.write_line(f"{spent / 60:5.1f} min  {module}")


def lacking() -> str | None:
    """Return what keeps these tests from running here, None if nothing does."""
    if absent := [name for name in VARIABLES if not os.environ.get(name)]:
        return f"expected a cluster and a store, found no {', '.join(absent)}"
    if absent := [name for name in ("kubectl", "helm") if shutil.which(name) is None]:
        return f"expected {', '.join(absent)} on PATH"
    if all(node["spec"].get("unschedulable") for node in nodes()):
        return "expected a node that takes pods: kubectl uncordon NODE"
    return next(filter(None, map(lacking_image, STAGES)), None)


def lacking_image(image: str) -> str | None:
    """Return that no node has an image, None if one has."""
    try:
        eventually(lambda: image in images_of_nodes(), within=REPORTED_WITHIN, what=image)
    except AssertionError:
        return f"expected {image} on a node: make images, then load it"
    return None


def nodes() -> list[JSON]:
    """Return the nodes of the cluster."""
    items: list[JSON] = Kube().ask("GET", "/api/v1/nodes")["items"]
    return items


def images_of_nodes() -> set[str]:
    """Return the names of the images that nodes report."""
    images = [image for node in nodes() for image in node["status"].get("images", ())]
    return {name for found in images for name in found.get("names") or ()}


@pytest.fixture(scope="session")
def kube() -> Kube:
    """Give the cluster, or skip with what is missing."""
    if lack := lacking():
        pytest.skip(lack)
    return Kube()


@pytest.fixture(scope="session")
def operator_image() -> None:
    """Skip where the chart's Deployment could not start."""
    if lack := lacking_image(OPERATOR):
        pytest.skip(lack)


@pytest.fixture(scope="session")
def definition(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Install the definition of runs; of two workers that do so at once one would be refused."""
    with (tmp_path_factory.getbasetemp().parent / "definition.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install_definition(kube, tmp_path_factory.mktemp("definition"))


@pytest.fixture(scope="session")
def inputs(
    kube: Kube,  # noqa: ARG001  without a cluster nothing is uploaded
    s3_server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Give the URI under which the miniature's folders and small tasks were uploaded."""
    uri = f"s3://{s3_server.make_bucket()}"
    folder = tmp_path_factory.mktemp("inputs")
    cli = Cli(folder / "store", folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        for part, path in inputs_on_disk(folder / "tasks").items():
            uploaded = cli("upload", str(path), f"{uri}/{part}")
            assert uploaded.code == 0, uploaded.errors
    return uri


@pytest.fixture(scope="module")
def here(
    kube: Kube,
    definition: None,  # noqa: ARG001  it must be there
    s3_server: Server,
    inputs: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """Give a namespace of the module's own."""
    folder = tmp_path_factory.mktemp("here")
    with place(kube, s3_server, inputs, folder) as made:
        yield made


@pytest.fixture(scope="session")
def undisturbed(inputs: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the digests of the small run on this machine, with the transformers engine."""
    body = small(inputs, storage={"bucket": "here"})
    folder = tmp_path_factory.mktemp("undisturbed")
    return digests(on_this_machine(body, inputs, folder, "transformers"))


@pytest.fixture(scope="module")
def operator(here: Place) -> Iterator[OperatorProcess]:
    """Run the operator as a process for the module's namespace, with the transformers engine."""
    process = OperatorProcess(
        here.folder,
        {
            "engine": "transformers",
            "storage": {"endpoint": os.environ["S3_ENDPOINT_FROM_PODS"]},
            "watchNamespaces": [here.namespace],
        },
    )
    process.start()
    yield process
    process.stop()
