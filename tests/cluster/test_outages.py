"""What a run needs goes away for a while: the API server, the store, the node, memory.

The operator is the chart's Deployment here, which is upgraded between iterations as well.
"""

import os
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from support import faults
from support.faults import Witness
from support.kube import JSON
from support.operators import Release
from support.places import Place, digests

pytestmark = pytest.mark.alone

API_SERVER_SECONDS: Final = 30
STORE_SECONDS: Final = 60
TOO_LITTLE: Final[JSON] = {"requests": {"memory": "96Mi"}, "limits": {"memory": "96Mi"}}


def values(here: Place, **training: Any) -> JSON:
    """Return the values of the module's release, with settings of the training pods."""
    return {
        "engine": "transformers",
        "storage": {"endpoint": os.environ["S3_ENDPOINT_FROM_PODS"]},
        "watchNamespaces": [here.namespace],
        "pods": {"training": training},
    }


@pytest.fixture(scope="module")
def release(
    here: Place,
    operator_image: None,  # noqa: ARG001  it must be there
) -> Iterator[Release]:
    """Install the chart for the module's namespace."""
    if not faults.is_machine():
        pytest.skip("expected a cluster made by ../shared/cluster, whose parts can be killed")
    made = Release(here.folder, f"{here.namespace}-operator")
    made.install(**values(here))
    yield made
    made.uninstall()


def test_a_run_outlives_the_api_server_the_store_its_node_and_an_upgrade(
    here: Place, release: Release, undisturbed: dict[str, str]
) -> None:
    """Same digests, no second child, no orphan, and an upgrade changes no run under way."""
    with Witness(here.kube, here.namespace) as witness:
        run = here.apply("steadfast", pods={"training": {"resources": TOO_LITTLE}})
        run.until_at("inference", 0)
        with faults.api_server_down():
            time.sleep(API_SERVER_SECONDS)
        run.until(is_killed_for_memory, within=240, what="training killed for memory")
        run.patch(pods={"training": {"resources": None}})
        with faults.drained(run.until_at("training", 0)):
            run.until_waiting("Unschedulable", within=60)
        run.until_at("inference", 1)
        release.install(**values(here, labels={"chart": "newer"}))
        with faults.store_down():
            time.sleep(STORE_SECONDS)
        upgraded = run.until_at("training", 1, within=300)
        status = run.until_done(within=300)

    assert witness.wrong == []
    assert run.orphans == []
    assert digests(here.shown(run)) == undisturbed
    assert "chart" not in upgraded["metadata"]["labels"]
    assert status["iterations"][2]["modelDigest"] == undisturbed["M2"]


def is_killed_for_memory(status: JSON) -> bool:
    """Return whether the run's launch failed once, for memory."""
    launch = status.get("launch") or {}
    is_failed = launch.get("unit") == "training" and launch.get("attempts", 0) > 0
    return is_failed and "OOMKilled" in status["message"]


def test_a_run_after_the_upgrade_has_the_newer_settings(here: Place, release: Release) -> None:
    """What the chart says now counts for a run that is accepted now."""
    release.install(**values(here, labels={"chart": "newer"}))
    run = here.apply("newer", prompts={"perIteration": 8}, iterations=1)
    pod = run.until_at("training", 0)

    assert pod["metadata"]["labels"]["chart"] == "newer"
    run.delete()
    run.until_gone(within=60)
