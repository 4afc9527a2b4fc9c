"""The local runner's decisions, with workers that only commit what they are asked for."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract.errors import InputError, SelfImproveError, TryAgainError
from selfimprove_pipeline.contract.keys import Toolchain
from selfimprove_pipeline.contract.manifests import Index
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.stages import WORKERS, Worker
from selfimprove_pipeline.local import runner
from selfimprove_pipeline.run import ledger, status
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.survey import manifest_of, survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from support.runs import run

TOOLCHAIN = Toolchain(inference={}, light={}, training={}, translation={})
ALL: tuple[Stage, ...] = ("evaluate", "gate", "generate", "translate", "pair", "score", "train")
WORSE = {"worse.es": 1.0, "change.es": -0.3, "low.es": -0.4, "high.es": -0.2, "p.es": 0.01}


def setting(folder: Path, *, num_prompts: int = 8, **values: Any) -> Setting:
    """Return a run on a folder that has its model and prompts."""
    model, prompts = folder / "models" / "m0", folder / "prompts" / "set"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    prompts.mkdir(parents=True, exist_ok=True)
    for language in ("en", "es", "de"):
        rows = [{"id": f"p{n}", "prompt": f"{language} {n}"} for n in range(num_prompts)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (prompts / f"{language}.jsonl").write_text(lines)
    store = FolderStore(folder)
    repository = Repository(store, bucket="runs", prefix="", cache=folder / "cache")
    spec = {"iterations": 2, "prompts__selection": "disjoint", **values}
    return Setting(run(**spec), store, repository, TOOLCHAIN, "vllm", folder / "cache")


class Committing:
    """A `runner.Spawn` whose workers commit an artifact for every target of some stages."""

    def __init__(
        self, setting: Setting, stages: Sequence[Stage] = ALL, *, refused: int | None = None
    ) -> None:
        self.setting = setting
        self.refused = refused
        self.stages = stages
        self.spawned: list[tuple[str, int]] = []

    def __call__(self, worker: Worker, index: int) -> None:
        """Commit what is missing of the worker's stages."""
        self.spawned.append((worker, index))
        model = ledger.model_at(self.setting, index)
        for name in WORKERS[worker]:
            found = survey(self.setting.iteration(index, model), self.setting.repository.manifest)
            if name in found and name in self.stages:
                for target in found[name].missing:
                    asked = target.inputs.get("suite", "")
                    content = f"{name} {target.part} {index} {asked}".encode()
                    counts = {"refused": int(index == self.refused), "tooLittleGain": 0}
                    measures = WORSE if index == self.refused else {}
                    gate = {"counts": counts, "measures": measures} if name == "gate" else {}
                    manifest = manifest_of(target, **gate)
                    self.setting.repository.commit(manifest, {"rows.jsonl": content})


def start(one: Setting, spawn: runner.Spawn) -> Index:
    return runner.run(one, spawn, lambda *_: None, lambda _: None)


def index_of(one: Setting) -> Index:
    found = one.read_index()
    assert found is not None
    return found


def test_a_run_spawns_each_worker_once_and_the_second_time_none(tmp_path: Path) -> None:
    """Two iterations of three processes; without suites the last model needs none."""
    one = setting(tmp_path)
    spawn = Committing(one)
    assert start(one, spawn).outcome == "Succeeded"
    iteration = ["inference", "light", "training"]
    assert spawn.spawned == [(worker, index) for index in (0, 1) for worker in iteration]

    again = setting(tmp_path)
    second = Committing(again)
    assert start(again, second).outcome == "Succeeded"
    assert second.spawned == []
    assert all(entry.computed == () for entry in index_of(again).iterations)


def test_more_iterations_go_on_from_what_is_there(tmp_path: Path) -> None:
    """Raising `iterations` on a finished run computes the new ones alone."""
    first = setting(tmp_path)
    start(first, Committing(first))
    longer = setting(tmp_path, iterations=3)
    spawn = Committing(longer)
    start(longer, spawn)

    assert {index for _, index in spawn.spawned} == {2}


def test_the_baseline_of_a_finished_run_costs_what_it_adds(tmp_path: Path) -> None:
    """One more training of M0 and one more evaluation beside M1; deleting the index finds both."""
    suites = [{"name": "offTarget", "uri": "s3://prompts/set", "limit": 3}]
    plain = setting(tmp_path, evaluation__suites=suites)
    start(plain, Committing(plain))
    asked = setting(tmp_path, evaluation__suites=suites, evaluation__baselines=["sft"])
    spawn = Committing(asked)
    assert start(asked, spawn).outcome == "Succeeded"

    assert spawn.spawned == [("training", 0), ("inference", 1)]
    first, second, third = index_of(asked).iterations
    assert set(first.keys["train"]) == {"", "sft"}
    assert {"offTarget.de", "offTarget+sft.de"} <= set(second.keys["evaluate"])
    assert set(second.keys["train"]) == {""}
    assert not any("sft" in part for part in third.keys["evaluate"])
    again = Committing(asked)
    start(asked, again)
    assert again.spawned == []


def test_a_baseline_beside_another_m1_is_not_measured(tmp_path: Path) -> None:
    """Of a recipe that trains otherwise the index names other models, until this one's are made."""
    suites = [{"name": "offTarget", "uri": "s3://prompts/set", "limit": 3}]
    values: dict[str, Any] = {"evaluation__suites": suites, "evaluation__baselines": ["sft"]}
    first = setting(tmp_path, **values)
    start(first, Committing(first))
    m1 = ledger.model_at(first, 1)
    other = setting(tmp_path, training__beta=0.3, **values)

    assert first.sft_beside(m1) is not None
    assert other.sft_beside(replace(m1, digest="other")) is None
    assert other.iteration(1, replace(m1, digest="other")).sft is None


