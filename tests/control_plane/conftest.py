"""A real API server for the tests in this folder, one for all of them."""

from collections.abc import Iterator

import pytest

from selfimprove_operator.api import crd
from support.control_plane import ControlPlane, missing, started


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Start an API server, or skip with what is missing for it."""
    if lack := missing():
        pytest.skip(lack)
    with started(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def served(control_plane: ControlPlane) -> ControlPlane:
    """Return the API server once it serves runs."""
    definition = str(crd.TARGET)
    made = control_plane.kubectl("create", "-f", definition)
    assert made.rc == 0, made.stderr
    control_plane.wait_until_served(crd.definition()["metadata"]["name"])
    return control_plane
