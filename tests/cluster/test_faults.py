"""One child is disturbed after another, by people, nodes and the operator's own death.

On the transformers engine every run comes to the digests of an undisturbed one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import pytest

from selfimprove_operator.api.status import (
    LABEL_LAUNCH,
    LABEL_MANAGED_BY,
    LABEL_RUN,
    LABEL_RUN_UID,
    LABEL_UNIT,
)
from support import faults
from support.faults import Witness
from support.kube import JSON, Kube, eventually, is_finished, name_of
from support.live_runs import LiveRun, condition_of
from support.operators import OperatorProcess
from support.places import Place, digests

UNITS: Final = (
    ("check", 0),
    ("inference", 0),
    ("light", 0),
    ("training", 0),
    ("inference", 1),
    ("light", 1),
    ("training", 1),
    ("evaluate", 2),
    ("report", 2),
)


@pytest.fixture(scope="module")
def witness(here: Place) -> Iterator[Witness]:
    """Watch the module's namespace."""
    with Witness(here.kube, here.namespace) as made:
        yield made


def test_an_operator_killed_and_a_child_lost_in_every_stage(
    here: Place, operator: OperatorProcess, witness: Witness, undisturbed: dict[str, str]
) -> None:
    """Same digests, nothing launched twice at once, no orphan, and each loss is counted."""
    run = here.apply("lossy")
    for unit, iteration in UNITS:
        pod = run.until_at(unit, iteration)
        operator.restart()
        if disturb := LOSSES.get((unit, iteration)):
            disturb(run, pod, operator)
    status = run.until_done(within=300)

    assert witness.wrong == []
    assert run.orphans == []
    assert digests(here.shown(run)) == undisturbed
    told = [event["reason"] for event in run.events if event["type"] == "Warning"]
    assert len([reason for reason in told if reason in DISRUPTIONS]) >= 4, told
    assert "RetriesExceeded" not in told
    assert status["iterations"][2]["modelDigest"] == undisturbed["M2"]


def lose_pod(run: LiveRun, pod: JSON, _operator: OperatorProcess) -> None:
    """Delete the pod."""
    faults.delete_pod(run.kube, pod)


def lose_to_eviction(run: LiveRun, pod: JSON, _operator: OperatorProcess) -> None:
    """Evict the pod."""
    faults.evict(run.kube, pod)


def lose_by_force(run: LiveRun, pod: JSON, _operator: OperatorProcess) -> None:
    """Take the pod away without its node's word."""
    faults.force_away(run.kube, pod)


def lose_finished_job(run: LiveRun, pod: JSON, operator: OperatorProcess) -> None:
    """Delete the Job when it has finished and no operator has seen it."""
    operator.kill()
    run.kube.delete("Job", run.namespace, finished_job_of(run, pod))
    operator.start()


def lose_nothing(run: LiveRun, pod: JSON, operator: OperatorProcess) -> None:
    """Keep the operator away until the Job has finished."""
    operator.kill()
    finished_job_of(run, pod)
    operator.start()


def finished_job_of(run: LiveRun, pod: JSON) -> str:
    """Return the name of a pod's Job, once it has finished."""
    job: str = pod["metadata"]["labels"][faults.JOB]
    eventually(
        lambda: is_finished(run.kube.get("Job", run.namespace, job) or {}),
        within=120,
        what=f"{job} to finish",
        otherwise=run.dump,
    )
    return job


LOSSES: Final[Mapping[tuple[str, int], Callable[[LiveRun, JSON, OperatorProcess], None]]] = {
    ("inference", 0): lose_pod,
    ("light", 0): lose_finished_job,
    ("training", 0): lose_to_eviction,
    ("inference", 1): lose_by_force,
    ("light", 1): lose_nothing,
    ("training", 1): lose_pod,
    ("evaluate", 2): lose_to_eviction,
}
DISRUPTIONS: Final = {
    "DeletionByTaintManager",
    "EvictionByEvictionAPI",
    "JobDeleted",
    "PodLost",
    "PodTerminated",
    "ResultLost",
}


@pytest.mark.usefixtures("operator")
def test_suspended_and_resumed_in_every_stage(
    here: Place, witness: Witness, undisturbed: dict[str, str]
) -> None:
    """A suspended run holds no pod and says so; resumed, it comes to the same M1."""
    run = here.apply("patient", iterations=1)
    for unit, iteration in (*UNITS[:4], ("evaluate", 1), ("report", 1)):
        run.until_at(unit, iteration)
        run.patch(suspend=True)
        run.until(
            lambda status: condition_of(status, "Suspended").get("status") == "True",
            within=90,
            what=f"suspended in {unit}",
        )
        assert run.orphans == []
        assert [name_of(job) for job in run.jobs if not is_finished(job)] == []
        run.patch(suspend=False)
    status = run.until_done(within=300)

    assert witness.wrong == []
    assert run.orphans == []
    assert status["iterations"][1]["modelDigest"] == undisturbed["M1"]


EDITS: Final[Mapping[str, JSON]] = {
    "no pods wanted": {"spec": {"parallelism": 0}},
    "suspended": {"spec": {"suspend": True}},
    "a deadline that is far": {"spec": {"activeDeadlineSeconds": 3600}},
    "our label removed": {"metadata": {"labels": {LABEL_MANAGED_BY: None}}},
    "the run's labels removed": {"metadata": {"labels": {LABEL_RUN: None, LABEL_RUN_UID: None}}},
    "the launch's labels removed": {"metadata": {"labels": {LABEL_UNIT: None, LABEL_LAUNCH: None}}},
    "the owner removed": {"metadata": {"ownerReferences": None}},
}


@pytest.mark.usefixtures("operator")
def test_a_child_edited_by_hand_is_mended(
    here: Place, witness: Witness, undisturbed: dict[str, str]
) -> None:
    """Every edit is undone within seconds; a deadline that has passed costs one launch."""
    run = here.apply("edited", iterations=1)
    pod = run.until_at("inference", 0)
    job = pod["metadata"]["labels"][faults.JOB]
    made = expected(run.kube, run.namespace, job)
    for name, edit in EDITS.items():
        run.kube.patch("Job", run.namespace, job, edit)
        eventually(
            lambda: expected(run.kube, run.namespace, job) == made,
            within=10,
            what=f"mended: {name}",
            otherwise=run.dump,
        )
    assert run.status["launch"]["jobName"] == job
    run.until_at("training", 0)
    job = run.status["launch"]["jobName"]
    run.kube.patch("Job", run.namespace, job, {"spec": {"activeDeadlineSeconds": 1}})
    status = run.until_done(within=300)

    assert witness.wrong == []
    assert run.orphans == []
    assert status["iterations"][1]["modelDigest"] == undisturbed["M1"]


def expected(kube: Kube, namespace: str, name: str) -> dict[str, Any]:
    """Return what of a Job a hand may change."""
    job = kube.get("Job", namespace, name)
    assert job is not None, f"expected the Job {name}, found none"
    spec, metadata = job["spec"], job["metadata"]
    fields: Sequence[str] = ("parallelism", "suspend", "activeDeadlineSeconds")
    owners = [owner["uid"] for owner in metadata.get("ownerReferences", ())]
    labels = {k: v for k, v in metadata["labels"].items() if k.startswith(("selfimprove", "app."))}
    return {"labels": labels, "owners": owners, **{name: spec.get(name) for name in fields}}
