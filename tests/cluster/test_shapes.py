"""The shapes that work can have: two operators, one stage a pod, shards, nodes, JobSet, Kueue."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest

from selfimprove_operator.api.status import LABEL_LAUNCH, LABEL_RUN_UID, LABEL_UNIT
from support import faults
from support.faults import Witness
from support.kube import JSON, Kube, eventually, is_live, kubectl
from support.live_runs import condition_of
from support.operators import CHART, OperatorProcess, helm
from support.places import Place

TINY: Final[JSON] = {
    "prompts": {"perIteration": 16},
    "iterations": 1,
    "storage": {"prefix": "shared"},
}


REFUSED: Final = "is reserved for the operator of selfimprove"
STOLEN: Final[JSON] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "stolen", "labels": {LABEL_RUN_UID: "of-another-tenant"}},
    "spec": {
        "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}
        }
    },
}


@pytest.fixture(scope="module", autouse=True)
def guarded(here: Place) -> Iterator[None]:
    """Reserve the labels of runs' children while the tests of this module run.

    Tests, their operator and the add-ons are the user `admin` here; a tenant is not.
    """
    values = {
        "enabled": True,
        "exemptUsers": ["admin", "system:serviceaccount:kube-system:job-controller"],
    }
    policy = helm(
        *("template", here.namespace, str(CHART), "-s", "templates/admissionpolicy.yaml"),
        *("--set-json", f"admissionPolicy={json.dumps(values)}"),
        *("--set", f"watchNamespaces={{{here.namespace}}}"),
    )
    kubectl("apply", "-f", "-", stdin=policy)
    role = ("--clusterrole=edit", f"--serviceaccount={here.namespace}:default")
    kubectl("-n", here.namespace, "create", "rolebinding", "tenant", *role)
    eventually(lambda: REFUSED in as_tenant(here), within=60, what="the policy in force")
    yield
    kubectl("delete", "-f", "-", stdin=policy)


def as_tenant(here: Place) -> str:
    """Return what the API server has against a tenant's Job with the label of a run's child."""
    user = f"system:serviceaccount:{here.namespace}:default"
    done = subprocess.run(
        ["kubectl", "-n", here.namespace, "--as", user, "create", "--dry-run=server", "-f", "-"],
        input=json.dumps(STOLEN),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


@pytest.fixture(scope="module")
def witness(here: Place) -> Iterator[Witness]:
    """Watch the module's namespace."""
    with Witness(here.kube, here.namespace) as made:
        yield made


def add_on(kube: Kube, name: str, api_path: str) -> None:
    """Start an add-on of the cluster, or skip where it neither is nor can be."""
    if faults.is_machine():
        subprocess.run(
            [faults.CLUSTER, "addon", name], check=True, capture_output=True, timeout=180
        )
        return
    groups = kube.ask("GET", "/apis")["groups"]
    if api_path not in [group["name"] for group in groups]:
        pytest.skip(f"expected {name} in the cluster, found no API {api_path}")


SEPARATE: Final = (
    *("check", "evaluate", "generate", "translate", "pair", "score", "train"),
    *("evaluate", "report"),
)


def test_two_operators_do_nothing_twice(
    here: Place, operator: OperatorProcess, witness: Witness
) -> None:
    """A run of one stage a pod, two shards and two nodes ends well under two operators at once.

    Every launch is there once, and every row too.
    """
    operator.start()
    run = here.apply(
        "wide",
        **TINY,
        stagePods="Separate",
        generation={"shards": 2},
        training={"nodes": 2},
    )
    shard = run.until_at("generate", 0)
    run.until_at("train", 0)
    ranks = [pod for pod in run.pods_at("train", 0) if is_live(pod)]
    status = run.until_done(within=400)

    assert witness.wrong == []
    assert run.orphans == []
    assert faults.INDEX in shard["metadata"]["labels"]
    assert len(ranks) == 2
    units = [job["metadata"]["labels"][LABEL_UNIT] for job in run.jobs]
    assert sorted(units) == sorted(SEPARATE)
    rows = here.rows(run, 0, "generate")
    assert all(len({row["id"] for row in found}) == len(found) == 16 for found in rows.values())
    assert {stage["state"] for stage in status["stages"]} == {"Succeeded"}, status["stages"]


