"""Kills, Ctrl-C and second starts: what is done stays done, and the result is the same."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from support.cli import MINIATURE, Cli, descendants, survivors, wait_for
from support.s3 import Server

pytestmark = pytest.mark.e2e
SMALL = (
    "iterations=1",
    "prompts.perIteration=130",
    "training.checkpointSteps=4",
    "training.epochs=3",  # the checkpoint of step 4 lies there while the others are trained
    "training.reportTo=[tensorboard]",
    "evaluation={suites: [{name: exactMatch, uri: 's3://miniature/suite', limit: 70}]}",
)
"""One iteration of one to two minutes: three flushes a language, fifteen or more steps."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the small run comes to when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    cli = Cli(folder / "store", folder / "cache")
    cli.upload_miniature()
    result = cli(*cli.run_arguments(*SMALL))
    assert result.code == 0, result.errors
    return {"cli": cli, **cli.show()}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Return a command line with a store that has the miniature's inputs and nothing else."""
    made = Cli(tmp_path / "store", tmp_path / "cache")
    made.upload_miniature()
    return made


def digests(status: dict[str, Any]) -> dict[str, str]:
    """Return the digest of every stage and model."""
    found = {f"M{i['index']}": i["model"]["digest"] for i in status["iterations"]}
    stages = {
        f"M{i['index']} {stage['name']}": stage["digest"]
        for i in status["iterations"]
        for stage in i["stages"]
    }
    return found | stages


def rows_seen(cli: Cli, stage: str) -> list[Path]:
    """Return the flushed rows of a stage's unfinished artifacts."""
    return [path for folder in cli.artifacts(stage) for path in folder.glob("parts/**/*.jsonl")]


def checkpoints(cli: Cli, stage: str) -> list[Path]:
    """Return the manifests of whole checkpoints."""
    found = [folder.glob("checkpoints/*/manifest.json") for folder in cli.artifacts(stage)]
    return [path for paths in found for path in paths]


def kill_all_at_once(process: subprocess.Popen[str]) -> list[str]:
    """Kill the runner as the kernel would, and return what lives on."""
    started = descendants(process)
    assert started
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return survivors(started)


def test_three_kills_cost_only_what_was_in_flight(cli: Cli, undisturbed: dict[str, Any]) -> None:
    """Killed while it generates, translates and trains, the run comes to the same digests.

    Flushed rows are not asked for again, training goes on from the checkpoint that was seen, and
    no process outlives its run.
    """
    for stage, seen in (("generate", rows_seen), ("translate", rows_seen), ("train", checkpoints)):
        process = cli.start(*cli.run_arguments(*SMALL))
        wait_for(lambda seen=seen, stage=stage: len(seen(cli, stage)) >= 1, process, stage)  # type: ignore[misc]
        assert kill_all_at_once(process) == []
    result = cli(*cli.run_arguments(*SMALL))
    assert result.code == 0, result.errors

    status = cli.show()
    assert digests(status) == digests(undisturbed)
    stages = {stage["name"]: stage for stage in status["iterations"][0]["stages"]}
    for name in ("generate", "translate"):
        counts = stages[name]["counts"]
        assert counts["resumedRows"] >= 64
        assert counts["requests"] + counts["resumedRows"] <= counts["rows"] + counts.get(
            "retried", 0
        )
    assert [e["worker"] for e in result.events if e["event"] == "worker"] == [
        "training",
        "inference",
    ]
    assert next(e["done"] for e in result.events if e.get("stage") == "train") > 4
    assert list(cli.store.rglob("parts/**/*.jsonl")) == []


def inference(cli: Cli, *settings: str) -> list[str]:
    """Return the arguments of the worker that evaluates, generates and translates with M0."""
    return ["worker", "inference", "--iteration", "0", *cli.run_arguments(*settings)[1:]]


def rows_of(cli: Cli, stage: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a stage's finished artifacts by file name."""
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for folder in cli.artifacts(stage)
        for path in folder.glob("*.jsonl")
    }


def test_a_killed_vllm_goes_on_with_the_same_ids_and_counts(
    tmp_path: Path, note: Callable[[str], None]
) -> None:
    """Batches may differ after a kill, and so may texts on vLLM; ids and counts may not."""
    settings = (*SMALL, "evaluation={suites: []}")
    killed, whole = (Cli(tmp_path / n, tmp_path / "cache", "vllm") for n in ("killed", "whole"))
    for cli in (killed, whole):
        cli.upload_miniature()
    process = killed.start(*inference(killed, *settings))
    wait_for(lambda: len(rows_seen(killed, "generate")) >= 2, process, "rows of generate")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    for cli in (killed, whole):
        result = cli(*inference(cli, *settings))
        assert result.code == 0, result.errors
    counts = [json.loads(path.read_text()) for path in killed.store.rglob("manifest.json")]
    generated = [m for m in counts if m["stage"] == "generate"]
    assert sum(m["counts"]["resumedRows"] for m in generated) >= 2
    assert all(m["counts"]["requests"] + m["counts"]["resumedRows"] == m["rows"] for m in generated)
    for stage in ("generate", "translate"):
        found, expected = rows_of(killed, stage), rows_of(whole, stage)
        ids = [
            {name: [r["id"] for r in rows] for name, rows in f.items()} for f in (found, expected)
        ]
        assert ids[0] == ids[1] != {}
        note(f"vLLM killed in {stage}: rows equal to an undisturbed run's: {found == expected}")


