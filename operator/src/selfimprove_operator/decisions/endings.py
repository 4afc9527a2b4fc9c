"""How a launch ended: with a result, or by wrong input, its own failure or the infrastructure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from selfimprove_operator.api import reasons
from selfimprove_operator.api.reasons import AnyReason
from selfimprove_operator.decisions.observed import Child, Pod
from selfimprove_pipeline.contract.errors import InputError, TryAgainError

# From the container runtime: the program could not start, or a signal ended it (128 + signal).
EXIT_NOT_STARTED: Final = 128
EXIT_KILLED: Final = 137
EXIT_TERMINATED: Final = 143

Kind = Literal["Input", "Failure", "Disruption"]


@dataclass(frozen=True)
class Ending:
    """Why a launch did not succeed, with reason and message for its condition."""

    kind: Kind
    reason: AnyReason
    message: str


@dataclass(frozen=True)
class Result:
    """The result of a launch, from a pod's termination message."""

    digest: str
    stages: Mapping[str, str]
    model: str | None
    totals: Mapping[str, Any]


def result(child: Child) -> Result | None:
    """Return the result of a complete Job, None if its pods are gone with their messages."""
    for pod in sorted(child.pods, key=lambda pod: pod.index):
        message = _termination_message(pod)
        if pod.exit_code == 0 and "digest" in message:
            return Result(
                digest=str(message["digest"]),
                stages={str(k): str(v) for k, v in message.get("stages", {}).items()},
                model=message.get("model"),
                totals=message.get("totals", {}),
            )
    return None


def ending(child: Child) -> Ending:
    """Return why a failed Job failed.

    Wrong input comes first, because no retry can fix it. Then comes the infrastructure, then the
    pod that failed first: the other ranks are only ended because of it.
    """
    wrong = [
        pod for pod in child.pods if pod.exit_code == InputError.exit_code and _error_line(pod)
    ]
    if wrong:
        return Ending("Input", "InputError", _error_line(wrong[0]))
    reason: AnyReason
    for pod in child.pods:
        if pod.disruption:
            reason = reasons.of_kubernetes(pod.disruption, default="Disrupted")
            return Ending("Disruption", reason, f"pod {pod.name} was removed from its node")
    failed = [pod for pod in child.pods if pod.exit_code not in (None, 0)]
    if not failed:
        message = f"the pods of Job {child.name} are gone ({child.reason}: {child.message})"
        return Ending("Disruption", "PodLost", message)
    pod = min(failed, key=lambda pod: pod.finished_at)
    line = _error_line(pod)
    if pod.reason == "OOMKilled":
        message = f"pod {pod.name} exceeded its memory limit; raise it in spec.pods.*.resources"
        return Ending("Failure", "OOMKilled", message)
    if pod.exit_code == EXIT_NOT_STARTED:
        return Ending("Disruption", "StartError", line or f"pod {pod.name} could not be started")
    # SIGKILL alone may come from the kernel. A deleted pod gets it after its grace period.
    is_killed = pod.exit_code == EXIT_KILLED and pod.deleted_at is not None
    if is_killed or pod.exit_code == EXIT_TERMINATED:
        return Ending("Disruption", "PodTerminated", line or f"pod {pod.name} was terminated")
    reason = "TryAgain" if pod.exit_code == TryAgainError.exit_code else "Error"
    line = line or f"pod {pod.name} exited with code {pod.exit_code}; see its log"
    return Ending("Failure", reason, line)


def _error_line(pod: Pod) -> str:
    """Return the error line in a stage's termination message, empty if there is none."""
    return str(_termination_message(pod).get("error", ""))


def _termination_message(pod: Pod) -> Mapping[str, Any]:
    """Parse a pod's termination message; whatever is not the contract's JSON counts as empty."""
    try:
        message = json.loads(pod.message or "{}")
    except json.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}
