"""Every reason that the operator itself gives in a condition or an Event.

Reasons are API: people's alerts match them, so one may be added but never renamed.
`docs/operations.md` lists them all. While a launch waits for its pods, and after a disruption, the
reason is mostly Kubernetes' own, such as `Unschedulable`: that is a `KubernetesReason`.
"""

from typing import Final, Literal, NewType

Reason = Literal[
    "Accepted",
    "InvalidSpec",
    "NotAccepted",
    "Suspended",
    "Suspending",
    "NotSuspended",
    "NotQueued",
    "WaitingForQuota",
    "Admitted",
    "Starting",
    "Waiting",
    "Running",
    "Terminating",
    "Refused",
    "NamespaceTerminating",
    "Error",
    "TryAgain",
    "OOMKilled",
    "Disrupted",
    "PodTerminated",
    "StartError",
    "PodLost",
    "ResultLost",
    "JobDeleted",
    "Succeeded",
    "StoppedByGate",
    "NoPairs",
    "InputError",
    "InvalidPods",
    "RetriesExceeded",
    "DisruptionsExceeded",
    "RunDeadlineExceeded",
    "StageDeadlineExceeded",
    "StartDeadlineExceeded",
    "NodeLost",
]
EventReason = Literal["ArtifactsLeft", "IterationSucceeded", "PromptsOverlap", "Restored"]
"""Reasons that only Events have."""

KubernetesReason = NewType("KubernetesReason", str)
AnyReason = Reason | KubernetesReason

LONGEST: Final = 64


def of_kubernetes(text: str, *, default: Reason) -> AnyReason:
    """Return a reason that Kubernetes gave, without what the API server accepts in no condition."""
    # Ours are CamelCase letters. Third parties also write digits, dashes and spaces.
    letters = "".join(c for c in text if c.isascii() and c.isalpha())
    return KubernetesReason((letters[:1].upper() + letters[1:])[:LONGEST]) if letters else default