def test_what_a_gate_decides_counts_for_the_inputs_of_this_start(tmp_path: Path) -> None:
    """A stop ends the run there, also in its index; with other inputs it is decided anew."""
    suites = [{"name": "offTarget", "uri": "s3://suites/set"}]
    german = tmp_path / "suites" / "set" / "de.jsonl"

    def one() -> Setting:
        return setting(tmp_path, evaluation__suites=suites)

    first = one()
    shutil.copytree(tmp_path / "prompts" / "set", german.parent)
    start(first, Committing(first))
    rows = german.read_bytes()
    german.write_bytes((german.parent / "en.jsonl").read_bytes())
    stopped = one()
    found = start(stopped, Committing(stopped, refused=1))

    assert (found.outcome, found.final) == ("Succeeded", 0)
    assert found.stop is not None
    assert found.message == found.stop.message
    assert [entry.index for entry in found.iterations] == [0, 1]
    again = one()
    rerun = Committing(again)
    assert start(again, rerun).stop == found.stop
    assert rerun.spawned == []

    german.write_bytes(rows)
    back = one()
    found = start(back, Committing(back))
    assert (found.stop, found.final, found.message) == (None, 2, "")
    assert [entry.index for entry in found.iterations] == [0, 1, 2]


def test_too_few_prompts_for_a_later_iteration_are_told_before_anything_runs(
    tmp_path: Path,
) -> None:
    """Not after the first iteration has been trained; and the index stays as it was."""
    one = setting(tmp_path, num_prompts=3)
    spawn = Committing(one)
    with pytest.raises(InputError, match="expected 4 prompts for iteration 1"):
        start(one, spawn)

    assert spawn.spawned == []
    assert one.read_index() is None


def test_prompts_that_a_suite_has_are_warned_of_once(tmp_path: Path) -> None:
    """The next start is silent, until other inputs come; the index keeps the warning."""
    suites = [{"name": "offTarget", "uri": "s3://suites/set"}]
    one = setting(tmp_path, evaluation__suites=suites)
    shutil.copytree(tmp_path / "prompts" / "set", tmp_path / "suites" / "set")
    told: list[list[str]] = []
    for start_again in (one, setting(tmp_path, evaluation__suites=suites)):
        told.append([])
        runner.run(start_again, Committing(start_again), lambda *_: None, told[-1].append)
    (tmp_path / "suites" / "set" / "de.jsonl").write_bytes(
        (tmp_path / "suites" / "set" / "en.jsonl").read_bytes()
    )
    changed = setting(tmp_path, evaluation__suites=suites)
    runner.run(changed, Committing(changed), lambda *_: None, told[1].append)

    assert [line.split(":")[0] for line in told[0]] == [
        "offTarget in en",
        "offTarget in es",
        "offTarget in de",
    ]
    assert "found 4 of 4 prompts there (4 exactly, 0 nearly)" in told[0][0]
    assert told[0][0].endswith(
        "p0 (row p0), p1 (row p1), p2 (row p2), p3 (row p3); all in s3://runs/runs/local.test/overlap.jsonl"
    )
    assert [line.split(":")[0] for line in told[1]] == ["offTarget in en", "offTarget in es"]
    overlaps = index_of(changed).overlaps
    assert overlaps is not None
    assert list(overlaps.warnings) == told[1]


def test_suspending_keeps_what_the_index_has(tmp_path: Path) -> None:
    """`show` of a suspended run still tells its models."""
    first = setting(tmp_path)
    start(first, Committing(first))
    held = setting(tmp_path, suspend=True)
    spawn = Committing(held)
    found = start(held, spawn)

    assert (found.outcome, spawn.spawned) == ("Suspended", [])
    assert [entry.index for entry in index_of(held).iterations] == [0, 1, 2]


def test_inputs_that_change_while_a_worker_runs_are_named(tmp_path: Path) -> None:
    """The worker made other artifacts than were asked for: one line, and outcome Failed."""
    one = setting(tmp_path)
    with pytest.raises(
        SelfImproveError, match="the inference worker of iteration 0 ended without finishing"
    ):
        start(one, Committing(one, stages=()))

    assert index_of(one).outcome == "Failed"


def test_an_endpoint_that_does_not_answer_leaves_the_run_running(tmp_path: Path) -> None:
    """Exit code 75 means that the same command may succeed later."""
    one = setting(tmp_path)

    def unreachable(worker: Worker, index: int) -> None:
        message = f"{worker} {index}: the store did not answer"
        raise TryAgainError(message)

    with pytest.raises(TryAgainError):
        start(one, unreachable)
    assert index_of(one).outcome == "Running"


def test_a_stage_with_one_of_three_artifacts_is_not_shown_as_finished(tmp_path: Path) -> None:
    """`show` after a kill between two commits."""
    one = setting(tmp_path)

    def killed(worker: Worker, index: int) -> None:  # noqa: ARG001  a Spawn has both
        found = survey(one.iteration(0, one.base), one.repository.manifest)
        target = found["generate"].missing[0]
        one.repository.commit(manifest_of(target), {"rows.jsonl": b"x"})

    with pytest.raises(SelfImproveError):
        start(one, killed)
    states = {
        stage["name"]: stage["state"]
        for stage in status.status(index_of(one), one.repository)["iterations"][0]["stages"]
    }
    assert states["generate"] == "Failed"
    assert states["translate"] == "Pending"
