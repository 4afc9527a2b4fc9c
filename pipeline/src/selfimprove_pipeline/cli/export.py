"""Pairs and models in the forms that other tools read."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import MANIFEST
from selfimprove_pipeline.contract.rows import Pair


def pairs(rows: Sequence[Pair], folder: Path) -> None:
    """Write pairs as a LLaMA-Factory ranking set (ShareGPT form) with its dataset_info.json."""
    _expect_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = [_ranking(row) for row in rows]
    text = json.dumps(values, ensure_ascii=False, indent=1)
    (folder / "pairs.json").write_text(text, encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps(DATASET_INFO, indent=2))


def model(source: Path, folder: Path) -> None:
    """Copy a model artifact as a plain Hugging Face folder."""
    _expect_new(folder)
    ignored = shutil.ignore_patterns(
        MANIFEST, "metrics.jsonl", "tensorboard", "checkpoints", "parts"
    )
    shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)


DATASET_INFO: dict[str, Any] = {
    "selfimprove": {
        "file_name": "pairs.json",
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {
            "messages": "conversations",
            "chosen": "chosen",
            "rejected": "rejected",
            "system": "system",
        },
    }
}


def _ranking(pair: Pair) -> dict[str, Any]:
    system = "".join(turn.content for turn in pair.prompt if turn.role == "system")
    user = "".join(turn.content for turn in pair.prompt if turn.role == "user")
    return {
        "conversations": [{"from": "human", "value": user}],
        "chosen": {"from": "gpt", "value": pair.chosen[0].content},
        "rejected": {"from": "gpt", "value": pair.rejected[0].content},
        "system": system,
    }


def _expect_new(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        found = "a file" if folder.is_file() else "files in it"
        message = f"--out {folder}: expected an empty or new folder, found {found}"
        raise InputError(message)
