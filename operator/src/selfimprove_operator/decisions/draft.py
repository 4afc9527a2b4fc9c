"""A decision while it is made: the new status, the actions, and when to reconcile again."""

from dataclasses import dataclass, field
from typing import Any

from selfimprove_operator.api import times
from selfimprove_operator.api.reasons import AnyReason
from selfimprove_operator.api.status import ConditionType, Launch, Outcome, Status
from selfimprove_operator.decisions import conditions
from selfimprove_operator.decisions.actions import Action, Decision
from selfimprove_operator.decisions.observed import Run


@dataclass
class Draft:
    """The decision that `plan.decide` builds up; nothing else is changed by deciding."""

    run: Run
    now: float
    status: Status
    actions: list[Action] = field(default_factory=list)
    wake_seconds: float | None = None

    @property
    def stamp(self) -> str:
        """The current time, as the API writes it."""
        return times.stamp(self.now)

    @property
    def launch(self) -> Launch:
        """The run's current launch."""
        assert self.status.launch is not None, "every accepted run has a launch"  # noqa: S101
        return self.status.launch

    def update(self, **fields: Any) -> None:
        """Set fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def update_launch(self, **fields: Any) -> None:
        """Set fields of the current launch."""
        self.update(launch=self.launch.model_copy(update=fields))

    def put(
        self, kind: ConditionType, value: Outcome, reason: AnyReason, message: str = ""
    ) -> None:
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
        """Set `status.message`, which `kubectl get -o wide` shows."""
        self.update(message=conditions.shortened(message))

    def act(self, *actions: Action) -> None:
        """Add actions, in their order."""
        self.actions.extend(actions)

    def wake_in(self, seconds: float) -> None:
        """Reconcile again after some seconds, or at an earlier time that was set before."""
        delay = max(seconds, 0.0)
        self.wake_seconds = delay if self.wake_seconds is None else min(delay, self.wake_seconds)

    def wake_at(self, text: str) -> None:
        """Reconcile again at a time that the API gave."""
        self.wake_in(times.seconds(text) - self.now)

    def decision(self) -> Decision:
        """Return the finished decision."""
        return Decision(self.status, tuple(self.actions), self.wake_seconds)
