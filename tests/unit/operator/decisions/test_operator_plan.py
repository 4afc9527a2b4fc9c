"""What the operator decides, one situation at a time, on a cluster in memory."""

import json
from typing import Any

import pytest

from selfimprove_operator.api.status import (
    KIND,
    LABEL_MANAGED_BY,
    LABEL_RUN_UID,
    LABEL_UNIT,
    Status,
)
from support import runs
from support.machine import NAMESPACE, Machine, Operator
from support.memory_cluster import MemoryCluster

Key = tuple[str, str]


def spec(**values: Any) -> dict[str, Any]:
    made: dict[str, Any] = runs.file(**values)["spec"]
    return {**made, "storage": {"bucket": "runs", "endpoint": "http://store:9000"}}


def started(**values: Any) -> tuple[Machine, Key]:
    """Return a run whose `check` has been created."""
    machine = Machine()
    key = machine.apply("run", spec(**values))
    machine.settle()
    return machine, key


def at_inference(**values: Any) -> tuple[Machine, Key]:
    """Return a run whose first inference runs."""
    machine, key = started(**values)
    machine.succeed(machine.job())
    machine.settle()
    machine.controller.start_pod(NAMESPACE, machine.job())
    machine.settle()
    return machine, key


def said(machine: Machine, key: Key) -> tuple[str, str, str]:
    """Return status, reason and message of the outcome."""
    found = machine.condition(key, "Succeeded")
    return found.status, found.reason, found.message


def error(line: str) -> str:
    return json.dumps({"contract": "1", "error": line})


def verbs(cluster: MemoryCluster, kind: str) -> list[str]:
    return [call.verb for call in cluster.calls if call.kind == kind]


def test_the_status_is_written_before_the_first_child() -> None:
    """Start time and digest stand in the status before anything is created."""
    machine, key = started()
    writes = [c for c in machine.cluster.calls if c.verb in ("create", "patch-status")]
    assert writes[0].verb == "patch-status"
    assert [c.kind for c in writes[1:3]] == ["Job", "ControllerRevision"]
    status = machine.status(key)
    assert status.start_time
    assert status.recipe_digest


def test_nothing_is_called_when_nothing_changes() -> None:
    """A run that waits costs no call of the API server, but a look at Events ever more seldom."""
    machine, _ = started()
    machine.tick(1)
    before = len(machine.cluster.calls)
    machine.settle()
    assert machine.cluster.calls[before:] == []


def test_a_pod_that_has_ended_waits_for_nothing() -> None:
    """Until the Job says so too the status stays as it is, and no start deadline begins."""
    machine, key = at_inference()
    before, calls = machine.status(key), len(machine.cluster.calls)
    (pod,) = machine.controller.pods(NAMESPACE, machine.job())
    machine.controller.end_pod(NAMESPACE, pod["metadata"]["name"], 0)
    machine.settle()

    assert machine.status(key) == before
    assert [call for call in machine.cluster.calls[calls:] if call.verb == "patch-status"] == []


def test_wrong_input_ends_the_run_with_its_line() -> None:
    """Exit code 2 is final: no second launch, and the message is what the stage said."""
    machine, key = started()
    machine.end(machine.job(), 2, error("spec.prompts.uri: expected es.jsonl, found none"))
    machine.settle()
    assert said(machine, key) == (
        "False",
        "InputError",
        "spec.prompts.uri: expected es.jsonl, found none",
    )
    machine.tick(10_000)
    machine.settle()
    assert machine.jobs() == []


def test_what_the_check_warns_of_is_told_once() -> None:
    """As an Event of the run, which goes on."""
    machine, _ = started()
    machine.succeed(machine.job(), warning="mgsm in de: p1 (row 4)")
    machine.settle()
    machine.tick(11)
    machine.settle()
    warnings = [event for event in machine.told.events if event.kind == "Warning"]
    assert [(event.reason, event.message) for event in warnings] == [
        ("PromptsOverlap", "mgsm in de: p1 (row 4)")
    ]
    assert machine.job() == "run-0-inference-0"


