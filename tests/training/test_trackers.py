"""A tracker that is not installed is found before hours of work."""

import sys
from pathlib import Path

import pytest

from selfimprove_pipeline.errors import InputError
from selfimprove_pipeline.train import trackers


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
