"""Whether the packages of training.reportTo are installed.

transformers finds out when the trainer is made, after the stages before it have run for hours.
Imports nothing heavy, so that whoever starts a run can ask first.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Final

from selfimprove_pipeline.errors import InputError

TRACKER_PACKAGES: Final[Mapping[str, str]] = {
    "mlflow": "mlflow-skinny",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""The package of each tracker that the training image has."""
_PACKAGES: Final = {"tensorboard": ("tensorboard", "tensorboardX")}
"""Packages of which one is enough, where they are not the tracker's name alone."""


def check(report_to: Sequence[str]) -> None:
    """Raise InputError if a tracker's package cannot be imported here."""
    missing = [name for name in report_to if not _is_installed(name)]
    if missing:
        message = (
            f"spec.training.reportTo: expected installed packages, found no {', '.join(missing)}; "
            "install them where the training runs, or leave them out"
        )
        raise InputError(message)


def _is_installed(name: str) -> bool:
    return any(find_spec(package) is not None for package in _PACKAGES.get(name, (name,)))
