"""A whole run as pods, one process a launch with no memory but the store.

Several launches are disturbed or split, and the artifacts are still those of the local runner.
"""

import json
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract.manifests import Index
from support.cli import MINIATURE, Cli, descendants, survivors, wait_for
from support.pods import Ended, Pods

pytestmark = pytest.mark.e2e

SPEC: dict[str, Any] = {
    "model": {"uri": "s3://miniature/m0", "dtype": "float32"},
    "languages": {"dominant": "en", "others": ["es", "de"]},
    "prompts": {"uri": "s3://miniature/prompts", "perIteration": 24, "selection": "disjoint"},
    "iterations": 1,
    "generation": {"repetitionPenalty": 1.0, "maxTokens": 32},
    "translation": {"maxTokens": 96},
    "inference": {"maxModelLen": 256},
    "training": {
        "beta": 0.1,
        "learningRate": 1e-4,
        "microBatchSize": 16,
        "maxLength": 256,
        "precision": "fp32",
        "saveDtype": "float32",
        "gradientCheckpointing": False,
    },
    "evaluation": {
        "suites": [{"name": "exactMatch", "uri": "s3://miniature/suite", "limit": 8}],
        "baselines": ["sft"],
    },
    "storage": {"bucket": "runs"},
}
ALL = ("evaluate", "generate", "translate", "pair", "score", "train")


@dataclass(frozen=True)
class World:
    """The same file run by the local runner and by pods."""

    pods: Pods
    ended: Mapping[str, Ended]
    """ended pods by what they did."""
    alone: dict[str, Any]
    """alone is `show -o json` of the local run."""
    rows_kept: int
    """rowsKept are those in the store after the inference pod was told to end."""

    @property
    def runs(self) -> Path:
        """The folder that is the bucket."""
        return self.pods.store / "runs"

    def index(self) -> Index:
        """Return the index of the run of pods."""
        return Index.of_line((self.runs / "runs" / "team.pods" / "index.json").read_bytes())


def file_of(folder: Path, **spec: Any) -> Path:
    """Write a run file as the operator mounts it."""
    path = folder / "run.json"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "selfimprove.dev/v1alpha1",
                "kind": "SelfImproveRun",
                "metadata": {"name": "pods", "namespace": "team"},
                "spec": SPEC | spec,
            }
        )
    )
    return path


def store_of(folder: Path) -> Path:
    """Make a store with the miniature's inputs."""
    for part in ("m0", "prompts", "suite"):
        shutil.copytree(MINIATURE / part, folder / "miniature" / part)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Run the file both ways."""
    folder = tmp_path_factory.mktemp("pods")
    file = file_of(folder)
    pods = Pods(file, store_of(folder / "store"), folder)
    ended: dict[str, Ended] = {"check": pods("check", 0)}
    assert ended["check"].code == 0, ended["check"]
    ended["told to end"], rows_kept = _told_to_end(pods)
    ended["evaluate"] = pods("inference", 0, "--stages", "evaluate")
    shards = [
        pods.start(
            "inference",
            0,
            "--stages=generate,translate",
            SELFIMPROVE_SHARDS="2",
            JOB_COMPLETION_INDEX=str(number),
        )
        for number in range(2)
    ]
    for number, shard in enumerate(shards):
        ended[f"shard {number}"] = shard.ended()
    # The light image has no vLLM and no GPU: what the answers' keys hold comes from the index.
    ended["pair"] = pods("light", 0, "--stages", "pair", "--engine", "vllm")
    ended["score"] = pods("light", 0, "--stages", "score", "--engine", "vllm")
    ended["training told to end"] = _training_told_to_end(pods)
    ended["train"] = pods("training", 0)
    ended["last"] = pods("inference", 1)
    ended["report"] = pods("report", 1)
    return World(pods, ended, _alone(folder, file), rows_kept)


def _told_to_end(pods: Pods) -> tuple[Ended, int]:
    """Send SIGTERM to an inference pod after its first rows; return how many are kept."""
    pod = pods.start("inference", 0)
    assert pod.process.stdout is not None
    while '"progress"' not in pod.process.stdout.readline():
        assert pod.process.poll() is None, pod.process.communicate()
    pod.process.send_signal(signal.SIGTERM)
    ended = pod.ended()
    files = [*pods.store.glob("runs/artifacts/*/*/parts/**/*.jsonl")]
    files += pods.store.glob("runs/artifacts/*/*/*.jsonl")
    return ended, sum(len(file.read_text().splitlines()) for file in files)


def _training_told_to_end(pods: Pods) -> Ended:
    """Send SIGTERM to a training pod whose rank has started."""
    pod = pods.start("training", 0)
    wait_for(lambda: len(descendants(pod.process)) >= 2, pod.process, "a rank")
    started = descendants(pod.process)
    pod.process.send_signal(signal.SIGTERM)
    ended = pod.ended()
    assert survivors(started) == []
    return ended


def _alone(folder: Path, file: Path) -> dict[str, Any]:
    cli = Cli(store_of(folder / "alone"), folder / "cache")
    common = (str(file), "--store", str(cli.store))
    ran = cli("run", *common, "--engine", "transformers")
    assert ran.code == 0, ran.errors
    shown: dict[str, Any] = json.loads(cli("show", *common, "-o", "json").output)
    return shown


def digest(world: World, iteration: int, stage: str) -> str:
    """Return a stage's digest as the local runner has it."""
    stages = world.alone["iterations"][iteration]["stages"]
    return str(next(found["digest"] for found in stages if found["name"] == stage))


