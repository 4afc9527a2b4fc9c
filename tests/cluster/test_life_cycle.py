"""How runs end and what stays of them: time to live, deletion, growth, children that go.

Everything is done with runs of one iteration over a few prompts; what they share is computed
once, as they lie in one bucket.
"""

from typing import Any

import pytest

from support.kube import eventually, is_live, kubectl, name_of
from support.live_runs import LiveRun
from support.operators import OperatorProcess
from support.places import Place

pytestmark = pytest.mark.usefixtures("operator", "finished")

TINY: dict[str, Any] = {
    "prompts": {"perIteration": 8},
    "iterations": 1,
    "evaluation": {"suites": []},
    "storage": {"prefix": "shared"},
}


@pytest.fixture(scope="module")
def finished(
    here: Place,
    operator: OperatorProcess,  # noqa: ARG001  it must be there
) -> LiveRun:
    """Return a run that has succeeded and stays."""
    run = here.apply("finished", **TINY)
    run.until_done(within=240)
    return run


def test_a_finished_child_that_goes_starts_nothing(finished: LiveRun) -> None:
    """With all its Jobs deleted a finished run stays as it is."""
    before = finished.status
    for job in finished.jobs:
        finished.kube.delete("Job", finished.namespace, name_of(job))
    eventually(lambda: finished.jobs == [], within=20, what="no Job")
    kubectl("-n", finished.namespace, "annotate", "sir", finished.name, "touched=yes")
    finished.until(
        lambda _: "touched" in finished.body["metadata"]["annotations"], within=10, what="touch"
    )

    assert finished.jobs == []
    assert finished.status == before


def test_a_finished_run_does_not_grow(finished: LiveRun) -> None:
    """The message says what to do instead: apply it under a new name."""
    patch = '{"spec": {"iterations": 2}}'
    arguments = (
        "-n",
        finished.namespace,
        "patch",
        "sir",
        finished.name,
        "--type=merge",
        "-p",
        patch,
    )
    said = kubectl(*arguments, is_good=False)
    assert "new name" in said


def test_a_running_run_grows(here: Place) -> None:
    """M2 follows M1 when iterations is raised before the end; what was done stays done."""
    run = here.apply("growing", **TINY)
    run.until(
        lambda s: s["launch"]["unit"] in ("light", "training", "report"), within=60, what="light"
    )
    run.patch(iterations=2)
    status = run.until_done(within=240)

    assert [entry["index"] for entry in status["iterations"]][:2] == [0, 1]
    assert len(here.shown(run)["iterations"]) == 3


def test_a_run_goes_by_itself_when_its_time_is_over(here: Place) -> None:
    """Its ttlSecondsAfterFinished deletes the run with its children; the artifacts stay."""
    run = here.apply("short-lived", ttlSecondsAfterFinished={"succeeded": 3}, **TINY)
    run.until_gone(within=120)
    eventually(lambda: run.jobs == [] and run.pods == [], within=30, what="no child")

    assert here.objects("shared/artifacts/train/")


def test_a_run_deleted_at_work_frees_its_node(here: Place) -> None:
    """Half a minute after `kubectl delete` no pod of the run lives."""
    run = here.apply("unwanted", **(TINY | {"storage": {"prefix": "unwanted"}}))
    run.until_at("inference", 0)
    kubectl("-n", run.namespace, "delete", "sir", run.name, "--wait=false")
    run.until_gone(within=30)
    eventually(
        lambda: not [pod for pod in run.pods if is_live(pod)],
        within=30,
        what="no pod of the deleted run",
    )
    eventually(lambda: run.jobs == [], within=10, what="no Job of the deleted run")


def test_artifacts_go_with_their_last_run(here: Place) -> None:
    """Of two runs that share M0's answers the first takes its own model, the second the rest."""
    common = TINY | {"storage": {"prefix": "fleeting"}, "deletionPolicy": "Delete"}
    first = here.apply("first", **common)
    first.until_done(within=240)
    second = here.apply("second", **common, training={"beta": 0.2})
    second.until_done(within=240)
    assert len(models(here)) == 2

    first.delete()
    first.until_gone(within=90)
    left = models(here)
    assert len(left) == 1
    _, trained = here.shown(second)["iterations"]
    assert left == [trained["model"]["uri"].rstrip("/")]
    assert here.objects("fleeting/artifacts/generate/")

    second.delete()
    second.until_gone(within=90)
    assert here.objects("fleeting/") == []


def models(here: Place) -> list[str]:
    """Return the URIs of the models in the shared part of the bucket."""
    uris = here.objects("fleeting/artifacts/train/")
    return sorted({uri.rsplit("/", 1)[0] for uri in uris if uri.endswith("model.safetensors")})


def test_artifacts_that_cannot_be_removed_are_named(here: Place) -> None:
    """A deletion whose Job cannot run is waited for; lifting the policy lets the run go."""
    run = here.apply(
        "stuck",
        **(TINY | {"deletionPolicy": "Delete", "suspend": False}),
        pods={"light": {"image": "localhost/nothing:1"}},
    )
    run.until(lambda _: run.jobs, within=20, what="a first Job")
    run.delete()
    run.until(lambda s: (s.get("launch") or {}).get("unit") == "delete", within=30, what="deleting")
    run.patch(deletionPolicy="Retain")
    run.until_gone(within=30)


def flipped(here: Place, name: str, **gates: Any) -> LiveRun:
    """Apply a run that takes a weak language for the dominant one; both share M0's answers."""
    return here.apply(
        name,
        languages={"dominant": "de", "others": ["en"]},
        prompts={"perIteration": 200},
        evaluation={"suites": [{"name": "exactMatch", "uri": f"{here.inputs}/suite"}]},
        storage={"prefix": "gated"},
        gates=gates,
    )


def test_a_run_whose_labels_are_wrong_trains_nothing(here: Place) -> None:
    """Gold answers contradict its pairs: it succeeds with M0, reported, and says why."""
    run = flipped(here, "contradicted")
    status = run.until_done(within=240)

    assert run.condition("Succeeded")["reason"] == "NoPairs"
    (numbers,) = status["numbers"]
    told = {row["language"]: (row["gate"], row["why"]) for row in numbers["languages"]}
    assert {gate for gate, _ in told.values()} == {"LeftOut"}
    assert all(why.startswith("accuracy 0.") for _, why in told.values())
    assert here.objects("gated/artifacts/train/") == []
    assert [uri for uri in here.objects("gated/runs/") if uri.endswith(".html")]


def test_a_model_that_is_worse_is_refused(here: Place) -> None:
    """M1 is measured before it answers anything, and the run has come to M0."""
    run = flipped(here, "refused", minimumDecided=1_000_000)
    status = run.until_done(within=300)
    shown = here.shown(run)

    assert run.condition("Succeeded")["reason"] == "StoppedByGate"
    assert "the final model is M0" in run.condition("Succeeded")["message"]
    gates = {row["language"]: row["gate"] for row in status["numbers"][-1]["languages"]}
    assert "Worse" in gates.values()
    assert [stage["name"] for stage in shown["iterations"][1]["stages"]] == ["evaluate", "gate"]
    assert shown["final"] == 0
