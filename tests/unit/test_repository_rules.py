"""Rules of the tree itself that no other tool checks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[2]
MADE = ("build", "dist")
"""Folders that git ignores and `make` fills."""
FOLDERS = {
    path.name: path
    for path in REPOSITORY.iterdir()
    if path.is_dir() and not path.name.startswith(".") and path.name not in MADE
}


@pytest.mark.parametrize("folder", ["", "src"])
def test_top_level_folders_are_never_packages(folder: str) -> None:
    """A package named operator would shadow the standard library's."""
    packages = [name for name, path in FOLDERS.items() if (path / folder / "__init__.py").exists()]

    assert packages == []
    assert {"operator", "pipeline", "tests"} <= FOLDERS.keys()


def test_folders_of_tests_are_no_packages() -> None:
    """Neither is any folder below tests/."""
    assert list((REPOSITORY / "tests").rglob("__init__.py")) == []


def test_every_test_says_in_a_sentence_what_must_be_true() -> None:
    """A test's docstring is what a reader of a failure reads first."""
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_module_is_named_utils() -> None:
    """A module has a subject."""
    modules = [path for folder in FOLDERS.values() for path in folder.rglob("*.py")]
    without = {"utils", "util", "helpers", "common", "misc"}

    assert [path for path in modules if path.stem in without or path.parent.name in without] == []
    assert {path.relative_to(REPOSITORY).parts[0] for path in modules} > {"operator", "pipeline"}


CAMEL_CASE_OUTSIDE = {"Part", "Row"}
"""Types whose fields users see in camelCase: in the recipe, the CRD, settings and artifacts."""


def test_docstrings_of_fields_name_the_field_that_there_is() -> None:
    """Where nobody outside sees a field in camelCase, its docstring has its name in Python."""
    classes = [
        (path, node)
        for source in ("pipeline/src", "operator/src")
        for path in sorted((REPOSITORY / source).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    camel = set(CAMEL_CASE_OUTSIDE)
    while more := {node.name for _, node in classes if camel & set(_bases(node))} - camel:
        camel |= more
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} {name}, found {word}"
        for path, node in classes
        if not camel & set(_bases(node))
        for line, name, word in _explained_fields(node)
        if word != name and word.lower() == name.replace("_", "").lower()
    ]
    assert wrong == []
    assert camel > CAMEL_CASE_OUTSIDE


def _bases(node: ast.ClassDef) -> Iterator[str]:
    for base in node.bases:
        yield ast.unparse(base).partition("[")[0].rpartition(".")[2]


def _explained_fields(node: ast.ClassDef) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and the docstring's first word of each field that has a docstring."""
    for field, text in zip(node.body, node.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(docstring))),
            ):
                words = re.findall(r"\w+", docstring)
                yield text.lineno, name, words[0] if words else ""


@pytest.mark.parametrize("profile", ["default", "ci"])
def test_no_property_is_judged_by_the_speed_of_the_machine(profile: str) -> None:
    """Neither in CI nor out of it an example is too slow, or too slow to make."""
    chosen = settings.get_profile(profile)

    assert chosen.deadline is None
    assert HealthCheck.too_slow in chosen.suppress_health_check
    assert settings.default is not None
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check
