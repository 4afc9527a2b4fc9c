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
    # --for=condition fails where the definition has no conditions yet.
    established = '{.status.conditions[?(@.type=="Established")].status}=True'
    waited = control_plane.kubectl(
        "wait", f"--for=jsonpath={established}", "--timeout=300s", "-f", definition
    )
    assert waited.rc == 0, waited.stderr
    return control_plane
