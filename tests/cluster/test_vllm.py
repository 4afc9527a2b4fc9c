"""What the README promises: the chart, `kubectl apply`, M0 -> M1 -> M2, a report.

Real vLLM, TRL and DeepSpeed in pods, operated by the chart's Deployment: one run undisturbed,
one that takes a fault in every stage.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from support import faults
from support.faults import Witness
from support.kube import JSON, is_finished, kubectl
from support.live_runs import LiveRun
from support.operators import Release, helm
from support.places import Place, digests, keys, on_this_machine, with_tasks


@pytest.fixture(scope="module")
def release(
    here: Place,
    operator_image: None,  # noqa: ARG001  it must be there
) -> Iterator[Release]:
    """Install the chart for the module's namespace."""
    made = Release(here.folder, f"{here.namespace}-operator")
    made.install(
        storage={"endpoint": os.environ["S3_ENDPOINT_FROM_PODS"]},
        watchNamespaces=[here.namespace],
    )
    yield made
    made.uninstall()


@pytest.fixture(scope="module")
def beside(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[JSON]]:
    """Begin the same file on this machine, which takes as long as on the cluster."""
    folder = tmp_path_factory.mktemp("beside")
    with ThreadPoolExecutor(1) as pool:
        body = here.manifest(**with_tasks(here.inputs))
        yield pool.submit(on_this_machine, body, here.inputs, folder, "vllm")


@pytest.fixture(scope="module")
def finished(
    here: Place,
    release: Release,  # noqa: ARG001  it must be there
    beside: Future[JSON],  # noqa: ARG001  it runs meanwhile
) -> LiveRun:
    """Return a run that went from M0 to M2 undisturbed, measured on tasks of lm-eval too."""
    with Witness(here.kube, here.namespace) as witness:
        run = here.apply(**with_tasks(here.inputs))
        run.until_done(within=900)
    assert witness.wrong == []
    return run


def test_kubectl_shows_how_far_it_is_and_what_came_of_it(finished: LiveRun) -> None:
    """The columns are there, conditions are set, describe tells the story in Events."""
    shown = kubectl("-n", finished.namespace, "get", "sir", finished.name).splitlines()
    assert shown[0].split() == ["NAME", "ITERATION", "STAGE", "PROGRESS", "SUCCEEDED", "AGE"]
    assert shown[1].split()[:2] == [finished.name, "2"]
    wide = kubectl("-n", finished.namespace, "get", "sir", finished.name, "-o", "wide")
    assert all(title in wide for title in ("PAIRS KEPT", "LAST GAIN", "MESSAGE"))

    conditions = {c["type"]: c["status"] for c in finished.status["conditions"]}
    assert conditions == {
        "Accepted": "True",
        "Suspended": "False",
        "QuotaReserved": "True",
        "Progressing": "False",
        "Succeeded": "True",
    }
    described = kubectl("-n", finished.namespace, "describe", "sir", finished.name)
    reasons = [event["reason"] for event in finished.events]
    assert {"Accepted", "IterationSucceeded", "Succeeded"} <= set(reasons)
    assert all(reason in described for reason in reasons)


def test_the_status_tells_iterations_numbers_and_images(finished: LiveRun) -> None:
    """Each iteration has its model, M1 and M2 their gain; images stand with their digests."""
    status = finished.status
    iterations = {entry["index"]: entry for entry in status["iterations"]}

    assert list(iterations) == [0, 1, 2]
    assert all(len(entry["modelDigest"]) == 64 for entry in iterations.values())
    assert all(entry["pairs"] > 0 for index, entry in iterations.items() if index < 2)
    assert [("gain" in iterations[index]) for index in (0, 1, 2)] == [False, True, True]
    assert {entry["index"] for entry in status["numbers"]} == {1, 2}
    languages = {row["language"] for row in status["numbers"][0]["languages"]}
    assert languages == {"en", "es", "de"}
    assert {image["role"] for image in status["images"]} == {"inference", "training", "light"}
    assert all("sha256:" in image["imageID"] for image in status["images"])
    assert all(stage["state"] == "Succeeded" for stage in status["stages"])


def test_the_store_has_the_models_and_the_report(finished: LiveRun, here: Place) -> None:
    """M1 and M2 are folders in MinIO, and the report lies beside the run's index."""
    shown = here.shown(finished)
    models = [i["model"]["uri"] for i in shown["iterations"]]

    assert (shown["outcome"], len(models)) == ("Succeeded", 3)
    for uri in models[1:]:
        names = {entry.uri.rsplit("/", 1)[1] for entry in here.server.store().entries(uri)}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    own = here.objects(f"{finished.name}/runs/")
    assert any(uri.endswith("index.json") for uri in own)
    assert any(uri.endswith(".html") for uri in own), own


def test_the_same_file_gives_the_same_models_on_one_machine(
    finished: LiveRun, here: Place, beside: Future[JSON]
) -> None:
    """`selfimprove run` on this machine comes to the same keys, pairs and M2."""
    shown, expected = here.shown(finished), beside.result()

    assert keys(shown) == keys(expected)
    assert digests(shown) == digests(expected)
    tasks = shown["iterations"][2]["evaluation"]["nlp"]
    assert {name: task["n"] for name, task in tasks.items()} == {
        "capitals": 4,
        "sums": 4,
        "texts": 4,
    }


def test_every_child_ended_and_the_charts_own_test_passes(
    finished: LiveRun, release: Release
) -> None:
    """One Job a unit, each complete after one launch; `helm test` is green."""
    jobs = finished.jobs

    assert len(jobs) == 9
    assert all(is_finished(job) for job in jobs)
    assert finished.orphans == []
    helm("test", release.name, "--namespace", release.namespace, "--timeout", "60s")


def test_a_fault_in_every_stage_costs_no_row(
    finished: LiveRun, here: Place, release: Release
) -> None:
    """Ids and counts are those of the undisturbed run, and the weak languages gain as well.

    Batches differ after a fault, and with them the last bits of what vLLM computes.
    """
    with Witness(here.kube, here.namespace) as witness:
        run = here.apply("disturbed", iterations=1, **with_tasks(here.inputs))
        run.until_at("check", 0)
        release.kill()
        faults.delete_pod(run.kube, run.until_at("inference", 0, stage="evaluate"))
        faults.evict(run.kube, run.until_at("inference", 0, stage="generate"))
        faults.force_away(run.kube, run.until_at("inference", 0, stage="translate"))
        run.until_at("light", 0)
        release.kill()
        faults.evict(run.kube, run.until_at("training", 0))
        faults.delete_pod(run.kube, run.until_at("evaluate", 1))
        status = run.until_done(within=300)

    assert witness.wrong == []
    assert run.orphans == []
    for stage in ("evaluate", "generate", "translate"):
        assert ids(here, run, stage) == ids(here, finished, stage) != {}
    pairs = [sum(map(len, ids(here, one, "pair").values())) for one in (finished, run)]
    assert abs(pairs[0] - pairs[1]) <= 0.1 * pairs[0]
    assert float(status["lastGain"]) > 0


def ids(here: Place, run: LiveRun, stage: str) -> dict[str, list[str]]:
    """Return the ids of the rows of a stage's artifacts in iteration 0 by part."""
    return {part: [row["id"] for row in rows] for part, rows in here.rows(run, 0, stage).items()}
