"""Precisions, ZeRO stages, offload and LoRA: all of them train, and what they save is right."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from support import dpo_by_hand
from support.training import metrics

pytestmark = pytest.mark.training


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.arange(40, 120)[None]).logits
    return logits


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bf16_at_5e7_moves_the_master_weights(world: Any, stage: int) -> None:
    """bf16 weights alone would round every such update away; fp32 masters keep it."""
    name = f"bf16-zero{stage}"
    assert world.results[name]["measures"]["changedWeights"] > 0.9
    before, after = _weights(world.model), _weights(world.trainings[name].output)
    moved = sum(int((after[key] != before[key].bfloat16().float()).sum()) for key in before)
    assert moved > 0.9 * sum(value.numel() for value in before.values())


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bf16_reference_is_computed_as_training_computes(world: Any, stage: int) -> None:
    """Same kernels, same padding, nothing rounded on the way: the DPO term starts at ln 2."""
    first = metrics(world.trainings[f"bf16-zero{stage}"])[0]
    assert first["dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/margins"] == 0


def test_zero_3_keeps_rotary_frequencies_in_fp32(world: Any) -> None:
    """DeepSpeed would load them in bf16 at stage 3 alone, and far positions would turn wrongly."""
    stage_2, stage_3 = (metrics(world.trainings[f"bf16-zero{stage}"])[0] for stage in (2, 3))
    assert stage_3["loss"] == stage_2["loss"]


@pytest.mark.parametrize("name", ["fp32-zero1", "fp32-zero2", "fp32-zero3", "fp32-offload"])
def test_zero_stages_save_the_same_model(world: Any, name: str) -> None:
    """Two ranks with an odd number of pairs; the reloaded models agree."""
    plain = world.trainings["fp32-zero0"].output
    expected, found = _weights(plain), _weights(world.trainings[name].output)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if "k_proj.bias" not in key:  # its gradient is 0 but for rounding, which Adam amplifies
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5)
    reloaded = dpo_by_hand.load(world.trainings[name].output)
    torch.testing.assert_close(
        _logits(reloaded), _logits(dpo_by_hand.load(plain)), rtol=0, atol=1e-4
    )
    losses = [step["loss"] for step in metrics(world.trainings["fp32-zero0"])]
    found_losses = [step["loss"] for step in metrics(world.trainings[name])]
    assert found_losses == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize("name", ["lora-zero0", "lora-zero3"])
def test_lora_is_merged_and_kept(world: Any, name: str) -> None:
    """The merged model answers as M_t with the adapter on; the reference had it off."""
    output = world.trainings[name].output
    merged = _logits(dpo_by_hand.load(output))
    base = dpo_by_hand.load(world.model)
    off = _logits(base)
    on = _logits(PeftModel.from_pretrained(base, output / "adapter"))
    torch.testing.assert_close(merged, on, rtol=0, atol=1e-5)
    assert float((on - off).abs().max()) > 0.1
    assert metrics(world.trainings[name])[0]["dpo"] == pytest.approx(math.log(2), abs=1e-5)
    config = json.loads((output / "adapter" / "adapter_config.json").read_text())
    assert str(world.model) not in json.dumps(config)
    trained = load_file(output / "adapter" / "adapter_model.safetensors")
    assert len(trained) == 2 * 7 * 2  # layers, linear modules of each, A and B; not the head