def test_pods_make_what_the_local_runner_makes(world: World) -> None:
    """Whatever was split, disturbed or done in another image: the same digests of all stages."""
    messages = {
        name: world.ended[name].message.get("stages", {})
        for name in ("evaluate", "shard 0", "pair", "score", "train")
    }
    found = {stage: made for stages in messages.values() for stage, made in stages.items()}
    assert found == {stage: digest(world, 0, stage) for stage in ALL}
    measured = {stage: digest(world, 1, stage) for stage in ("evaluate", "gate")}
    assert world.ended["last"].message["stages"] == measured
    models = [iteration["model"]["digest"] for iteration in world.alone["iterations"]]
    assert [world.ended[name].message["model"] for name in ("train", "last")] == models
    assert not list(world.runs.glob("artifacts/*/*/parts/**/*.jsonl"))


def test_a_pod_that_is_told_to_end_ends_with_143_and_keeps_its_rows(world: World) -> None:
    """Process 1 of a pod gets SIGTERM; an exit code of 0 would make its Job complete."""
    inference = world.ended["told to end"]
    assert (inference.code, inference.message) == (143, {})
    assert world.rows_kept >= 1
    assert world.ended["training told to end"].code == 143


def test_totals_and_numbers_are_those_of_the_manifests(world: World) -> None:
    """The gain is that of `show`, and languages add up to the totals."""
    last = world.alone["iterations"][1]["evaluation"]
    totals = world.ended["last"].message["totals"]
    assert totals["gain"] == f"{last['gain']:+.3f}"
    others = [last["exactMatch"][language]["score"] for language in ("es", "de")]
    assert totals["score"] == f"{sum(others) / 2:.3f}"

    pair = world.ended["pair"]
    languages = pair.numbers["languages"]
    assert [found["language"] for found in languages] == ["en", "es", "de"]
    for name in ("pairs", "drops"):
        assert sum(found[name] for found in languages) == pair.message["totals"][name]
    assert {found["score"] for found in languages if found["language"] == "en"} == {
        f"{world.alone['iterations'][0]['evaluation']['exactMatch']['en']['score']:.3f}"
    }


def test_each_shard_does_its_own_rows_and_one_speaks_for_all(world: World) -> None:
    """Both end well; the totals are told by the first."""
    first, second = (world.ended[f"shard {number}"] for number in range(2))
    assert (first.code, second.code) == (0, 0)
    assert second.message == {"contract": "1", "digest": first.message["digest"]}
    done = [
        max(event["done"] for event in shard.events if event.get("stage") == "generate")
        for shard in (first, second)
    ]
    assert sum(done) <= 3 * 24
    assert all(done)


