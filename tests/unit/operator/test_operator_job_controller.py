"""The Job controller of the tests: it writes what Kubernetes 1.36 was seen to write.

The state machines take its word for what a launch comes to, so that it is held here to what
was recorded from a real cluster with the operator's own pod failure policy.
"""

import asyncio
from typing import Any

import pytest

from selfimprove_operator.cluster.door import Manifest
from selfimprove_operator.decisions import observed
from support.job_controller import JobController
from support.memory_cluster import MemoryCluster

RULES = [
    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]},
    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}},
]
BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")


def played(**spec: Any) -> JobController:
    """Return the controllers of a cluster with one Job."""
    cluster = MemoryCluster(lambda: 1_800_000_000.0)
    container = {"name": "stage", "image": "localhost/none:test"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job", "namespace": "ns", "labels": {}},
        "spec": {
            "podFailurePolicy": {"rules": RULES},
            "template": {"spec": {"containers": [container]}},
            **spec,
        },
    }
    asyncio.run(cluster.create(job))
    return JobController(cluster)


def indexed(count: int) -> JobController:
    return played(completionMode="Indexed", completions=count, parallelism=count)


def job_of(controller: JobController) -> Manifest:
    found = controller.cluster.get("Job", "ns", "job")
    assert found is not None
    return found


def conditions(controller: JobController) -> list[str]:
    return [each["type"] for each in job_of(controller)["status"].get("conditions", ())]


@pytest.mark.parametrize(
    ("exit_code", "reached", "reason", "message"),
    [
        pytest.param(
            0,
            ["SuccessCriteriaMet", "Complete"],
            "CompletionsReached",
            "Reached expected number of succeeded pods",
            id="done",
        ),
        pytest.param(1, ["FailureTarget", "Failed"], *BACKOFF, id="failed"),
        pytest.param(
            2,
            ["FailureTarget", "Failed"],
            "PodFailurePolicy",
            "Container stage for pod ns/job-00001 failed with exit code 2 "
            "matching FailJob rule at index 1",
            id="wrong input",
        ),
        pytest.param(75, ["FailureTarget", "Failed"], *BACKOFF, id="try again"),
    ],
)
def test_an_exit_code_becomes_the_conditions_of_its_job(
    exit_code: int, reached: list[str], reason: str, message: str
) -> None:
    """One step decides the outcome, the next one makes it final, with the same words."""
    controller = played()
    pod = controller.start_pod("ns", "job")
    controller.end_pod("ns", pod, exit_code, "said")

    steps = []
    while controller.sync("ns", "job"):
        steps.append(conditions(controller))

    last = job_of(controller)["status"]["conditions"][-1]
    assert steps == [reached[:1], reached]
    assert (last["reason"], last["message"]) == (reason, message)
    seen = observed.pod(controller.pods("ns", "job")[0])
    assert (seen.exit_code, seen.message, seen.is_finished) == (exit_code, "said", True)


def test_an_evicted_pod_fails_its_job_as_a_disruption_and_goes() -> None:
    """The pod runs on until its container ends; the Job names the condition; the pod is gone."""
    controller = played()
    pod = controller.start_pod("ns", "job")

    controller.evict("ns", pod)
    assert not controller.sync("ns", "job")
    seen = observed.pod(controller.pods("ns", "job")[0])
    assert (seen.disruption, seen.is_running) == ("EvictionByEvictionAPI", True)
    assert seen.deleted_at is not None

    controller.finish("ns", "job", 143)
    failed = observed.child(job_of(controller))
    assert failed.is_failed
    assert failed.reason == "PodFailurePolicy"
    assert failed.message == (
        f"Pod ns/{pod} has condition DisruptionTarget matching FailJob rule at index 0"
    )
    assert controller.pods("ns", "job") == []


def test_a_deleted_pod_leaves_no_trace_but_a_failed_job() -> None:
    """Nothing in the Job tells a deletion by hand from a failure."""
    controller = played()
    pod = controller.start_pod("ns", "job")

    controller.delete_pod("ns", pod)
    controller.finish("ns", "job", 143)

    failed = observed.child(job_of(controller))
    assert (failed.reason, failed.message) == BACKOFF
    assert controller.pods("ns", "job") == []