def test_the_same_file_runs_on_an_s3_server_with_the_same_keys(
    tmp_path: Path, s3_server: Server, undisturbed: dict[str, Any]
) -> None:
    """Digests and keys are those of the run in a folder; models are downloaded and open."""
    bucket = s3_server.make_bucket()
    cli = Cli(tmp_path / "store", tmp_path / "cache")
    uri = f"s3://{bucket}/in"
    suites = SMALL[-1].replace("s3://miniature", uri)
    settings = (
        *SMALL[:-1],
        suites,
        f"model.uri={uri}/m0",
        f"prompts.uri={uri}/prompts",
        f"storage.bucket={bucket}",
        "storage.prefix=team/runs",
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        for part in ("m0", "prompts", "suite"):
            assert cli("upload", str(MINIATURE / part), f"{uri}/{part}").code == 0
        file = str(MINIATURE / "run.yaml")
        chosen = [f"--set={setting}" for setting in settings]
        result = cli("run", file, "--engine", "transformers", *chosen)
        assert result.code == 0, result.errors
        shown = cli("show", file, "-o", "json", *chosen)
        exported = cli("export", "model", file, *chosen, "--out", str(tmp_path / "m1"))
    assert exported.code == 0, exported.errors
    status = json.loads(shown.output)

    assert digests(status) == digests(undisturbed)
    assert keys(status) == keys(undisturbed)
    assert status["iterations"][1]["model"]["uri"].startswith(f"s3://{bucket}/team/runs/artifacts/")
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m1")


def keys(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the artifacts of every stage with their keys."""
    return [stage["artifacts"] for i in status["iterations"] for stage in i["stages"]]


def test_ctrl_c_ends_every_process_and_says_how_to_go_on(cli: Cli) -> None:
    """Exit code 130, no process left, the run still counts as running."""
    # Tests in the background of a shell are deaf to it, and so would be what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = cli.start(*cli.run_arguments(*SMALL))
    wait_for(lambda: bool(rows_seen(cli, "generate")), process, "rows of generate")
    started = descendants(process)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate()

    assert process.returncode == 130
    assert "run again to go on where it was" in errors
    assert survivors(started) == []
    assert cli.show()["outcome"] == "Running"


def test_tensorboards_files_lie_in_the_artifact(undisturbed: dict[str, Any]) -> None:
    """Beside the model, in no digest; what is exported is the model without them."""
    cli: Cli = undisturbed["cli"]
    (folder,) = (made for made in cli.artifacts("train") if (made / "manifest.json").exists())
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {file["name"]: file for file in manifest["files"]}
    tracked = [name for name in files if name.startswith("tensorboard/")]
    assert [Path(name).name.split(".")[2] for name in tracked] == ["tfevents"]
    assert not any(files[name]["isPayload"] for name in tracked)
    assert all((folder / name).stat().st_size > 1000 for name in tracked)
    assert list(cli.cache.rglob("*tfevents*")) == []


def test_a_finished_run_starts_nothing_again(undisturbed: dict[str, Any]) -> None:
    """Running again says so, and every stage was found in the store."""
    cli: Cli = undisturbed["cli"]
    result = cli(*cli.run_arguments(*SMALL))

    assert (result.code, result.events) == (0, [])
    assert "nothing to do, everything is in the store" in result.output
    status = cli.show()
    assert all(stage["cached"] for i in status["iterations"] for stage in i["stages"])
    assert digests(status) == digests(undisturbed)
    assert not any(s["cached"] for i in undisturbed["iterations"] for s in i["stages"])


def test_a_changed_recipe_computes_only_what_depends_on_it(undisturbed: dict[str, Any]) -> None:
    """Another dominantPairs makes other pairs from the same answers and translations."""
    cli: Cli = undisturbed["cli"]
    result = cli(*cli.run_arguments(*SMALL, "pairing.dominantPairs=all"))

    assert result.code == 0, result.errors
    assert [event["worker"] for event in result.events if event["event"] == "worker"] == [
        "light",
        "training",
        "inference",
    ]
    cached = {s["name"]: s["cached"] for s in cli.show()["iterations"][0]["stages"]}
    assert cached == {
        "evaluate": True,
        "generate": True,
        "translate": True,
        "pair": False,
        "score": False,
        "train": False,
    }
