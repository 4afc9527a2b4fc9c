"""Packed passes give what padded ones give, and are not trusted with a model that they change."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from trl.trainer import dpo_trainer
from trl.trainer.utils import add_fused_lm_head

from selfimprove_pipeline.train.data.batches import PackedCollator, PaddedCollator, logps
from selfimprove_pipeline.train.loop import trainer as own
from selfimprove_pipeline.train.model import attention
from support import dpo_by_hand

pytestmark = pytest.mark.training

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
CONFIGS = {
    "tied-qwen2": transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "llama-gqa": transformers.LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "window": transformers.MistralConfig(**SHAPE, sliding_window=5, tie_word_embeddings=False),
}
EXAMPLES: list[dict[str, Any]] = [
    {
        "prompt_ids": list(range(start, start + 2 + start % 5)),
        "chosen_ids": list(range(20 + start, 23 + start + 2 * (start % 4))),
        "rejected_ids": list(range(40 + start, 44 + start + 3 * (start % 3))),
        "row": start,
        "weight": 0.2,
        "nll_weight": 0.01,
    }
    for start in range(1, 6)
]


def _model(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIGS[name]
    model: transformers.PreTrainedModel = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation="sdpa"
    )
    add_fused_lm_head(model)
    attention.register()
    return model


def _loss(found: torch.Tensor) -> torch.Tensor:
    chosen, rejected = found.chunk(2)
    nll: torch.Tensor = -0.01 * chosen.sum()
    dpo = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()
    return dpo + nll


def _gradients(model: transformers.PreTrainedModel, found: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    _loss(found).backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("multiple", [1, 128])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_packed_equals_padded_equals_one_at_a_time(name: str, multiple: int) -> None:
    """Log-probabilities, loss and all gradients agree to 1e-6 in fp32; filling changes nothing."""
    model = _model(name)
    by_hand = torch.stack(
        [
            dpo_by_hand.logp(model, one["prompt_ids"], one[side])
            for side in ("chosen_ids", "rejected_ids")
            for one in EXAMPLES
        ]
    )
    expected = _gradients(model, by_hand)
    padded = logps(model, PaddedCollator(0, with_rejected=True)(EXAMPLES))
    of_padded = _gradients(model, padded)
    model.set_attn_implementation(attention.NAME)
    collate = PackedCollator(0, with_rejected=True, multiple=multiple)
    packed = logps(model, collate(EXAMPLES))
    of_packed = _gradients(model, packed)
    for found, gradients in ((padded, of_padded), (packed, of_packed)):
        torch.testing.assert_close(found, by_hand, rtol=2e-6, atol=0)
        assert float((gradients - expected).norm() / expected.norm()) < 2e-6


@pytest.mark.parametrize("name", list(CONFIGS))
def test_neighbours_do_not_change_a_sequence(name: str) -> None:
    """The first pair has the log-probabilities it has alone."""
    model = _model(name)
    model.set_attn_implementation(attention.NAME)
    collate = PackedCollator(0, with_rejected=True, multiple=1)
    together = logps(model, collate(EXAMPLES))[[0, len(EXAMPLES)]]
    torch.testing.assert_close(logps(model, collate(EXAMPLES[:1])), together, rtol=1e-6, atol=0)


def test_weights_are_not_hashed() -> None:
    """TRL would read all of them on every rank for a cache that is never used."""
    assert own is not None
    assert dpo_trainer.DPOTrainer.__init__.__globals__["hash_module"](None) == ""


@pytest.mark.parametrize("name", ["packed-two", "packed-zero2", "packed-zero3", "packed-budget"])
def test_any_budget_ranks_and_stage_save_the_same_model(world: Any, name: str) -> None:
    """Packed on one rank, and every other way: equal weights within 1e-5, equal losses."""
    assert world.results[name]["layout"] == "packed"
    _assert_same(world.trainings["packed-padded"].output, world.trainings[name].output)


def test_a_model_that_does_not_heed_packing_falls_back(world: Any) -> None:
    """Its tokens would see their neighbours; it trains padded, with a warning and in its report."""
    result = world.results["deaf"]
    assert result["layout"] == "padded"
    assert any("training goes on padded" in line for line in result["log"])
    folder = world.trainings["deaf"].folder
    assert (folder / "vault" / "layout").read_text() == "padded"
    _assert_same(world.trainings["packed-padded"].output, world.trainings["deaf"].output)


def _assert_same(expected: Path, found: Path) -> None:
    weights, others = (dpo_by_hand.load(folder).state_dict() for folder in (expected, found))
    for key, value in weights.items():
        if "k_proj.bias" not in key:  # its gradient is 0 but for rounding, which Adam amplifies
            torch.testing.assert_close(others[key], value, rtol=0, atol=1e-5)
