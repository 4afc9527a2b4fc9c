"""What the planner returns: actions for the loop. And what it is given beside the informer cache.

The planner (`plan`) only decides. The loop carries the actions out, in their order, after it has
written the status.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from selfimprove_operator.api.reasons import AnyReason, EventReason
from selfimprove_operator.api.status import Status
from selfimprove_operator.decisions.observed import Child, Pod


@dataclass(frozen=True)
class Create:
    """Create the objects of the launch that the status names."""


@dataclass(frozen=True)
class DryRun:
    """Have the API server validate one launch of every role without creating it."""


@dataclass(frozen=True)
class Confirm:
    """Read a Job that the cache does not have: only the API server knows whether it is gone."""

    job: str


@dataclass(frozen=True)
class Delete:
    """Delete a launch with its pods."""

    child: Child


@dataclass(frozen=True)
class Restore:
    """Undo manual changes of a Job."""

    child: Child


@dataclass(frozen=True)
class ReadProgress:
    """Read the last line of a running pod's log."""

    pod: Pod


@dataclass(frozen=True)
class ReadNumbers:
    """Read the last line of a finished pod's log, with the numbers by language."""

    job_uid: str
    pod: Pod


@dataclass(frozen=True)
class ReadEvents:
    """Read the Events of a Job or Pod that does not run."""

    uid: str


@dataclass(frozen=True)
class SetFinalizer:
    """Add the finalizer to the run, or remove it."""

    is_wanted: bool


@dataclass(frozen=True)
class DeleteRun:
    """Delete the run itself, after `ttlSecondsAfterFinished`."""


@dataclass(frozen=True)
class RecordEvent:
    """Record a Kubernetes Event about the run."""

    kind: Literal["Normal", "Warning"]
    reason: AnyReason | EventReason
    message: str


Action = (
    Create
    | DryRun
    | Confirm
    | Delete
    | Restore
    | ReadProgress
    | ReadNumbers
    | ReadEvents
    | SetFinalizer
    | DeleteRun
    | RecordEvent
)


@dataclass(frozen=True)
class Fetched:
    """What a log or the Events said when they were last read."""

    at: float
    count: int = 1
    """count of reads so far, for the back-off."""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Refusal:
    """The API server refused to create an object."""

    at: float
    status: int
    message: str
    is_ending: bool = False
    """is_ending: the namespace is being deleted."""


@dataclass(frozen=True)
class Facts:
    """What is known about one run from other requests than watches, in memory only.

    A restart loses it. That costs a few requests and changes no outcome.
    """

    gone: frozenset[str] = frozenset()
    """gone are the names of Jobs that do not exist according to the API server."""
    progress: Mapping[str, Fetched] = field(default_factory=dict)
    """progress by uid of the pod: reason is the stage, message how far it is."""
    events: Mapping[str, Fetched] = field(default_factory=dict)
    """events by uid of the Job or Pod that does not run."""
    numbers: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """numbers by uid of the Job; None if its log is lost."""
    refusal: Refusal | None = None
    """refusal of the latest creation or dry run; None if it was accepted."""
    is_dry_run_good: bool = False


@dataclass(frozen=True)
class Decision:
    """The status to write, the actions to take afterwards, and when to reconcile again."""

    status: Status
    actions: tuple[Action, ...] = ()
    wake_seconds: float | None = None
    """wake_seconds until the passing of time may change the decision."""
