"""The import contracts catch what they are there for: each plant in a copy of the sources fails."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PIPELINE: Final = "selfimprove_pipeline"
OPERATOR: Final = "selfimprove_operator"
SOURCES: Final = {PIPELINE: "pipeline/src", OPERATOR: "operator/src"}
STRANGERS: Final = "the operator knows the contract and nothing else of the pipeline"
PURE: Final = "the operator's decisions are pure"
MOST_FILES: Final = 12

Plant = Callable[[str, str], None]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Return what adds lines to a module, old or new, in a copy of both packages."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for package, source in SOURCES.items():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / source / package, tmp_path / package, ignore=ignored)

    def add(file: str, lines: str) -> None:
        with (tmp_path / file).open("a") as opened:
            opened.write(f"\n{lines}\n")

    return add


def checked(folder: Path) -> tuple[int, dict[str, str], str]:
    """Return the exit code, each contract's outcome and all that lint-imports says of a copy."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = re.findall(r"(?m)^(.+?) (KEPT|BROKEN)", done.stdout)
    return done.returncode, dict(outcomes), done.stdout


def broken(folder: Path) -> list[str]:
    """Return the names of the contracts that are broken in a copy."""
    code, outcomes, said = checked(folder)
    found = [name for name, outcome in outcomes.items() if outcome == "BROKEN"]
    assert (code == 0) == (not found), said
    return found


def contract(name: str) -> dict[str, Any]:
    """Return a contract of pyproject.toml."""
    told = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = told["tool"]["importlinter"]["contracts"]
    return next(one for one in found if one["name"] == name)


def floors(name: str) -> list[str]:
    """Return the packages of a contract of floors."""
    return [part for layer in contract(name)["layers"] for part in layer.split(" | ")]


@pytest.mark.usefixtures("plant")
def test_a_copy_without_a_plant_keeps_every_contract(tmp_path: Path) -> None:
    """What the other tests here find is of their plants."""
    code, outcomes, said = checked(tmp_path)

    assert code == 0, said
    assert set(outcomes.values()) == {"KEPT"}
    assert {"the pipeline's floors", "the report's floors", "the operator's floors"} <= set(
        outcomes
    )


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (PIPELINE, "the pipeline's floors"),
        (f"{PIPELINE}/report", "the report's floors"),
        (OPERATOR, "the operator's floors"),
    ],
)
def test_a_module_without_a_floor_is_refused(
    plant: Plant, tmp_path: Path, folder: str, name: str
) -> None:
    """Whoever adds a module says where it stands."""
    plant(f"{folder}/stray.py", '"""A module that stands nowhere."""')

    assert broken(tmp_path) == [name]


def test_the_operator_may_import_no_package_of_the_pipeline_but_the_contract(
    plant: Plant, tmp_path: Path
) -> None:
    """Each floor of the pipeline is planted, also one that is new."""
    others = [floor for floor in floors("the pipeline's floors") if floor != "contract"]
    plant(f"{OPERATOR}/__main__.py", "\n".join(f"import {PIPELINE}.{one}" for one in others))

    _, outcomes, said = checked(tmp_path)

    assert outcomes[STRANGERS] == "BROKEN"
    refused = re.findall(rf"{OPERATOR} is not allowed to import {PIPELINE}\.(\w+)", said)
    assert set(refused) == set(others)
    assert "contract" not in others


@pytest.mark.parametrize("stranger", contract(PURE)["forbidden_modules"])
def test_decisions_may_import_nothing_that_waits(
    plant: Plant, tmp_path: Path, stranger: str
) -> None:
    """A decision is a function of what was observed and of the time that it is given."""
    plant(f"{OPERATOR}/decisions/plan.py", f"import {stranger}")

    assert PURE in broken(tmp_path)


def test_a_floor_may_not_import_one_above_it(plant: Plant, tmp_path: Path) -> None:
    """Neither may two that stand beside each other."""
    plant(f"{PIPELINE}/text/numerals.py", f"import {PIPELINE}.store.uris")
    plant(f"{PIPELINE}/report/words/notation.py", f"import {PIPELINE}.report.forms.page")

    found = broken(tmp_path)

    assert {"the pipeline's floors", "the report's floors"} <= set(found)


def test_no_package_has_more_files_than_one_can_oversee() -> None:
    """A package that has grown too large has two subjects."""
    roots = [REPOSITORY / source / package for package, source in SOURCES.items()]
    folders = [path.parent for root in roots for path in root.rglob("__init__.py")]
    counts = {
        str(folder.relative_to(REPOSITORY)): len(list(folder.glob("*.py"))) for folder in folders
    }

    assert {name: n for name, n in counts.items() if n > MOST_FILES} == {}
