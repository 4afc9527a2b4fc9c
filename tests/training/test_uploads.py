"""Checkpoints go to the store beside the training, when the first rank says so."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.training


def _kept(world: Any, name: str) -> list[str]:
    """Return the checkpoints that count."""
    vault: Path = world.trainings[name].folder / "vault"
    return sorted(path.name for path in vault.glob("step-*"))


def _lines(world: Any, name: str, *beginnings: str) -> list[str]:
    return [line for line in world.results[name]["log"] if line.startswith(beginnings)]


def test_training_goes_on_while_a_checkpoint_is_uploaded(world: Any) -> None:
    """Four steps are done beside the upload of step 5; the checkpoint of step 10 waits for it."""
    lines = _lines(world, "slow", "step ", "upload")
    assert lines[4:11] == [
        "step 5/13",
        "uploads 5, has ['checkpoint-5']",
        *(f"step {step}/13" for step in range(6, 10)),
        "uploaded 5",
    ]
    assert "step-0005" in _kept(world, "slow")
    assert lines[-1] == "step 13/13" or "uploaded 10" in lines


def test_a_disk_holds_one_checkpoint(world: Any) -> None:
    """The one before has left it when the next one is there."""
    names = [name for name, one in world.trainings.items() if "checkpointSteps" in one.recipe]
    uploads = [line for name in names for line in _lines(world, name, "uploads ")]
    assert len(uploads) > 30
    assert all(line.count("checkpoint-") == 1 for line in uploads)


def test_the_first_rank_says_when_a_checkpoint_is_due(world: Any) -> None:
    """Its clock goes on by 400 s a look: step 3 is over 20 minutes. The other's is hours ahead."""
    assert _lines(world, "by-time", "uploads ") == ["uploads 3, has ['checkpoint-3']"]
    assert world.results["by-time"]["exits"] == [0, 0]
    assert world.results["by-time"]["counts"]["steps"] == 5


def test_a_store_that_does_not_answer_is_not_the_end_of_a_training(world: Any) -> None:
    """The second machine's upload of step 2 fails: both go on, and step 3 is kept instead."""
    assert world.results["again"]["exits"] == [0, 0]
    assert world.results["again"]["counts"]["steps"] == 5
    assert [name for name in _kept(world, "again") if name < "step-0004"] == [
        "step-0001",
        "step-0003",
    ]
    (line,) = _lines(world, "again", "the checkpoint of step")
    assert line == (
        "the checkpoint of step 2 was not kept: store: the upload of 2 failed; training goes on "
        "and a later one is tried"
    )


def test_an_upload_that_will_never_do_ends_the_training(world: Any) -> None:
    """Wrong credentials are told at once and not after hours."""
    assert world.results["broken"]["error"] == "InputError: store: the upload of 2 failed"
    assert world.results["broken"]["exits"] == [1]


def test_ranks_have_hours_to_wait_for_each_other(world: Any) -> None:
    """One machine may still fetch its files of a checkpoint when the other has them."""
    assert world.results["two-whole"]["patience"] == 4 * 3600