def test_a_pod_that_never_ran_ends_with_an_unknown_status() -> None:
    """The kubelet says 137 for a container that there never was."""
    controller = played()
    pod = controller.add_pod("ns", "job")
    controller.hold_pod("ns", pod, "ImagePullBackOff", "no such image")
    waiting = observed.pod(controller.pods("ns", "job")[0]).waiting

    controller.delete_pod("ns", pod)
    controller.end_pod("ns", pod, 0)

    seen = observed.pod(controller.pods("ns", "job")[0])
    assert waiting == ("ImagePullBackOff", "no such image")
    assert (seen.exit_code, seen.reason) == (137, "ContainerStatusUnknown")


def test_a_failing_jobs_other_ranks_run_until_they_end() -> None:
    """`FailureTarget` stands while a rank still runs; `Failed` comes after its end."""
    controller = indexed(2)
    controller.start_pod("ns", "job", 0)
    controller.start_pod("ns", "job", 1)

    controller.finish("ns", "job", 1, index=1)
    assert conditions(controller) == ["FailureTarget"]
    running = [pod for pod in controller.pods("ns", "job") if observed.pod(pod).is_running]
    assert ["deletionTimestamp" in pod["metadata"] for pod in running] == [True]

    controller.finish("ns", "job", 143, index=0)
    assert conditions(controller) == ["FailureTarget", "Failed"]


def test_an_indexed_job_is_complete_when_every_index_is() -> None:
    """One rank's success is not the Job's."""
    controller = indexed(2)
    controller.start_pod("ns", "job", 0)
    controller.start_pod("ns", "job", 1)

    controller.finish("ns", "job", 0, index=0)
    assert conditions(controller) == []

    controller.finish("ns", "job", 0, index=1)
    assert conditions(controller) == ["SuccessCriteriaMet", "Complete"]


def test_a_suspended_job_loses_its_pods_and_does_not_fail() -> None:
    """Whoever suspends a Job, Kueue or a hand, ends its pods."""
    controller = played()
    pod = controller.start_pod("ns", "job")
    asyncio.run(controller.cluster.patch("Job", "ns", "job", {"spec": {"suspend": True}}))

    assert controller.sync("ns", "job")
    controller.end_pod("ns", pod, 143)
    assert controller.sync("ns", "job")

    assert controller.pods("ns", "job") == []
    assert conditions(controller) == []


def test_the_pods_of_a_deleted_job_are_collected_when_they_end() -> None:
    """Deletion in the background leaves a pod running until its container has ended."""
    controller = played()
    pod = controller.start_pod("ns", "job")
    uid = job_of(controller)["metadata"]["uid"]
    asyncio.run(controller.cluster.delete("Job", "ns", "job", uid))

    assert controller.collect()
    assert not controller.collect()
    left = controller.cluster.get("Pod", "ns", pod)
    assert left is not None
    assert observed.pod(left).is_running
    assert observed.pod(left).deleted_at is not None

    controller.end_pod("ns", pod, 143)
    assert controller.collect()
    assert controller.cluster.all("Pod") == []


def test_a_jobset_makes_the_job_of_its_ranks() -> None:
    """The child carries the labels of its template and goes with its JobSet."""
    controller = JobController(MemoryCluster())
    template = {
        "metadata": {"labels": {"selfimprove.dev/run": "run"}},
        "spec": {"template": {"spec": {"containers": [{"name": "stage", "image": "i"}]}}},
    }
    jobset = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "set", "namespace": "ns"},
        "spec": {"replicatedJobs": [{"name": "ranks", "template": template}]},
    }
    made = asyncio.run(controller.cluster.create(jobset)).manifest

    name = controller.start_jobset("ns", "set")
    job = controller.cluster.get("Job", "ns", name)

    assert name == "set-ranks-0"
    assert job is not None
    assert job["metadata"]["labels"] == {"selfimprove.dev/run": "run"}
    asyncio.run(controller.cluster.delete("JobSet", "ns", "set", made["metadata"]["uid"]))
    assert controller.collect()
    assert controller.cluster.all("Job") == []


def test_a_fault_can_come_before_or_after_the_effect() -> None:
    """A caller that gets an error never knows which of the two it was."""
    controller = played()
    cluster, uid = controller.cluster, job_of(controller)["metadata"]["uid"]
    for moment, left in (("before", 1), ("after", 0)):

        def fault(when: str, _: object, moment: str = moment) -> None:
            if when == moment:
                raise ConnectionError(moment)

        cluster.fault = fault
        with pytest.raises(ConnectionError):
            asyncio.run(cluster.delete("Job", "ns", "job", uid))
        assert len(cluster.all("Job")) == left
