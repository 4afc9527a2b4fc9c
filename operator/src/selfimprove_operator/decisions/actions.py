"""What the planner asks the loop to do, and what the loop tells it that no watch event says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from selfimprove_operator.api.status import Status
from selfimprove_operator.decisions.observed import Child, Pod


@dataclass(frozen=True)
class Create:
    """Create what the status's launch consists of."""


@dataclass(frozen=True)
class DryRun:
    """Have the API server judge one launch of every role without creating it."""


@dataclass(frozen=True)
class Confirm:
    """Read a Job that the index does not have; only the API server knows that it is gone."""

    job: str


@dataclass(frozen=True)
class Delete:
    """Delete a launch with its pods."""

    child: Child


@dataclass(frozen=True)
class Restore:
    """Undo what a hand has changed in a Job."""

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
    """Read why an object, a Job or a Pod, does not come to run."""

    uid: str


@dataclass(frozen=True)
class SetFinalizer:
    """Put the finalizer on the run, or take it off."""

    is_wanted: bool


@dataclass(frozen=True)
class DeleteRun:
    """Delete the run itself: its time to live is over."""


@dataclass(frozen=True)
class Tell:
    """Tell people with a Kubernetes Event."""

    kind: Literal["Normal", "Warning"]
    reason: str
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
    | Tell
)


@dataclass(frozen=True)
class Looked:
    """What a look at a log or at Events brought, and when."""

    at: float
    count: int = 1
    """count of looks so far, for the back-off."""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Refusal:
    """The API server refused a request."""

    at: float
    status: int
    message: str
    is_ending: bool = False
    """is_ending: the namespace is being deleted."""


@dataclass(frozen=True)
class Facts:
    """What is known of one run beside watch events, in memory only.

    Losing it costs a few calls, never an outcome.
    """

    gone: frozenset[str] = frozenset()
    """gone are the names of Jobs that the API server has said not to exist."""
    progress: Mapping[str, Looked] = field(default_factory=dict)
    """progress by uid of the pod: reason is the stage, message how far it is."""
    events: Mapping[str, Looked] = field(default_factory=dict)
    """events by uid of the Job or Pod that does not run."""
    numbers: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """numbers by uid of the Job; None where its log is lost."""
    refusal: Refusal | None = None
    """refusal of the latest creation or dry run, None after one that was accepted."""
    is_dry_run_good: bool = False


@dataclass(frozen=True)
class Decision:
    """The status as it should be, then what to do, then when to look again."""

    status: Status
    actions: tuple[Action, ...] = ()
    wake_seconds: float | None = None
    """wake_seconds until time alone may change the decision."""