@pytest.mark.usefixtures("operator")
def test_a_rank_that_is_lost_takes_the_others_with_it(here: Place, witness: Witness) -> None:
    """All ranks restart together from the last checkpoint."""
    run = here.apply("ranks", **TINY, training={"nodes": 2, "beta": 0.3})
    rank = run.until_at("training", 0)
    faults.evict(run.kube, rank)
    status = run.until_done(within=400)

    assert witness.wrong == []
    assert run.orphans == []
    launches = {pod["metadata"]["labels"][LABEL_LAUNCH] for pod in run.pods_at("training", 0)}
    assert "1" in launches
    assert status["iterations"][0]["pairs"] > 0


def test_ranks_in_a_jobset(here: Place, operator: OperatorProcess, witness: Witness) -> None:
    """Where JobSet is served training is one, and its Job is followed like any other."""
    add_on(here.kube, "jobset", "jobset.x-k8s.io")
    operator.restart()
    run = here.apply("jobset", **TINY, training={"nodes": 2, "beta": 0.4})
    run.until_at("training", 0)
    (jobset,) = here.kube.all("JobSet", here.namespace, run.selector)
    faults.delete_pod(run.kube, run.until_at("training", 0))
    run.until_done(within=400)

    assert witness.wrong == []
    assert run.orphans == []
    assert jobset["metadata"]["name"] == "jobset-0-training-0"
    names = [
        found["metadata"]["name"] for found in here.kube.all("JobSet", here.namespace, run.selector)
    ]
    assert "jobset-0-training-1" in names


QUEUE: Final = "queue"


@pytest.fixture
def queue(here: Place) -> str:
    """Return a queue of Kueue with room for one pod."""
    add_on(here.kube, "kueue", "kueue.x-k8s.io")
    for body in quota(here.namespace):
        text = json.dumps(body)
        eventually(
            lambda text=text: applied(text),  # type: ignore[misc]
            within=60,
            what="Kueue's webhooks",
        )
    return QUEUE


def applied(text: str) -> bool:
    """Return whether the API server took an object."""
    done = subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True, check=False)
    return done.returncode == 0


def quota(namespace: str) -> list[JSON]:
    """Return what makes a queue whose quota is one pod."""
    version = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
    amounts = {"pods": 1, "cpu": 64, "memory": "1Ti", "ephemeral-storage": "1Ti"}
    resources = [{"name": name, "nominalQuota": amount} for name, amount in amounts.items()]
    flavor = {"name": namespace, "resources": resources}
    own = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    groups = [{"coveredResources": list(amounts), "flavors": [flavor]}]
    return [
        {**version, "kind": "ResourceFlavor", "metadata": {"name": namespace}},
        {
            **version,
            "kind": "ClusterQueue",
            "metadata": {"name": namespace},
            "spec": {"namespaceSelector": own, "resourceGroups": groups},
        },
        {
            **version,
            "kind": "LocalQueue",
            "metadata": {"name": QUEUE, "namespace": namespace},
            "spec": {"clusterQueue": namespace},
        },
    ]


@pytest.mark.usefixtures("operator")
def test_a_run_waits_for_quota_without_a_deadline(
    here: Place, witness: Witness, queue: str
) -> None:
    """The second run shows QuotaReserved False and no clock of it runs; then it goes on."""
    queued: dict[str, Any] = {**TINY, "scheduling": {"queueName": queue}}
    first = here.apply("early", **{**queued, "storage": {"prefix": "early"}})
    first.until_at("inference", 0)
    second = here.apply("late", **queued, deadlines={"startSeconds": 5, "runSeconds": 600})
    second.until(
        lambda status: condition_of(status, "QuotaReserved").get("status") == "False",
        within=30,
        what="waiting for quota",
    )
    second.until(lambda s: "WaitingForQuota" in str(s["conditions"]), within=10, what="its reason")
    first.until_at("training", 0)
    assert second.outcome is None
    assert "waitingSince" not in second.status["launch"]
    first.until_done(within=300)
    second.until_done(within=300)

    assert second.condition("QuotaReserved")["status"] == "True"
    assert witness.wrong == []
    assert first.orphans == second.orphans == []
