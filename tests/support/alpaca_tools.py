"""alpaca-eval's own tools, offline: what we write and compute is held against them."""

import csv
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

COMMIT: Final = "a" * 40
GAMED: Final = "df_gamed.csv"


def loaded(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the package, which asks nobody.

    It imports `pkg_resources` to look at versions; setuptools has not had that since release 82.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "pkg_resources", ModuleType("pkg_resources"))
    return importlib.import_module("alpaca_eval")


def with_table(
    monkeypatch: pytest.MonkeyPatch, folder: Path, rows: Sequence[Mapping[str, Any]]
) -> ModuleType:
    """Return the package with a table of gamed verdicts in the cache of its downloads."""
    repository = folder / "datasets--tatsu-lab--alpaca_eval"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    with (snapshot / GAMED).open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    package = loaded(monkeypatch)
    monkeypatch.setattr(package.constants, "DEFAULT_CACHE_DIR", str(folder))
    return package
