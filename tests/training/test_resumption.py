"""A killed training goes on from its last checkpoint as if nothing had happened."""

import hashlib
from typing import Any

import pytest

from selfimprove_pipeline.contract.rows import ReferenceLogps, rows
from support.training import metrics

pytestmark = pytest.mark.training


def _digest(training: Any) -> str:
    return hashlib.sha256((training.output / "model.safetensors").read_bytes()).hexdigest()


def _steps(result: Any) -> list[str]:
    return [line for line in result["log"] if line.startswith("step ")]


@pytest.mark.parametrize("ranks", ["one", "two", "sft"])
def test_resumed_training_ends_with_identical_weights(world: Any, ranks: str) -> None:
    """SIGKILL after a whole checkpoint of step 2: steps 3 to 5 again, the same bytes.

    With one rank and for the baseline it comes before the checkpoint of step 4, with two ranks
    while that one is uploaded: its files lie in the store and do not count.
    """
    assert -9 in world.results[f"{ranks}-killed"]["exits"]
    assert not (world.trainings[f"{ranks}-killed"].output / "model.safetensors").exists()
    assert _steps(world.results[f"{ranks}-resumed"]) == ["step 3/5", "step 4/5", "step 5/5"]
    whole, resumed = (world.trainings[f"{ranks}-{how}"] for how in ("whole", "resumed"))
    assert _digest(resumed) == _digest(whole)


@pytest.mark.parametrize("ranks", ["one", "two", "sft"])
def test_metrics_hold_the_steps_before_the_kill(world: Any, ranks: str) -> None:
    """metrics.jsonl of a resumed training is that of an undisturbed one but for times."""
    whole, resumed = (metrics(world.trainings[f"{ranks}-{how}"]) for how in ("whole", "resumed"))
    for one, other in zip(whole, resumed, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_checkpoint_that_is_loaded_leaves_the_disk(world: Any) -> None:
    """It is as large as the next one, which needs the room."""
    fetched = world.trainings["one-killed"].folder / "vault" / "fetched"
    assert list(fetched.iterdir()) == []


def test_checkpoint_of_another_world_size_is_refused(world: Any) -> None:
    """One line says so, and training starts again from M_t."""
    result = world.results["refused"]
    said = [line for line in result["log"] if line.startswith("expected a checkpoint of")]
    assert len(said) == 1
    assert "world=1 zero=2" in said[0]
    assert "found one of world=2 zero=2" in said[0]
    assert _steps(result)[0] == "step 1/5"


def test_reference_is_stored_for_every_trained_pair(world: Any) -> None:
    """The rows in the vault carry the pairs' keys in their order, from both ranks."""
    file = world.trainings["two-whole"].folder / "vault" / "reference.jsonl"
    stored = rows(ReferenceLogps, file.read_bytes())
    pairs = world.pairs["40"]
    assert [(row.id, row.language, row.partner) for row in stored] == [
        (pair.id, pair.language, pair.partner) for pair in pairs
    ]
    alone = world.trainings["one-whole"].folder / "vault" / "reference.jsonl"
    for row, other in zip(stored, rows(ReferenceLogps, alone.read_bytes()), strict=True):
        assert row.chosen == pytest.approx(other.chosen, abs=1e-4)
        assert row.rejected == pytest.approx(other.rejected, abs=1e-4)