@pytest.mark.parametrize(
    ("at", "reason"), [("inference", "StoppedByGate"), ("light", "NoPairs")], ids=["model", "pairs"]
)
def test_a_run_that_a_gate_stops_is_reported_and_succeeds(at: str, reason: str) -> None:
    """No later unit of the iteration and no later iteration begins, and the outcome says why."""
    machine, key = started()
    launched: list[str] = []

    def end(job: str) -> None:
        launched.append(job)
        is_stopped = job.startswith(f"run-0-{at}")
        totals = {"stopped": reason, "message": "the final model is M0"} if is_stopped else {}
        machine.succeed(job, **totals)

    machine.run_to_end(key, on_job=end)
    units = [job.split("-")[2] for job in launched]

    assert units == [*["check", "inference", "light"][: 2 + (at == "light")], "report"]
    assert said(machine, key) == ("True", reason, "the final model is M0")


def test_stages_that_a_gate_has_spared_are_not_shown_as_done() -> None:
    """What has a digest is done, what has none is still pending, and the iteration has ended."""
    machine, key = at_inference(evaluation={"suites": [{"name": "mgsm", "uri": "s3://suites/m"}]})
    stages = {"evaluate": "e" * 64, "gate": "f" * 64}
    totals = {"stopped": "StoppedByGate"}
    said = {"contract": "1", "digest": "d" * 64, "stages": stages, "totals": totals}
    machine.end(machine.job(), 0, json.dumps(said))
    machine.settle()
    status = machine.status(key)
    states = {stage.name: stage.state for stage in status.stages}

    assert machine.job().startswith("run-0-report")
    assert {name for name, state in states.items() if state == "Succeeded"} >= set(stages)
    assert states["generate"] == states["translate"] == "Pending"
    assert status.iterations[0].completion_time


def test_what_a_gate_decided_stands_beside_the_score() -> None:
    """By language, with the score's interval and the numbers of the decision."""
    machine, key = at_inference(evaluation={"suites": [{"name": "mgsm", "uri": "s3://suites/m"}]})
    told = {"language": "es", "score": "0.500", "scoreLow": "0.400", "scoreHigh": "0.600"}
    decided = {"gate": "Worse", "why": "-0.100 [-0.150, -0.050], p 0.001"}
    numbers = {"iteration": 0, "languages": [{**told, **decided, "unknown": 1}]}
    (pod,) = machine.controller.pods(NAMESPACE, machine.job())
    line = json.dumps({"event": "numbers", **numbers})
    machine.cluster.logs[NAMESPACE, pod["metadata"]["name"]] = line
    machine.succeed(machine.job())
    machine.settle()
    (found,) = machine.status(key).numbers

    shown = found.languages[0].model_dump(by_alias=True, exclude_none=True)
    assert shown == {**told, **decided}


@pytest.mark.parametrize("code", [1, 75, 137], ids=["failure", "try again", "killed for memory"])
def test_a_failure_is_an_attempt_with_a_back_off(code: int) -> None:
    """The program's own failure is launched again after 10 s, then 20 s, under a new number."""
    machine, key = at_inference()
    machine.end(machine.job(), code, error("no answer"))
    machine.settle()
    launch = machine.status(key).launch
    assert launch is not None
    assert (launch.attempts, launch.disruptions) == (1, 0)
    assert machine.jobs() == []
    machine.tick(9)
    machine.settle()
    assert machine.jobs() == []
    machine.tick(2)
    machine.settle()
    assert machine.job() == "run-0-inference-1"
    machine.end(machine.job(), code)
    machine.settle()
    machine.tick(19)
    machine.settle()
    assert machine.jobs() == []
    machine.tick(2)
    machine.settle()
    assert machine.job() == "run-0-inference-2"


@pytest.mark.parametrize("code", [143, 128], ids=["terminated", "not started"])
def test_what_the_infrastructure_ends_is_no_attempt(code: int) -> None:
    """SIGTERM and start errors count as disruptions, and the first is relaunched at once."""
    machine, key = at_inference()
    machine.end(machine.job(), code)
    machine.settle()
    launch = machine.status(key).launch
    assert launch is not None
    assert (launch.attempts, launch.disruptions) == (0, 1)
    assert machine.job() == "run-0-inference-1"


