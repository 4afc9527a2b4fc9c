"""Keys and digests of finished work: a change of one would have it all computed again."""

import json
import os
from typing import Any, Final, get_args

import pytest

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.recipe.evaluation import Baseline
from support import golden
from support.manifests import WRITE

SUBJECTS: Final = tuple(golden.subjects())
INPUTS: Final = (
    "prompts",
    "gold",
    *(f"suite {golden.name_of(kind)}" for kind in golden.KINDS),
    "outputs to compare with",
    "difficulties",
    "references",
)
ARTIFACTS: Final = ("rows", "model folder", "model of a user")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Give what is computed today, and write it to the file where a person wants that."""
    made = {
        "keys": golden.keys(),
        "inputs": golden.inputs(tmp_path_factory.mktemp("inputs")),
        "artifacts": golden.artifacts(tmp_path_factory.mktemp("artifacts")),
    }
    if os.environ.get(WRITE):
        golden.FILE.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    return made


@pytest.fixture(scope="module")
def pinned(found: dict[str, dict[str, Any]]) -> Any:  # noqa: ARG001  which may write the file
    """Give what the file holds."""
    return json.loads(golden.FILE.read_text())


@pytest.mark.parametrize("subject", SUBJECTS)
def test_keys_are_those_under_which_finished_work_lies(
    subject: str, found: dict[str, dict[str, Any]], pinned: Any
) -> None:
    """Whoever changes a key orphans artifacts: then it must be wanted, and the file says so."""
    assert found["keys"][subject] == pinned["keys"][subject]


@pytest.mark.parametrize("name", INPUTS)
def test_digests_of_inputs_are_those_in_the_keys_of_finished_work(
    name: str, found: dict[str, dict[str, Any]], pinned: Any
) -> None:
    """The same prompts and suites, read in another way, must be the same inputs."""
    assert found["inputs"][name] == pinned["inputs"][name]


@pytest.mark.parametrize("name", ARTIFACTS)
def test_artifacts_are_stored_as_finished_ones_were(
    name: str, found: dict[str, dict[str, Any]], pinned: Any
) -> None:
    """Rows, manifests, digests and places of artifacts decide whether a later run finds them."""
    assert found["artifacts"][name] == pinned["artifacts"][name]


def test_every_stage_suite_and_baseline_is_pinned(
    found: dict[str, dict[str, Any]], pinned: Any
) -> None:
    """Nothing is empty, forgotten or left behind, so a new stage or kind has to be added."""
    parts = {
        name: {p for one in made.values() for p in one} for name, made in found["keys"].items()
    }
    kinds = {suite.kind or suite.name for suite in golden.BASE.spec.evaluation.suites}

    assert all(parts.values())
    assert {name.partition(" ")[0] for name in parts} == set(golden.STAGES)
    assert kinds == set(golden.KINDS)
    for kind in golden.KINDS:
        measured = {keys.baseline_of(part) for part in parts[f"evaluate {golden.name_of(kind)}"]}
        assert measured >= {None, *get_args(Baseline)} - (
            {"languageInstruction"} if kind == "nlp" else set()
        )
    for section, names in (
        ("keys", SUBJECTS),
        ("inputs", INPUTS),
        ("artifacts", ARTIFACTS),
    ):
        assert set(names) == set(found[section]) == set(pinned[section])
        assert all(found[section].values())
