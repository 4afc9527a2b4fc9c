"""Runs, Jobs and Pods as the planner sees them: small frozen views of raw objects.

The index keeps these views and nothing else of a watch event, so that a thousand runs fit
into little memory.
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
    """A `SelfImproveRun`: its metadata, its spec as it stands, and its status."""

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
    """Return the view of a raw run, without what a newer operator has noted in its status."""
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
    """waiting is reason and message of what keeps it from running, as far as the pod says it."""
    is_running: bool = False
    exit_code: int | None = None
    finished_at: float = 0.0
    reason: str = ""
    """reason of the container's end, such as OOMKilled, or of the pod's, such as Evicted."""
    message: str = ""
    """message that the stage left (`terminationMessagePath`)."""
    disruption: str | None = None
    """disruption is the reason of the condition DisruptionTarget."""
    image_id: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.phase in ("Succeeded", "Failed")


def pod(body: JSONObject) -> Pod:
    """Return the view of a raw pod."""
    metadata, status = body["metadata"], body.get("status", {})
    labels = metadata.get("labels", {})
    container = _container(status)
    state = container.get("state", {})
    ended = state.get("terminated", {})
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
        waiting=_waiting(status, state),
        is_running="running" in state,
        exit_code=ended.get("exitCode"),
        finished_at=times.seconds_or_none(ended.get("finishedAt")) or 0.0,
        reason=ended.get("reason") or status.get("reason") or "",
        message=ended.get("message", ""),
        disruption=disruption.get("reason", "Disrupted") if disruption else None,
        image_id=container.get("imageID") or None,
    )


def _container(status: JSONObject) -> JSONObject:
    """Return the status of the stage's container, empty before the node has told one."""
    statuses: Sequence[JSONObject] = status.get("containerStatuses", ())
    return next((s for s in statuses if s["name"] == CONTAINER), {})


def _waiting(status: JSONObject, state: JSONObject) -> tuple[str, str] | None:
    """Return why a pod does not run yet, None where it runs or does not say."""
    waiting = state.get("waiting", {})
    if waiting.get("reason") and waiting["reason"] not in ("ContainerCreating", "PodInitializing"):
        return waiting["reason"], waiting.get("message", "")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition.get("reason", "Unschedulable"), condition.get("message", "")
    return None


@dataclass(frozen=True)
class Child:
    """One launch's Job, the operator's own or the one that a JobSet made of it."""

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
    """owner is kind, name and uid of the controller."""
    is_managed: bool
    """is_managed is true if it still carries the label that we watch by."""
    is_deleting: bool
    is_suspended: bool
    queue: str | None
    """queue of Kueue that may suspend it."""
    completions: int
    parallelism: int
    has_deadline: bool
    is_complete: bool
    is_failed: bool
    is_failing: bool
    """is_failing: the outcome is decided and pods still end (FailureTarget)."""
    reason: str = ""
    message: str = ""
    """reason and message of the condition Failed."""
    pods: tuple[Pod, ...] = field(default=())

    @property
    def is_finished(self) -> bool:
        """Whether its outcome is final and no pod of it runs."""
        return self.is_complete or self.is_failed


def child(body: JSONObject) -> Child:
    """Return the view of a raw Job, without its pods."""
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