def test_an_eviction_is_a_disruption() -> None:
    """A pod taken by the eviction API is launched again under the next number."""
    machine, key = at_inference()
    job = machine.job()
    (pod,) = machine.controller.pods(NAMESPACE, job)
    machine.controller.evict(NAMESPACE, pod["metadata"]["name"])
    machine.controller.finish(NAMESPACE, job, 143)
    machine.settle()
    launch = machine.status(key).launch
    assert launch is not None
    assert (launch.attempts, launch.disruptions) == (0, 1)


def test_a_complete_job_without_its_result_is_launched_again() -> None:
    """Exit code 0 alone is no success: the digest in the termination message is."""
    machine, key = at_inference()
    machine.end(machine.job(), 0)
    machine.settle()
    assert machine.job() == "run-0-inference-1"
    reason = next(e.reason for e in machine.told.events if e.kind == "Warning")
    assert reason == "ResultLost"
    assert machine.status(key).iteration == 0


def test_a_deleted_job_is_launched_again_and_never_twice() -> None:
    """A Job that a hand deletes is confirmed to be gone, then launched under the next number."""
    machine, _ = at_inference()
    machine.cluster.remove("Job", NAMESPACE, machine.job())
    machine.settle()
    assert machine.jobs() == []
    (pod,) = [p for p in machine.cluster.all("Pod") if p["status"]["phase"] == "Running"]
    machine.cluster.vanish("Pod", NAMESPACE, pod["metadata"]["name"])
    machine.settle()
    assert machine.job() == "run-0-inference-1"


def test_a_launch_whose_end_is_not_told_yet_is_not_deleted() -> None:
    """Another operator took its outcome over; the run's event comes before the Job's."""
    machine, key = at_inference()
    machine.operators.append(Operator(machine))
    done = machine.job()
    machine.operators[1].deliver()
    machine.succeed(done)
    machine.operators[0].deliver()
    while machine.operators[0].dirty:
        machine.step(key)
    machine.operators[1].deliver_ahead(KIND)
    machine.step(key, number=1)
    machine.settle()
    assert machine.cluster.get("Job", NAMESPACE, done) is not None
    assert machine.job() == "run-0-light-0"


@pytest.mark.parametrize("label", [LABEL_MANAGED_BY, LABEL_RUN_UID, LABEL_UNIT])
def test_a_label_that_a_hand_removes_comes_back(label: str) -> None:
    """The Job of the launch stays the launch, and is as it was."""
    machine, key = at_inference()
    job = machine.jobs()[0]
    made = dict(job["metadata"]["labels"])
    del job["metadata"]["labels"][label]
    machine.cluster.put(job)
    machine.settle()
    assert machine.jobs()[0]["metadata"]["labels"] == made
    launch = machine.status(key).launch
    assert launch is not None
    assert launch.number == 0


def test_a_job_suspended_by_hand_waits_for_no_quota() -> None:
    """It goes on at once, and the condition still says that no queue was named."""
    machine, key = at_inference()
    job = machine.jobs()[0]
    machine.cluster.put({**job, "spec": {**job["spec"], "suspend": True}})
    machine.settle()
    assert machine.jobs()[0]["spec"]["suspend"] is False
    assert machine.condition(key, "QuotaReserved").reason == "NotQueued"


def test_the_limit_of_attempts_ends_the_run() -> None:
    """After `retries.limit` relaunches the outcome is False, with the last line."""
    machine, key = at_inference(retries={"limit": 1})
    machine.end(machine.job(), 1, error("out of range"))
    machine.settle()
    machine.tick(12)
    machine.settle()
    machine.end(machine.job(), 1, error("out of range"))
    machine.settle()
    status, reason, message = said(machine, key)
    assert (status, reason) == ("False", "RetriesExceeded")
    assert "out of range" in message


def test_a_finished_run_starts_nothing_when_its_jobs_go() -> None:
    """Terminal is absorbing: deleting every finished Job and Pod starts nothing."""
    machine = Machine()
    key = machine.apply("run", spec())
    machine.run_to_end(key)
    assert said(machine, key)[0] == "True"
    for job in machine.jobs(live=False):
        machine.cluster.remove("Job", NAMESPACE, job["metadata"]["name"])
    machine.settle()
    machine.tick(600)
    machine.settle()
    assert machine.jobs(live=False) == []


