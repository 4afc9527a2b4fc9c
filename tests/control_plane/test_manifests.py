"""A real API server judges what the operator creates: every field, and Pod Security."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from support import manifests
from support.control_plane import Answer, ControlPlane

pytestmark = pytest.mark.control_plane

RESTRICTED = "manifests-restricted"
NAMED_IN_RUNS = (
    {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": RESTRICTED,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    },
    {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "research"},
        "value": 1,
    },
    {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "nvidia"},
        "handler": "nvidia",
    },
)
"""A namespace that enforces, and the cluster's own objects that the runs' pods name."""


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """Return the API server with what the runs' pods name."""
    for manifest in NAMED_IN_RUNS:
        answer = control_plane.kubectl("apply", "-f", "-", input=json.dumps(manifest))
        assert answer.rc == 0, answer.stderr
    return control_plane


def judged(cluster: ControlPlane, manifest: Any) -> Answer:
    """Return what the API server says of a manifest that it does not keep."""
    command = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    return cluster.kubectl(*command, input=json.dumps(manifest))


def objects(case: str) -> Iterator[dict[str, Any]]:
    """Yield what a case creates; of a JobSet the Job that its controller makes of it."""
    for _, found in manifests.built(case):
        for manifest in found:
            if manifest["kind"] != "JobSet":
                yield dict(manifest)
                continue
            template = manifest["spec"]["replicatedJobs"][0]["template"]
            metadata = {**manifest["metadata"], **template["metadata"]}
            yield {"apiVersion": "batch/v1", "kind": "Job", **template, "metadata": metadata}


def pods(case: str) -> Iterator[dict[str, Any]]:
    """Yield a bare Pod of each template of a case, in the namespace that enforces."""
    for manifest in objects(case):
        for template in manifests.templates(manifest):
            metadata = {**template["metadata"], "name": "judged", "namespace": RESTRICTED}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": template["spec"],
            }


@pytest.mark.parametrize("case", manifests.CASES)
def test_every_object_is_good_in_every_field(case: str, cluster: ControlPlane) -> None:
    """No object is refused and none draws a warning, with unknown and doubled fields refused."""
    for manifest in objects(case):
        answer = judged(cluster, manifest)
        assert (answer.rc, answer.stderr) == (0, ""), manifest["metadata"]["name"]


@pytest.mark.parametrize("case", manifests.CASES)
def test_every_pod_may_run_where_pod_security_is_restricted(
    case: str, cluster: ControlPlane
) -> None:
    """The admission of a namespace that enforces `restricted` lets every pod in."""
    for pod in pods(case):
        answer = judged(cluster, pod)
        assert (answer.rc, answer.stderr) == (0, "")


@pytest.mark.parametrize(
    "change",
    [
        {"runAsNonRoot": False},
        {"seccompProfile": {"type": "Unconfined"}},
        {"runAsUser": 0},
    ],
    ids=["root allowed", "no seccomp", "root"],
)
def test_the_namespace_does_enforce(change: dict[str, Any], cluster: ControlPlane) -> None:
    """One right too many is refused, so that the test above proves something."""
    pod = copy.deepcopy(next(pods("plain")))
    pod["spec"]["securityContext"] |= change

    answer = judged(cluster, pod)

    assert answer.rc != 0
    assert "violates PodSecurity" in answer.stderr
