"""A decision in the making: the status as it becomes, the actions, the time to look again."""

from dataclasses import dataclass, field
from typing import Any

from selfimprove_operator.api import times
from selfimprove_operator.api.status import ConditionType, Launch, Outcome, Status
from selfimprove_operator.decisions import conditions
from selfimprove_operator.decisions.actions import Action, Decision
from selfimprove_operator.decisions.observed import Run


@dataclass
class Draft:
    """What `plan.decide` writes into while it decides; nothing outside of it changes."""

    run: Run
    now: float
    status: Status
    actions: list[Action] = field(default_factory=list)
    wake_seconds: float | None = None

    @property
    def stamp(self) -> str:
        """The time now, as the API writes it."""
        return times.stamp(self.now)

    @property
    def launch(self) -> Launch:
        """The launch that the run is at."""
        assert self.status.launch is not None, "a run that was accepted has a launch"  # noqa: S101
        return self.status.launch

    def update(self, **fields: Any) -> None:
        """Set fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def update_launch(self, **fields: Any) -> None:
        """Set fields of the launch."""
        self.update(launch=self.launch.model_copy(update=fields))

    def put(self, kind: ConditionType, value: Outcome, reason: str, message: str = "") -> None:
        """Set a condition."""
        self.status = conditions.put(
            self.status,
            kind,
            value,
            reason,
            message,
            generation=self.run.generation,
            now=self.now,
        )

    def say(self, message: str) -> None:
        """Set the message that people see first."""
        self.update(message=conditions.shortened(message))

    def act(self, *actions: Action) -> None:
        """Add actions, in their order."""
        self.actions.extend(actions)

    def wake_in(self, seconds: float) -> None:
        """Look again after some seconds, or earlier if that was wanted already."""
        wanted = max(seconds, 0.0)
        self.wake_seconds = wanted if self.wake_seconds is None else min(wanted, self.wake_seconds)

    def wake_at(self, text: str) -> None:
        """Look again at a time of the API."""
        self.wake_in(times.seconds(text) - self.now)

    def decision(self) -> Decision:
        """Return what has been decided."""
        return Decision(self.status, tuple(self.actions), self.wake_seconds)
