"""The loss that is trained is the loss that is written down, however it is split."""

import math
from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch

from selfimprove_pipeline.contract.rows import ReferenceLogps, rows
from support import dpo_by_hand
from support.training import RECIPE, first_gradients, in_optimizer_order, metrics

pytestmark = pytest.mark.training

GROUPS = {
    "sequence": [
        f"micro{micro}-ranks{ranks}-sequence"
        for micro, ranks in ((1, 1), (2, 1), (4, 1), (1, 2), (4, 2))
    ],
    "token": ["micro1-ranks1-token", "micro4-ranks1-token", "micro3-ranks2-token"],
}


def _recipe(training: Any) -> Mapping[str, Any]:
    return {**RECIPE, **training.recipe}


def test_first_step_costs_ln_2_and_the_nll(world: Any) -> None:
    """Before the first update policy and reference agree, so the DPO term is exactly ln 2."""
    training = world.trainings["saved-bf16"]
    pairs = [dpo_by_hand.ids(world.model, pair) for pair in world.pairs["7"]]
    model = dpo_by_hand.load(world.model)
    nll = sum(
        -dpo_by_hand.logp(model, pair.prompt, pair.chosen).item() / len(pair.chosen)
        for pair in pairs
    ) / len(pairs)
    (step,) = metrics(training)
    assert step["dpo"] == pytest.approx(math.log(2), abs=1e-5)
    assert step["loss"] == pytest.approx(math.log(2) + nll, abs=1e-5)
    assert step["nll"] == pytest.approx(nll, abs=1e-5)


@pytest.mark.parametrize("normalization", ["sequence", "token"])
def test_loss_and_gradients_equal_a_second_computation(world: Any, normalization: str) -> None:
    """Padding, the fused head, micro-batches and stored references change nothing."""
    training = world.trainings[f"hand-{normalization}"]
    stored = rows(ReferenceLogps, (training.folder / "vault" / "reference.jsonl").read_bytes())
    model = dpo_by_hand.load(world.model)
    loss = dpo_by_hand.loss(
        model,
        [dpo_by_hand.ids(world.model, pair) for pair in world.pairs["7"]],
        [(row.chosen, row.rejected) for row in stored],
        _recipe(training),
        normalization=normalization,
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert metrics(training)[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    expected = [cast("torch.Tensor", one.grad) for one in in_optimizer_order(model)]
    _assert_close(first_gradients(training), expected)


def test_the_baseline_trains_on_the_chosen_texts_alone(world: Any) -> None:
    """Loss and gradients are those of the plain NLL; no reference was computed, no reward told."""
    training = world.trainings["sft"]
    model = dpo_by_hand.load(world.model)
    pairs = [dpo_by_hand.ids(world.model, pair) for pair in world.pairs["7"]]
    logps = [dpo_by_hand.logp(model, pair.prompt, pair.chosen) for pair in pairs]
    means = [logp / len(pair.chosen) for logp, pair in zip(logps, pairs, strict=True)]
    nll = -torch.stack(means).mean()
    nll.backward()  # type: ignore[no-untyped-call]
    step = metrics(training)[0]  # the next step waits for its checkpoint, and the last has none
    assert step["loss"] == pytest.approx(nll.item(), rel=1e-5)
    assert step["nll"] == pytest.approx(nll.item(), rel=1e-5)
    expected = [cast("torch.Tensor", one.grad) for one in in_optimizer_order(model)]
    _assert_close(first_gradients(training), expected)
    assert set(step) == {
        "step", "loss", "nll", "learning_rate", "grad_norm", "seconds", "tokens",
    }  # fmt: skip
    assert step["tokens"] == sum(len(pair.prompt) + len(pair.chosen) for pair in pairs)
    assert not (training.folder / "vault" / "reference.jsonl").exists()
    assert "rewardAccuracy" not in world.results["sft"]["measures"]
    assert "# Baseline" in (training.output / "README.md").read_text()


def test_the_baseline_follows_in_the_same_process(world: Any) -> None:
    """After a training by DPO, on two ranks with ZeRO 3: as many steps, the bytes of one alone.

    The first model is out of memory by then.
    """
    alone, after = (world.trainings[f"sft-{how}"] for how in ("whole", "after"))
    weights = [(one.output / "model.safetensors").read_bytes() for one in (alone, after)]
    assert weights[0] == weights[1]
    assert world.results["sft-after"]["modelsLeft"] == 0
    before = (after.folder / "first" / "model" / "metrics.jsonl").read_text().splitlines()
    assert len(metrics(after)) == len(before) == 5


@pytest.mark.parametrize("normalization", ["sequence", "token"])
def test_micro_batches_and_ranks_do_not_change_the_training(world: Any, normalization: str) -> None:
    """97 pairs in batches of 16 leave a last batch of one pair; every split gives one result."""
    first, *others = (world.trainings[name] for name in GROUPS[normalization])
    steps = metrics(first)
    assert len(steps) == 7
    gradients = first_gradients(first)
    for other in others:
        found = metrics(other)
        for name in ("loss", "dpo", "nll", "rewards/margins", "tokens", "grad_norm"):
            expected = [step[name] for step in steps]
            assert [step[name] for step in found] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        losses = [step["loss"] for step in steps]
        assert [step["loss"] for step in found] == pytest.approx(losses, abs=1e-5)
        _assert_close(first_gradients(other), gradients)


def test_normalizations_differ(world: Any) -> None:
    """The two means are different numbers on rows of different lengths."""
    by_sequence = metrics(world.trainings["micro4-ranks1-sequence"])[0]["nll"]
    assert abs(metrics(world.trainings["micro4-ranks1-token"])[0]["nll"] - by_sequence) > 1e-3


def test_dpo_alone_gains_on_pairs_and_loses_on_flipped_ones(world: Any) -> None:
    """Without the NLL term only the DPO term can move the margin of chosen over rejected."""
    truth = world.pairs["40"]
    before = dpo_by_hand.margin(world.model, truth)
    assert dpo_by_hand.margin(world.trainings["dpo"].output, truth) > before + 1
    assert dpo_by_hand.margin(world.trainings["dpo-flipped"].output, truth) < before - 1


def _assert_close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(largest, 1.0))