def test_suspending_frees_the_pods_and_resuming_goes_on() -> None:
    """`suspend` deletes the launch and says so when its pods are gone; the next one goes on."""
    machine, key = at_inference()
    machine.change(key, suspend=True)
    machine.settle()
    assert machine.jobs() == []
    assert machine.condition(key, "Suspended").status != "True"
    for pod in machine.cluster.all("Pod"):
        if pod["status"]["phase"] == "Running":
            machine.cluster.vanish("Pod", NAMESPACE, pod["metadata"]["name"])
    machine.settle()
    assert machine.condition(key, "Suspended").status == "True"
    machine.tick(3600)
    machine.settle()
    assert machine.jobs() == []
    machine.change(key, suspend=False)
    machine.settle()
    assert machine.job() == "run-0-inference-1"
    assert machine.condition(key, "Suspended").status == "False"


def test_a_run_that_begins_suspended_is_accepted_and_not_started() -> None:
    """A suspended run can still be changed: startTime is set when it first runs."""
    machine, key = started(suspend=True)
    assert machine.jobs() == []
    assert machine.status(key).start_time is None
    assert machine.condition(key, "Suspended").status == "True"
    machine.change(key, suspend=False)
    machine.settle()
    assert machine.job() == "run-0-check-0"


@pytest.mark.parametrize(
    ("deadline", "reason"),
    [
        ("runSeconds", "RunDeadlineExceeded"),
        ("stageSeconds", "StageDeadlineExceeded"),
        ("startSeconds", "StartDeadlineExceeded"),
    ],
)
def test_a_deadline_ends_the_run_with_its_reason(deadline: str, reason: str) -> None:
    """Each deadline that passes decides the outcome and ends what still runs."""
    machine, key = started(deadlines={deadline: 100})
    machine.tick(99)
    machine.settle()
    assert said(machine, key)[0] == "Unknown"
    machine.tick(2)
    machine.settle()
    assert said(machine, key)[:2] == ("False", reason)
    machine.settle()
    assert machine.jobs() == []


def test_the_start_deadline_stands_still_while_a_launch_runs() -> None:
    """A pod that came to run is never ended for `startSeconds`."""
    machine, key = at_inference(deadlines={"startSeconds": 100})
    machine.tick(500)
    machine.settle()
    assert said(machine, key)[0] == "Unknown"


def test_waiting_for_quota_starts_no_deadline() -> None:
    """A launch that Kueue holds says so, and no clock runs until it is admitted."""
    deadlines = {"runSeconds": 50, "stageSeconds": 50, "startSeconds": 50}
    machine, key = started(scheduling={"queueName": "gpu"}, deadlines=deadlines)
    assert machine.condition(key, "QuotaReserved").reason == "WaitingForQuota"
    machine.tick(1000)
    machine.settle()
    assert said(machine, key)[0] == "Unknown"
    job = machine.cluster.get("Job", NAMESPACE, machine.job())
    assert job is not None
    machine.cluster.put({**job, "spec": {**job["spec"], "suspend": False}})
    machine.settle()
    assert machine.condition(key, "QuotaReserved").status == "True"
    machine.tick(51)
    machine.settle()
    assert said(machine, key)[0] == "False"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("Unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        ("ImagePullBackOff", 'Back-off pulling image "nowhere:none"'),
        ("CreateContainerConfigError", 'secret "minio" not found'),
    ],
)
def test_what_a_pod_waits_for_is_said(reason: str, message: str) -> None:
    """`Progressing` carries reason and message of a pod that does not run."""
    machine, key = started()
    pod = machine.controller.add_pod(NAMESPACE, machine.job())
    machine.controller.hold_pod(NAMESPACE, pod, reason, message)
    machine.settle()
    found = machine.condition(key, "Progressing")
    assert (found.status, found.reason) == ("False", reason)
    assert message in found.message
    assert message in (machine.status(key).message or "")


def test_why_a_job_has_no_pods_is_read_from_its_events() -> None:
    """Quota and Pod Security are told in Events alone: they are read after 3 s."""
    machine, key = started()
    job = machine.cluster.get("Job", NAMESPACE, machine.job())
    assert job is not None
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "refused", "namespace": NAMESPACE},
        "involvedObject": {"uid": job["metadata"]["uid"]},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": "Error creating: pods is forbidden: exceeded quota: gpus",
        "lastTimestamp": "2027-01-15T08:00:00Z",
    }
    machine.cluster.add(event)
    machine.tick(4)
    machine.settle()
    found = machine.condition(key, "Progressing")
    assert found.reason == "FailedCreate"
    assert "exceeded quota: gpus" in found.message


