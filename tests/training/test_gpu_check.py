"""The check of the training path on a GPU, in its tiny form on processors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.training import training_environment

pytestmark = pytest.mark.training

CHECK = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"
DEAF = """
import runpy, sys
from selfimprove_pipeline.train.model import attention
attend = attention._attend
attention._attend = lambda *a, cu_seq_lens_q=None, **more: attend(*a, **more)
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs the check with an attention that sees across the borders of packed rows."""


def _checked(out: Path, *command: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the parts that start no processes; return the exit code and the lines."""
    parts = ("--parts", "attention", "costs", "layouts")
    argv = (sys.executable, *command, str(CHECK), "--out", str(out), "--tiny", *parts)
    ran = subprocess.run(argv, env=training_environment(), check=False)
    lines = (out / "check.jsonl").read_text().splitlines()
    return ran.returncode, [json.loads(line) for line in lines]


def test_packed_passes_are_right_and_without_padding(tmp_path: Path) -> None:
    """Attention and both layouts agree, and packed passes are fewer and full."""
    code, rows = _checked(tmp_path)
    assert code == 0
    assert [row["part"] for row in rows if "ok" in row] == ["attention"] * 2 + ["layouts"] * 3
    padded, packed, *_ = (row for row in rows if "useful" in row)
    assert packed["useful"] == 1 > padded["useful"]
    assert packed["passes"] < padded["passes"] == 16


def test_attention_across_rows_is_found(tmp_path: Path) -> None:
    """An attention that does not keep packed rows apart ends the check with 1, in both parts."""
    code, rows = _checked(tmp_path, "-c", DEAF)
    assert code == 1
    assert {row["part"] for row in rows if row.get("ok") is False} == {"attention", "layouts"}
