"""Small immutable views of runs, Jobs and Pods, which the planner works with.

Of a watch event the informer cache keeps only the view, so that a thousand runs need little
memory.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from selfimprove_operator.api import times
from selfimprove_operator.api.status import (
    LABEL_ITERATION,
    LABEL_LAUNCH,
    LABEL_MANAGED_BY,
    LABEL_RUN_UID,
    LABEL_UNIT,
    MANAGED_BY,
    Status,
)
from selfimprove_pipeline.contract.environment import CONTAINER

JSONObject = Mapping[str, Any]

JOB_NAME: Final = "batch.kubernetes.io/job-name"
INDEX: Final = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class Run:
    """A `SelfImproveRun`: its metadata, spec and status."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleted_at: float | None
    finalizers: tuple[str, ...]
    spec: JSONObject
    status: Status

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


def run(body: JSONObject) -> Run:
    """Return the view of a run, without fields in its status that only a newer operator knows."""
    metadata, status = body["metadata"], json.dumps(body.get("status") or {})
    return Run(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        deleted_at=times.seconds_or_none(metadata.get("deletionTimestamp")),
        finalizers=tuple(metadata.get("finalizers", ())),
        spec=body["spec"],
        status=Status.model_validate_json(status, extra="ignore"),
    )


@dataclass(frozen=True)
class Pod:
    """One pod of a Job."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    run_uid: str
    job: str
    index: int
    phase: str
    node: str | None
    deleted_at: float | None
    waiting: tuple[str, str] | None = None
    """waiting is reason and message of why it does not run, if its status says so."""
    is_running: bool = False
    exit_code: int | None = None
    finished_at: float = 0.0
    reason: str = ""
    """reason why the container ended, such as OOMKilled, or the pod, such as Evicted."""
    message: str = ""
    """message is the termination message of the stage."""
    disruption: str | None = None
    """disruption is the reason of the condition DisruptionTarget."""
    image_id: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all its containers have ended."""
        return self.phase in ("Succeeded", "Failed")


def pod(body: JSONObject) -> Pod:
    """Return the view of a pod."""
    metadata, status = body["metadata"], body.get("status", {})
    labels = metadata.get("labels", {})
    statuses: Sequence[JSONObject] = status.get("containerStatuses", ())
    container = next((s for s in statuses if s["name"] == CONTAINER), {})
    state = container.get("state", {})
    terminated = state.get("terminated", {})
    conditions = {c["type"]: c for c in status.get("conditions", ()) if c["status"] == "True"}
    disruption = conditions.get("DisruptionTarget")
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        run_uid=labels.get(LABEL_RUN_UID, ""),
        job=labels.get(JOB_NAME, ""),
        index=int(labels.get(INDEX, "0")),
        phase=status.get("phase", "Pending"),
        node=body.get("spec", {}).get("nodeName"),
        deleted_at=times.seconds_or_none(metadata.get("deletionTimestamp")),
        waiting=_reason_to_wait(status, state),
        is_running="running" in state,
        exit_code=terminated.get("exitCode"),
        finished_at=times.seconds_or_none(terminated.get("finishedAt")) or 0.0,
        reason=terminated.get("reason") or status.get("reason") or "",
        message=terminated.get("message", ""),
        disruption=disruption.get("reason", "Disrupted") if disruption else None,
        image_id=container.get("imageID") or None,
    )


def _reason_to_wait(status: JSONObject, state: JSONObject) -> tuple[str, str] | None:
    """Return why a pod does not run yet, None if it runs or its status does not say why."""
    waiting = state.get("waiting", {})
    # Every pod passes through these two: they explain nothing.
    if waiting.get("reason") and waiting["reason"] not in ("ContainerCreating", "PodInitializing"):
        return waiting["reason"], waiting.get("message", "")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition.get("reason", "Unschedulable"), condition.get("message", "")
    return None


@dataclass(frozen=True)
class Child:
    """The Job of one launch, created by the operator or by a JobSet."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    created_at: float
    run_uid: str
    unit: str
    iteration: int
    number: int
    owner: tuple[str, str, str] | None
    """owner is kind, name and uid of the controller owner."""
    is_managed: bool
    """is_managed is true if it still has the label by which Jobs are watched."""
    is_deleting: bool
    is_suspended: bool
    queue: str | None
    """queue is the Kueue queue that may suspend it."""
    completions: int
    parallelism: int
    has_deadline: bool
    is_complete: bool
    is_failed: bool
    is_failing: bool
    """is_failing: it will fail once its pods have ended (condition FailureTarget)."""
    reason: str = ""
    message: str = ""
    """reason and message of the condition Failed."""
    pods: tuple[Pod, ...] = field(default=())

    @property
    def is_finished(self) -> bool:
        """Whether its outcome is final and none of its pods runs."""
        return self.is_complete or self.is_failed


def child(body: JSONObject) -> Child:
    """Return the view of a Job, without its pods."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status", {})
    labels = metadata.get("labels", {})
    conditions = {c["type"]: c for c in status.get("conditions", ()) if c["status"] == "True"}
    failed = conditions.get("Failed", {})
    owners = [o for o in metadata.get("ownerReferences", ()) if o.get("controller")]
    return Child(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created_at=times.seconds(metadata["creationTimestamp"]),
        run_uid=labels.get(LABEL_RUN_UID, ""),
        unit=labels.get(LABEL_UNIT, ""),
        iteration=int(labels.get(LABEL_ITERATION, "-1")),
        number=int(labels.get(LABEL_LAUNCH, "-1")),
        owner=(owners[0]["kind"], owners[0]["name"], owners[0]["uid"]) if owners else None,
        is_managed=labels.get(LABEL_MANAGED_BY) == MANAGED_BY,
        is_deleting="deletionTimestamp" in metadata,
        is_suspended=bool(spec.get("suspend", False)),
        queue=labels.get("kueue.x-k8s.io/queue-name"),
        completions=spec.get("completions", 1),
        parallelism=spec.get("parallelism", 1),
        has_deadline="activeDeadlineSeconds" in spec,
        is_complete="Complete" in conditions,
        is_failed="Failed" in conditions,
        is_failing="FailureTarget" in conditions,
        reason=failed.get("reason", ""),
        message=failed.get("message", ""),
    )
