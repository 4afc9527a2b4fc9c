"""A tracker that is not installed is found early; TensorBoard's files have their place."""

import os
import sys
from pathlib import Path

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.train.loop import trackers


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder that packages are imported from."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_missing_packages_are_named_in_one_line(packages: Path) -> None:
    """Those that are there are not."""
    (packages / "wandb.py").touch()
    with pytest.raises(InputError, match=r"found no mlflow, trackio; install them") as caught:
        trackers.check(("wandb", "mlflow", "trackio"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tensorboard", "tensorboardX"])
def test_either_package_of_tensorboard_will_do(packages: Path, name: str) -> None:
    """PyTorch's own writer or tensorboardX writes the files."""
    (packages / f"{name}.py").touch()
    trackers.check(("tensorboard",))


def test_no_tracker_needs_no_package(packages: Path) -> None:
    """The metrics are in the artifact either way."""
    assert list(packages.iterdir()) == []
    trackers.check(())


@pytest.mark.parametrize("given", [None, "/mnt/logs"])
def test_each_training_has_a_folder_for_tensorboard_unless_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """The next training of a process does not write to the one before; a person's choice stays."""
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    if given is not None:
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", given)
    for name in ("next", "sft"):
        with trackers.tensorboard_in(tmp_path / name):
            assert os.environ["TENSORBOARD_LOGGING_DIR"] == (given or str(tmp_path / name))
    assert os.environ.get("TENSORBOARD_LOGGING_DIR") == given
