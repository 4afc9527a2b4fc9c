"""The reasons of conditions and Events, which people's alerts match."""

import re
from pathlib import Path
from typing import Final, get_args

import pytest

from selfimprove_operator.api import reasons
from selfimprove_operator.api.crd import structural
from selfimprove_operator.api.status import Condition

OPERATIONS: Final = Path(__file__).parents[4] / "docs" / "operations.md"
OURS: Final = (*get_args(reasons.Reason), *get_args(reasons.EventReason))
SCHEMA: Final = structural(Condition)["properties"]["reason"]


def is_accepted(reason: str) -> bool:
    """Return whether the API server accepts a reason, by the schema in the CRD."""
    return len(reason) <= SCHEMA["maxLength"] and bool(re.search(SCHEMA["pattern"], reason))


@pytest.mark.parametrize("reason", OURS)
def test_a_reason_is_documented_and_accepted_by_the_api_server(reason: str) -> None:
    """`docs/operations.md` lists it, and it fits the pattern of the CRD."""
    assert f"`{reason}`" in OPERATIONS.read_text()
    assert is_accepted(reason)


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ("Unschedulable", "Unschedulable"),
        ("failed-mount 2", "Failedmount"),
        ("x" * 100, "X" + "x" * 63),
        ("500", "Waiting"),
        ("", "Waiting"),
    ],
)
def test_a_reason_of_kubernetes_is_passed_on_as_the_api_server_accepts_it(
    given: str, passed_on: str
) -> None:
    """Whatever third parties write, the status with it can be stored."""
    reason = reasons.of_kubernetes(given, default="Waiting")

    assert reason == passed_on
    assert is_accepted(reason)
