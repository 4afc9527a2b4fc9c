"""Models that cap their attention scores, as Gemma 2 does, are trained with the cap."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from selfimprove_pipeline.train.data.plan import Batches, Plan, global_batches, padded
from selfimprove_pipeline.train.data.rows import TokenRow
from selfimprove_pipeline.train.loop import configuration
from support.runs import run

pytestmark = pytest.mark.training

CAP = 0.5
TOKENS = torch.arange(1, 30)[None]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a tiny Gemma 2 whose scores go far beyond the cap."""
    folder = tmp_path_factory.mktemp("gemma")
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=1,
        initializer_range=0.3,
        attn_logit_softcapping=CAP,
    )
    transformers.Gemma2ForCausalLM(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def plan() -> Plan:
    """Return the pass of one pair."""
    row = TokenRow(("1", "de", "en"), (1,), (2,), (3,))
    steps = global_batches(1, size=1, epochs=1, seed=1)
    batches = Batches(rows=[row], steps=steps, first_epoch=1, world=1, normalization="sequence")
    return padded(batches, micro=1)


def settings(model: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what TRL is told about loading a model; its own settings would start processes."""
    monkeypatch.setattr(configuration, "DPOConfig", dict)
    training = run(training__zeroStage=2, training__precision="fp32").spec.training
    told: Any = configuration.dpo_config(training, folder=Path("none"), model=model, plan=plan())
    found: dict[str, Any] = told["model_init_kwargs"]
    return found


def logits(folder: Path, **how: Any) -> torch.Tensor:
    """Return what a model says of some tokens, loaded in a given way."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **how)
    with torch.no_grad():
        found: torch.Tensor = model(TOKENS).logits
    return found


def test_a_capped_model_is_trained_as_it_is_written(
    gemma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eager attention caps the scores; SDPA leaves the cap out without a word."""
    told = settings({"model_type": "gemma2", "attn_logit_softcapping": CAP}, monkeypatch)
    eager, sdpa = (logits(gemma, attn_implementation=name) for name in ("eager", "sdpa"))

    assert torch.equal(logits(gemma, **told), eager)
    assert (eager - sdpa).abs().max() > 0.1


@pytest.mark.parametrize("config", [{"model_type": "llama"}, {"attn_logit_softcapping": None}])
def test_other_models_keep_the_attention_that_is_fast(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eager attention stores all scores, so nothing asks for it where there is no cap."""
    assert "attn_implementation" not in settings(config, monkeypatch)


def test_a_cap_is_found_in_the_text_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of text and images holds it there."""
    nested = {"text_config": {"attn_logit_softcapping": CAP}}
    assert settings(nested, monkeypatch)["attn_implementation"] == "eager"