def test_a_finished_stage_is_told_again_without_its_model(world: World, tmp_path: Path) -> None:
    """A lost termination message costs seconds: nothing is fetched and no engine starts."""
    pods = replace(world.pods, store=shutil.copytree(world.pods.store, tmp_path / "store"))
    shutil.rmtree(pods.store / "miniature" / "m0")
    again = pods("inference", 0, "--stages=generate,translate")
    assert again.message == world.ended["shard 0"].message
    assert [event["event"] for event in again.events] == ["numbers"]
    assert again.numbers == world.ended["score"].numbers


def test_the_index_tells_what_computed_an_iteration(world: World) -> None:
    """Each section by the pod that has it, and an outcome with the report at the end."""
    index = world.index()
    assert index.outcome == "Succeeded"
    first, last = index.iterations
    assert set(first.toolchain) == {"inference", "translation", "light", "training"}
    assert first.toolchain["inference"]["engine"] == "transformers"
    assert first.toolchain["training"]["worldSize"] == "1"
    assert set(last.toolchain) == {"inference", "translation", "light"}
    assert set(first.finished) == {*ALL, "gate", "judge"}  # two have nothing to do
    assert sorted(first.computed) == sorted(
        key for keys in first.keys.values() for key in keys.values()
    )
    report = world.runs / "runs" / "team.pods" / "report"
    endings = ("changes.csv", "csv", "html", "json", "md")
    assert sorted(path.name for path in report.iterdir()) == [f"pods.{name}" for name in endings]
    assert world.ended["report"].numbers["languages"] == world.ended["last"].numbers["languages"]


def test_a_run_without_suites_names_its_last_model(world: World, tmp_path: Path) -> None:
    """No pod evaluates it, so the report's notes it in the index and tells the operator."""
    store = shutil.copytree(world.pods.store, tmp_path / "store")
    pods = replace(world.pods, file=file_of(tmp_path, evaluation={"suites": []}), store=store)
    for worker in ("check", "inference", "light", "training"):
        assert pods(worker, 0).code == 0
    report = pods("report", 1)

    index = Index.of_line((store / "runs" / "runs" / "team.pods" / "index.json").read_bytes())
    expected = [iteration["model"]["digest"] for iteration in world.alone["iterations"]]
    assert [entry.model_digest for entry in index.iterations] == expected
    assert index.iterations[1].finished == ("evaluate", "gate", "judge")
    assert report.message["model"] == expected[1]


def test_a_deleted_run_leaves_what_another_run_names(world: World, tmp_path: Path) -> None:
    """The other run shares the answers of M0; all else goes, and the inputs stay."""
    pods = replace(world.pods, store=shutil.copytree(world.pods.store, tmp_path / "store"))
    runs = pods.store / "runs"
    index = world.index()
    shared = {"generate": index.iterations[0].keys["generate"]}
    entry = index.iterations[0].model_copy(update={"keys": shared, "begun": {}})
    other = index.model_copy(update={"name": "other", "iterations": (entry,)})
    (runs / "runs" / "team.other").mkdir()
    (runs / "runs" / "team.other" / "index.json").write_bytes(other.line())

    deleted = pods("delete", 1)
    assert deleted.code == 0, deleted.errors
    left = {path.parent.name for path in runs.glob("artifacts/*/*/manifest.json")}
    assert left == set(shared["generate"].values())
    assert [path.name for path in (runs / "runs").iterdir()] == ["team.other"]
    assert list((pods.store / "miniature" / "prompts").iterdir())
    assert deleted.message["totals"]["kept"] == 3
    removed = [event for event in deleted.events if event["event"] == "removed"]
    assert len(removed) == deleted.message["totals"]["artifacts"]
    assert {event["stage"] for event in removed} >= {"reference", "train"}