def test_a_time_to_live_deletes_the_run() -> None:
    """A finished run is deleted when its time is over, and not before."""
    machine = Machine()
    key = machine.apply("run", spec(ttlSecondsAfterFinished={"succeeded": 100, "failed": 5}))
    machine.run_to_end(key)
    machine.tick(50)
    machine.settle()
    assert machine.cluster.get("SelfImproveRun", *key) is not None
    machine.tick(51)
    machine.settle()
    assert machine.cluster.get("SelfImproveRun", *key) is None


def delete(machine: Machine, key: Key) -> None:
    machine.cluster.remove("SelfImproveRun", *key)
    machine.settle()


def test_deleting_a_run_with_its_artifacts_waits_for_their_removal() -> None:
    """With `deletionPolicy: Delete` a light launch removes the artifacts, then the run goes."""
    machine, key = at_inference(deletionPolicy="Delete")
    delete(machine, key)
    for pod in machine.cluster.all("Pod"):
        if pod["status"]["phase"] == "Running":
            machine.cluster.vanish("Pod", NAMESPACE, pod["metadata"]["name"])
    machine.settle()
    assert machine.job() == "run-0-delete-0"
    machine.succeed(machine.job())
    machine.settle()
    assert machine.cluster.get("SelfImproveRun", *key) is None


def test_a_removal_that_fails_for_ten_minutes_gives_the_run_up() -> None:
    """The finalizer never holds a run for longer; an Event names what is left."""
    machine = Machine()
    key = machine.apply("run", spec(deletionPolicy="Delete"))
    machine.run_to_end(key)
    delete(machine, key)
    for _ in range(40):
        for job in machine.jobs():
            machine.end(job["metadata"]["name"], 75, error("no answer"))
        machine.tick(20)
        machine.settle()
    assert machine.cluster.get("SelfImproveRun", *key) is None
    assert [e.message for e in machine.told.events if e.reason == "ArtifactsLeft"]


def test_a_namespace_that_ends_is_not_delayed() -> None:
    """Where nothing can be created any more the finalizer goes at once."""
    machine = Machine()
    key = machine.apply("run", spec(deletionPolicy="Delete"))
    machine.run_to_end(key)
    machine.cluster.ending_namespaces.add(NAMESPACE)
    delete(machine, key)
    assert machine.cluster.get("SelfImproveRun", *key) is None


def test_iterations_may_grow_while_a_run_is_under_way() -> None:
    """A run whose `iterations` grew goes on where it would have ended."""
    machine = Machine()
    key = machine.apply("run", spec(iterations=1))

    def grow(job: str) -> None:
        if "-1-report-" in job:
            machine.change(key, iterations=2)
        machine.succeed(job)

    machine.run_to_end(key, on_job=grow)
    units = {job["metadata"]["name"] for job in machine.jobs(live=False)}
    assert "run-1-training-0" in units
    assert machine.status(key).iteration == 2


@pytest.mark.parametrize("number", range(14))
def test_a_crash_after_any_write_loses_nothing(number: int) -> None:
    """The process may end before or after any of its writes: each unit still runs once."""
    machine = Machine()
    key = machine.apply("run", spec(iterations=1))
    machine.crash_at(number)
    machine.run_to_end(key)
    assert said(machine, key)[0] == "True"
    names = sorted(job["metadata"]["name"] for job in machine.jobs(live=False))
    assert names == sorted(
        f"run-{u}-0" for u in ("0-check", "0-inference", "0-light", "0-training", "1-report")
    )


def test_the_status_stays_small() -> None:
    """A status never holds more than the numbers of two iterations."""
    machine = Machine()
    key = machine.apply("run", spec(iterations=4))
    machine.run_to_end(key, limit=200)
    status = machine.status(key)
    assert len(status.iterations) == 5
    assert len(status.numbers) <= 2
    assert status.launch is None
    assert Status.model_validate_json(status.model_dump_json(by_alias=True, exclude_none=True))
