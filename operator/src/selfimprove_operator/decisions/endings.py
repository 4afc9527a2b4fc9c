"""How a launch ended: with a result, by wrong input, by its own failure, by the infrastructure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from selfimprove_operator.decisions.observed import Child, Pod

EXIT_INPUT: Final = 2
EXIT_TRY_AGAIN: Final = 75
EXIT_NOT_STARTED: Final = 128
EXIT_KILLED: Final = 137
EXIT_TERMINATED: Final = 143

Kind = Literal["Input", "Failure", "Disruption"]


@dataclass(frozen=True)
class Ending:
    """Why a launch did not come to its end, in the words of its condition."""

    kind: Kind
    reason: str
    message: str


@dataclass(frozen=True)
class Result:
    """What a launch left in its termination message."""

    digest: str
    stages: Mapping[str, str]
    model: str | None
    totals: Mapping[str, Any]


def result(child: Child) -> Result | None:
    """Return the result of a complete Job, None where its pods' messages are lost."""
    for pod in sorted(child.pods, key=lambda pod: pod.index):
        said = _said(pod)
        if pod.exit_code == 0 and "digest" in said:
            return Result(
                digest=str(said["digest"]),
                stages={str(k): str(v) for k, v in said.get("stages", {}).items()},
                model=said.get("model"),
                totals=said.get("totals", {}),
            )
    return None


def ending(child: Child) -> Ending:
    """Return why a failed Job failed.

    Wrong input counts before anything else, then what the infrastructure did, then what the
    program did first: the ranks that are ended because one failed say nothing of the cause.
    """
    wrong = [pod for pod in child.pods if pod.exit_code == EXIT_INPUT and _line(pod)]
    if wrong:
        return Ending("Input", "InputError", _line(wrong[0]))
    disrupted = [pod for pod in child.pods if pod.disruption]
    if disrupted:
        pod = disrupted[0]
        return Ending("Disruption", str(pod.disruption), f"pod {pod.name} was taken from its node")
    ended = [pod for pod in child.pods if pod.exit_code not in (None, 0)]
    if not ended:
        return _without_pods(child)
    return _of_first(min(ended, key=lambda pod: pod.finished_at))


def _of_first(pod: Pod) -> Ending:
    if pod.reason == "OOMKilled":
        message = f"pod {pod.name} needed more memory than its limit; raise pods.*.resources"
        return Ending("Failure", "OOMKilled", message)
    is_taken = pod.exit_code == EXIT_KILLED and pod.deleted_at is not None
    if is_taken or pod.exit_code in (EXIT_TERMINATED, EXIT_NOT_STARTED):
        reason = "StartError" if pod.exit_code == EXIT_NOT_STARTED else "PodTerminated"
        return Ending("Disruption", reason, _line(pod) or f"pod {pod.name} was ended from outside")
    reason = "TryAgain" if pod.exit_code == EXIT_TRY_AGAIN else "Error"
    line = _line(pod) or f"pod {pod.name} ended with exit code {pod.exit_code}; see its log"
    return Ending("Failure", reason, line)


def _without_pods(child: Child) -> Ending:
    """Return the ending of a Job whose pods are gone, or never told how they ended."""
    message = f"the pods of {child.name} are gone ({child.reason}: {child.message})"
    return Ending("Disruption", "PodLost", message)


def _line(pod: Pod) -> str:
    """Return the one line with which a stage ended, empty where it left none."""
    return str(_said(pod).get("error", ""))


def _said(pod: Pod) -> Mapping[str, Any]:
    """Return a pod's termination message; anything but the contract's JSON is no message."""
    try:
        said = json.loads(pod.message or "{}")
    except json.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
