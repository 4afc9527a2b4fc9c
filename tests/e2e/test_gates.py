"""Gates on the miniature model: who takes the weak language for the dominant one is stopped.

The honest arm, which is promoted, is the run of `test_miniature`.
"""

from pathlib import Path
from typing import Any

import pytest

from support.cli import MINIATURE, Cli

pytestmark = pytest.mark.e2e

FLIPPED = ("languages={dominant: de, others: [en]}", "prompts.perIteration=200")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Return a store with the miniature's inputs."""
    folder = tmp_path_factory.mktemp("gates")
    cli = Cli(folder / "store", folder / "cache")
    cli.upload_miniature()
    return cli


def ended(cli: Cli, *settings: str) -> tuple[str, dict[str, Any]]:
    """Run the miniature with some settings; return what it printed and what `show` tells."""
    ran = cli(*cli.run_arguments(*settings))
    assert ran.code == 0, ran.errors
    return ran.output, cli.show(*settings)


def test_labels_that_gold_answers_contradict_are_not_trained_on(world: Cli) -> None:
    """With gold answers the flipped arm ends before its first training, with M0 and a reason."""
    settings = FLIPPED
    printed, status = ended(world, *settings)
    (m0,) = status["iterations"]

    assert "NoPairs" in printed
    assert (status["outcome"], status["final"]) == ("Succeeded", 0)
    assert {told["decision"] for told in m0["gates"].values()} == {"LeftOut"}
    assert "train" not in {stage["name"] for stage in m0["stages"]}
    assert list(world.artifacts("train")) == []
    again = world(*world.run_arguments(*settings))
    assert (again.code, "nothing to do" in again.output) == (0, True)


def test_a_model_that_is_worse_is_refused_before_it_answers(world: Cli, tmp_path: Path) -> None:
    """Where too few pairs are decided M1 is trained, found worse, and M0 is what is left."""
    settings = (*FLIPPED, "gates.minimumDecided=1000000")
    printed, status = ended(world, *settings)
    m0, m1 = status["iterations"]
    stages = {stage["name"]: stage for stage in m1["stages"]}

    assert "StoppedByGate" in printed
    assert "M1 is refused, worse than the model before in" in status["message"]
    assert (status["outcome"], status["final"]) == ("Succeeded", 0)
    assert m1["gates"]["en"]["decision"] == "Worse"
    assert set(stages) == {"evaluate", "gate"}
    file = str(MINIATURE / "run.yaml")
    chosen = [f"--set={setting}" for setting in settings]
    out = tmp_path / "final"
    exported = world(
        "export", "model", file, "--store", str(world.store), "--out", str(out), *chosen
    )
    assert exported.code == 0, exported.errors
    m0_bytes = (MINIATURE / "m0" / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() == m0_bytes
    assert m0["model"]["digest"] != m1["model"]["digest"]
