"""The conditions of a run. A transition time changes only when the condition's status does."""

from typing import Final

from selfimprove_operator.api import times
from selfimprove_operator.api.reasons import AnyReason
from selfimprove_operator.api.status import Condition, ConditionType, Outcome, Status

MESSAGE_LIMIT: Final = 1024


def find(status: Status, type_: ConditionType) -> Condition | None:
    """Return a condition, or None before it was first set."""
    return next((c for c in status.conditions if c.type == type_), None)


def is_true(status: Status, type_: ConditionType) -> bool:
    """Return whether a condition is set and True."""
    condition = find(status, type_)
    return condition is not None and condition.status == "True"


def put(  # noqa: PLR0913  the fields of a condition
    status: Status,
    type_: ConditionType,
    value: Outcome,
    reason: AnyReason,
    message: str = "",
    *,
    generation: int,
    now: float,
) -> Status:
    """Return the status with one condition set."""
    before = find(status, type_)
    since = times.stamp(now)
    if before is not None and before.status == value:
        since = before.last_transition_time
    condition = Condition(
        type=type_,
        status=value,
        reason=reason,
        message=shortened(message),
        observed_generation=generation,
        last_transition_time=since,
    )
    conditions = {c.type: c for c in status.conditions} | {type_: condition}
    return status.model_copy(update={"conditions": tuple(conditions.values())})


def shortened(message: str) -> str:
    """Return a message on one line that fits into a condition."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 3] + "..."
