"""How a training is spread is decided once a run, and what does not fit is told before it costs."""

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from selfimprove_pipeline.__main__ import main
from selfimprove_pipeline.cli import commands
from selfimprove_pipeline.contract.environment import CACHE
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import targets
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.memory import gpus
from selfimprove_pipeline.memory.advice import Place
from selfimprove_pipeline.run import opening, sizing
from selfimprove_pipeline.run.ledger import Ledger
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.workers import check, pod
from support.runs import file, run

LLAMA_3_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
ONE: dict[str, Any] = {"pods__training__resources": {"limits": {"nvidia.com/gpu": 1}}}
"""One GPU, on which 8 B parameters fit at no stage, so that 3 is decided."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder store with prompts and a model of 8 B parameters without its weights."""
    model = tmp_path / "models" / "m0"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(LLAMA_3_8B))
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "tokenizer.json").write_text("{}")
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    prompts = tmp_path / "prompts" / "set"
    prompts.mkdir(parents=True)
    for language in ("en", "es", "de"):
        rows = [{"id": f"p{n}", "prompt": f"{language} {n}"} for n in range(4)]
        (prompts / f"{language}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path


def start(root: Path, **values: Any) -> Setting:
    """Return what a process of the run comes to."""
    arguments = Namespace(store=root, engine="transformers")
    return opening.setting_for(run(**values), arguments, only_measures=False)


def test_the_stage_is_decided_when_the_run_begins_and_stays(world: Path) -> None:
    """Later pods may be larger and the model may be gone: the run's index tells."""
    first = start(world, **ONE)
    assert first.spec.training.zero_stage == 3
    Ledger(first).write("Running")
    shutil.rmtree(world / "models")

    later = start(world, pods__training__resources={"limits": {"nvidia.com/gpu": 8}})

    assert later.spec.training.zero_stage == 3
    assert later.decided == {"zeroStage": 3, "layout": "packed"}


@pytest.mark.parametrize(
    "change",
    [{"model__uri": "s3://models/m1"}, {"training__maxLength": 100}],
    ids=["model", "pass"],
)
def test_another_file_is_decided_anew(world: Path, change: dict[str, Any]) -> None:
    """What began with another model or other passes decides nothing."""
    Ledger(start(world, **ONE)).write("Running")
    shutil.copytree(world / "models" / "m0", world / "models" / "m1")
    assert start(world, **change).spec.training.zero_stage == 2


def test_a_model_that_cannot_be_packed_is_padded(world: Path) -> None:
    """Capped scores are no attention that packs, and no config is packed on trust."""
    config = world / "models" / "m0" / "config.json"
    assert start(world).spec.training.layout == "packed"
    config.write_text(json.dumps({**LLAMA_3_8B, "attn_logit_softcapping": 50.0}))
    assert start(world).spec.training.layout == "padded"
    config.write_text(json.dumps({**LLAMA_3_8B, "layer_types": [{}]}))
    assert start(world).spec.training.layout == "padded"


def test_what_the_file_says_is_not_decided(world: Path) -> None:
    """An explicit stage is kept and no model is opened for it; its keys are as ever."""
    shutil.rmtree(world / "models")
    one = start(world, training__zeroStage=1, training__layout="padded")
    assert one.spec.training.zero_stage == 1
    assert one.decided == {}
    assert "decided" not in Ledger(one).write("Running").model_dump(by_alias=True)


def test_the_decision_is_in_the_key(world: Path) -> None:
    """A training whose stage was decided is the one whose file says so."""
    keys = [
        _train_key(start(world, **values))
        for values in ({}, {"training__zeroStage": 2, "training__layout": "packed"})
    ]
    other = _train_key(start(world, training__zeroStage=3))
    assert keys[0] == keys[1] != other


def _train_key(setting: Setting) -> str:
    iteration = setting.iteration(0, setting.base)
    (target,) = targets("train", iteration, {("pair", ""): "pairs"}) or ()
    return target.key


def test_a_light_pod_needs_no_model(world: Path) -> None:
    """The first pod decides; one that has the index comes to the same without the model."""
    first = start(world)
    pod.begin(first, None)
    (world / "models" / "m0" / "config.json").unlink()
    assert start(world).spec == first.spec


def test_a_model_that_is_not_there_is_told_where_it_is_opened(world: Path) -> None:
    """The decision is the careful one then, and `check` tells all mistakes together."""
    shutil.rmtree(world / "models")
    setting = start(world, prompts__perIteration=99)
    assert setting.spec.training.zero_stage == 3
    with pytest.raises(InputError, match=r"expected a model folder at[^\n]*\n[^\n]*prompts"):
        check.work(setting)


def test_check_refuses_what_certainly_has_no_room(world: Path) -> None:
    """Optimizer states on the host do not fit the limit that the recipe sets itself."""
    limits = {"nvidia.com/gpu": 1, "memory": "64Gi"}
    setting = start(
        world, training__offload="optimizer", pods__training__resources={"limits": limits}
    )
    with pytest.raises(InputError, match=r"limits\.memory: expected at least \d+ GiB") as told:
        check.work(setting)
    assert "\n" not in str(told.value)


def test_check_refuses_a_hostile_config_in_one_line(world: Path) -> None:
    """A number that cannot be is told with the file that has it."""
    hostile = json.dumps({**LLAMA_3_8B, "num_hidden_layers": 10**30})
    (world / "models" / "m0" / "config.json").write_text(hostile)
    with pytest.raises(InputError, match=r"config\.json: expected num_hidden_layers") as told:
        check.work(start(world))
    assert "\n" not in str(told.value)


def test_a_run_on_one_gpu_is_refused_before_anything_starts(world: Path) -> None:
    """`run` holds the model against the GPUs that the driver tells of."""
    place = Place(1, memory=gpus.GPUS["h100-80gb"].memory)
    setting = start(world)
    with pytest.raises(InputError, match="GiB too many; what fits: method lora"):
        sizing.look(setting, sizing.shape(setting), place)


def test_the_driver_is_asked_for_the_smallest_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells MiB, a line each; without a driver nothing is known."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 81559\necho 40960\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.gpu_memory() == 40960 * 2**20
    driver.write_text("#!/bin/sh\necho '[N/A]'\n")
    assert devices.gpu_memory() is None
    driver.unlink()
    assert devices.gpu_memory() is None


def _told(world: Path, *more: str) -> str:
    """Return what `plan` prints."""
    run_file = world / "run.yaml"
    run_file.write_text(json.dumps(file()))
    arguments = Namespace(
        file=run_file, set=[], store=world, engine="transformers", gpu=None, gpus=8
    )
    for name, value in zip(more[::2], more[1::2], strict=True):
        setattr(arguments, name, int(value) if name == "gpus" else value)
    console = Console(record=True, width=200)
    commands.plan(arguments, console)
    return console.export_text()


def test_plan_tells_memory_and_minutes_of_named_gpus(world: Path) -> None:
    """Eight hold the model; each stage has minutes and the throughput that is assumed."""
    found = _told(world, "gpu", "h100-80gb", "gpus", "8")
    assert "training of 8,030 M parameters (ZeRO 2 on 8 GPUs, packed): " in found
    assert "too large" not in found
    assert "expected minutes on 8 x h100-80gb" in found
    assert "tokens/s trained" in found


def test_plan_tells_what_does_not_fit(world: Path) -> None:
    """One does not, and the line says what would."""
    found = _told(world, "gpu", "a100-80gb", "gpus", "1")
    assert "too large: spec.training: expected at most 79 GiB a GPU" in found


def test_plan_names_the_gpus_it_knows(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt GPU ends with 2 and the names there are."""
    run_file = world / "run.yaml"
    run_file.write_text(json.dumps(file()))
    code = main(["plan", str(run_file), "--store", str(world), "--gpu", "h100"])
    assert code == 2
    assert "--gpu: expected one of a100-40gb" in capsys.readouterr().err


def test_validate_for_a_cluster_tells_what_a_gpu_needs(world: Path) -> None:
    """Where the model can be read it tells memory, and where not it says so and judges on."""
    run_file = world / "run.yaml"
    run_file.write_text(json.dumps(file()))
    arguments = Namespace(file=run_file, set=[], store=world, engine="vllm", cluster=True)
    for is_there in (True, False):
        console = Console(record=True, width=400)
        commands.validate(arguments, console)
        found = console.export_text()
        assert ("memory: training of 8,030 M parameters" in found) is is_there
        assert ("memory: cannot be told from here: expected a model" in found) is not is_there
        assert "good for a cluster" in found
        shutil.rmtree(world / "models", ignore_errors=True)
