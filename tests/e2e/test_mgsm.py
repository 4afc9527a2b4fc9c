"""A run with MGSM through the command line, on the miniature and the engine of transformers."""

from pathlib import Path
from typing import Any

import pytest

from support.cli import MINIATURE, Cli, Result

pytestmark = pytest.mark.e2e

DATA = Path(__file__).resolve().parents[1] / "data" / "mgsm" / "jsonl"
SMALL = (
    "iterations=1",
    "prompts.perIteration=16",
    "evaluation={suites: [{name: mgsm, uri: 's3://eval/mgsm', limit: 5}]}",
)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Return a command line with the miniature's inputs and the made rows in its store."""
    folder = tmp_path_factory.mktemp("mgsm")
    made = Cli(folder / "store", folder / "cache")
    made.upload_miniature()
    uploaded = made("upload", str(DATA), "s3://eval/mgsm", "--store", str(made.store))
    assert uploaded.code == 0, uploaded.errors
    return made


def command(cli: Cli, name: str, *more: str) -> Result:
    """Run a command on the small run."""
    sets = [f"--set={value}" for value in SMALL]
    done = cli(name, str(MINIATURE / "run.yaml"), *sets, *more)
    assert done.code == 0, done.errors
    return done


def test_a_run_gives_accuracies_of_each_model_and_language(cli: Cli, tmp_path: Path) -> None:
    """The miniature knows no digits: it is wrong throughout, and that is measured, not missing."""
    store = ("--store", str(cli.store))
    command(cli, "validate")
    command(cli, "validate", "--cluster")
    assert "evaluate" in command(cli, "plan", *store).output
    ran = cli(*cli.run_arguments(*SMALL))
    assert ran.code == 0, ran.errors

    for iteration in cli.show(*SMALL)["iterations"]:
        found: dict[str, Any] = iteration["evaluation"]["mgsm"]
        assert set(found) == {"en", "es", "de"}
        for measures in found.values():
            assert measures["n"] == 5
            assert 0 <= measures["score"] <= 1
            assert 0 <= measures["offTarget"] <= 1
    command(cli, "report", *store, "--out", str(tmp_path))
    (page,) = tmp_path.glob("*.html")
    assert "MGSM: accuracy" in page.read_text()
