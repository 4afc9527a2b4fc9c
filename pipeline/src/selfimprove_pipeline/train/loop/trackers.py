"""The trackers of training.reportTo: whether they are installed, where TensorBoard writes.

transformers finds out when the trainer is made, after the stages before it have run for hours.
Imports nothing heavy, so that whoever starts a run can ask first.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from selfimprove_pipeline.contract.errors import InputError

TRACKER_PACKAGES: Final[Mapping[str, str]] = {
    "mlflow": "mlflow-skinny",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""The package of each tracker that the training image has."""
_PACKAGES: Final = {"tensorboard": ("tensorboard", "tensorboardX")}
"""Packages of which one is enough, where they are not the tracker's name alone."""

TENSORBOARD: Final = "tensorboard"
"""Folder of TensorBoard's files in the artifact."""
_FOLDER: Final = "TENSORBOARD_LOGGING_DIR"
"""Environment variable by which transformers knows where TensorBoard's files go."""


@contextmanager
def tensorboard_in(folder: Path) -> Iterator[None]:
    """Have TensorBoard's files written to a folder, unless the environment names another one."""
    given = os.environ.get(_FOLDER)
    os.environ.setdefault(_FOLDER, str(folder))
    try:
        yield
    finally:
        if given is None:
            del os.environ[_FOLDER]


def check(report_to: Sequence[str]) -> None:
    """Raise InputError if a tracker's package cannot be imported here."""
    missing = [name for name in report_to if not _is_installed(name)]
    if missing:
        message = (
            f"spec.training.reportTo: expected installed packages, found no {', '.join(missing)}; "
            "install them where the training runs, or leave them out"
        )
        raise InputError(message)


def check_image(report_to: Sequence[str]) -> None:
    """Raise InputError if the training image lacks a tracker; for a pod with another image."""
    missing = [name for name in report_to if name not in TRACKER_PACKAGES]
    if missing:
        message = (
            f"spec.training.reportTo: expected trackers of the training image "
            f"({', '.join(TRACKER_PACKAGES)}), found {', '.join(missing)}; leave them out"
        )
        raise InputError(message)


def _is_installed(name: str) -> bool:
    return any(find_spec(package) is not None for package in _PACKAGES.get(name, (name,)))
