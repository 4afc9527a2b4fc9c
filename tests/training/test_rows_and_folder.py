"""What goes in is whole rows, what comes out is an ordinary model folder."""

import json
import weakref
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.train.data.rows import NO_PAIRS, tokenize
from selfimprove_pipeline.train.model import folder
from selfimprove_pipeline.train.model.folder import Target, masters, save_full
from support import dpo_by_hand
from support.models import CHATML
from support.training import END_OF_TURN, SAMPLING, metrics, tied_qwen2

pytestmark = pytest.mark.training


def test_completions_end_with_the_end_of_turn_and_nothing_after_it(world: Any) -> None:
    """The template's line feed after the end of turn is not trained."""
    rows = tokenize(world.pairs["40"], Renderer(world.model, Chat()), max_length=512)
    assert len(rows.kept) == 40
    for row, pair in zip(rows.kept, world.pairs["40"], strict=True):
        assert list(row.chosen_ids) == [*pair.chosen[0].content.encode(), END_OF_TURN]
        assert list(row.rejected_ids) == [*pair.rejected[0].content.encode(), END_OF_TURN]


def test_overlong_rows_are_counted_and_not_cut(world: Any) -> None:
    """A row with a side over maxLength is a drop of its language; the others train whole."""
    ids = [dpo_by_hand.ids(world.model, pair) for pair in world.pairs["7"]]
    expected = Counter(
        pair.language for pair, one in zip(world.pairs["7"], ids, strict=True) if one.length > 42
    )
    result = world.results["overlong"]
    assert expected
    assert result["drops"] == {lang: {"overlong": count} for lang, count in expected.items()}
    assert result["counts"]["trained"] == 7 - expected.total()
    kept = [one for one in ids if one.length <= 42]
    tokens = sum(2 * len(one.prompt) + len(one.chosen) + len(one.rejected) for one in kept)
    assert metrics(world.trainings["overlong"])[0]["tokens"] == tokens


def test_nothing_to_train_on_is_refused(world: Any) -> None:
    """The message names the field to raise."""
    assert "InputError: expected pairs of at most" in world.results["all-overlong"]["error"]


def test_an_empty_file_of_pairs_has_a_message_of_its_own(world: Any) -> None:
    """It does not blame maxLength where there was nothing to be too long."""
    assert f"InputError: {NO_PAIRS}" in world.results["no-pairs"]["error"]


def test_loss_that_is_not_finite_ends_the_training(world: Any) -> None:
    """A model of NaNs is never written."""
    assert "InputError: expected a finite loss, found" in world.results["not-finite"]["error"]
    assert not world.trainings["not-finite"].output.exists()


def test_model_folder_is_complete_and_readable(world: Any) -> None:
    """Weights in saveDtype, an end of turn, the recipe's template, a card, mode 0644."""
    training = world.trainings["saved-bf16"]
    names = {path.name for path in training.output.iterdir()}
    assert names == {
        "README.md",
        "additional_chat_templates",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "metrics.jsonl",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    modes = {path.stat().st_mode & 0o777 for path in training.output.rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert AutoConfig.from_pretrained(training.output).dtype == torch.bfloat16
    templates = AutoTokenizer.from_pretrained(training.output).chat_template
    assert templates == {"default": CHATML, "tool_use": ANY}
    assert (training.output / "tokenizer.json").read_bytes() == (
        world.model / "tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize("name", ["saved-bf16", "bf16-zero3", "lora-zero0", "lora-zero3"])
def test_sampling_values_of_the_model_are_passed_on(world: Any, name: str) -> None:
    """A temperature without do_sample is loaded by transformers, which refuses to save it."""
    values = json.loads((world.trainings[name].output / "generation_config.json").read_text())
    assert values == {**SAMPLING, "eos_token_id": [END_OF_TURN, 0], "use_cache": True}


def test_model_without_a_generation_config_gets_one(tmp_path: Path) -> None:
    """It is made from the model's config, as transformers makes it on loading."""
    model = tied_qwen2(tmp_path / "M0")
    (model / "generation_config.json").unlink()
    weights = [(name, value.data) for name, value in dpo_by_hand.load(model).named_parameters()]
    target = Target(tmp_path / "M1", torch.float32, (END_OF_TURN,))
    changed = save_full(model, weights, start_dtype=torch.float32, target=target)
    assert changed.shares() == {"changedWeights": 0, "changedSavedWeights": 0}
    generation = GenerationConfig.from_pretrained(tmp_path / "M1")
    assert generation.eos_token_id == [END_OF_TURN]
    assert generation.use_cache is True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masters_are_saved_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """When a master is gathered on the device, none of those before it is left there."""
    model = tied_qwen2(tmp_path / "M0")
    gathered: list[weakref.ref[Any]] = []
    left: list[int] = []

    def gather(parameter: torch.nn.Parameter) -> torch.Tensor:
        left.append(sum(memory() is not None for memory in gathered))
        memory = parameter.data.float().numpy() + 1  # which lives as long as a tensor is on it
        gathered.append(weakref.ref(memory))
        return torch.from_numpy(memory)

    monkeypatch.setattr(folder, "safe_get_full_fp32_param", gather)
    trained = dpo_by_hand.load(model).to(dtype)  # type: ignore[arg-type]
    target = Target(tmp_path / "M1", dtype, (END_OF_TURN,))
    changed = save_full(model, masters(trained), start_dtype=dtype, target=target)

    assert changed.shares()["changedWeights"] == 1
    assert left == [0] * len(list(trained.parameters()))


def test_template_of_the_recipe_replaces_the_models(world: Any) -> None:
    """The next model is prompted as it was trained."""
    training = world.trainings["template"]
    template = training.chat["template"]
    found = AutoTokenizer.from_pretrained(training.output).chat_template
    assert found["default"] == template


def test_card_names_lineage_and_settings(world: Any) -> None:
    """Readers and the hub find tags, languages, counts and hyper-parameters; no machine paths."""
    card = (world.trainings["overlong"].output / "README.md").read_text()
    for part in ("- lidr\n- dpo\n- trl\n", "- en\n- de\n", "| iteration | 1 |", "| beta | 0.5 |"):
        assert part in card
    assert "| reason | dropped pairs |" in card
    assert str(world.model.parent) not in card


def test_metrics_have_one_row_a_step(world: Any) -> None:
    """Every column stands in every row, as plain JSON."""
    text = (world.trainings["dpo"].output / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {len(row) for row in rows} == {12}
    assert rows[-1]["rewards/accuracies"] == pytest.approx(1)
