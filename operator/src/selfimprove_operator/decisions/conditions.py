"""The conditions of a run: set one at a time, transition times kept while the status stays."""

from selfimprove_operator.api import times
from selfimprove_operator.api.status import Condition, ConditionType, Outcome, Status

MESSAGE_LIMIT = 1024


def find(status: Status, type_: ConditionType) -> Condition | None:
    """Return a condition, None before it was first set."""
    return next((c for c in status.conditions if c.type == type_), None)


def is_true(status: Status, type_: ConditionType) -> bool:
    """Return whether a condition is there and true."""
    found = find(status, type_)
    return found is not None and found.status == "True"


def put(  # noqa: PLR0913  the fields of a condition
    status: Status,
    type_: ConditionType,
    value: Outcome,
    reason: str,
    message: str = "",
    *,
    generation: int,
    now: float,
) -> Status:
    """Return the status with one condition set."""
    before = find(status, type_)
    since = times.stamp(now) if before is None or before.status != value else None
    made = Condition(
        type=type_,
        status=value,
        reason=reason,
        message=shortened(message),
        observed_generation=generation,
        last_transition_time=since or (before.last_transition_time if before else ""),
    )
    others = {c.type: c for c in status.conditions} | {type_: made}
    return status.model_copy(update={"conditions": tuple(others.values())})


def shortened(message: str) -> str:
    """Return a message of one line that fits into a condition."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 3] + "..."
