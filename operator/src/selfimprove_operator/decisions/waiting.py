"""The state of a launch: what it waits for, its progress, and the deadline that has passed."""

from typing import Final

from selfimprove_operator.api import reasons, times
from selfimprove_operator.api.reasons import AnyReason, Reason
from selfimprove_operator.decisions.actions import Facts, ReadEvents, ReadProgress
from selfimprove_operator.decisions.draft import Draft
from selfimprove_operator.decisions.observed import Child, Pod
from selfimprove_pipeline.contract.recipe import Spec

EVENTS_SECONDS: Final = 3.0
"""Time that pods have to start before the Events are read; doubled after each read."""
LONGEST_EVENTS_SECONDS: Final = 60.0
PROGRESS_SECONDS: Final = 10.0
"""Time between two reads of a running pod's log."""


def describe(draft: Draft, child: Child, facts: Facts) -> None:
    """Set the conditions of a live launch: it is queued, waits for its pods, or runs."""
    if child.is_suspended and child.queue:
        message = f"waiting for the queue {child.queue} to admit {child.name}"
        draft.update_launch(waiting_since=None)
        draft.put("QuotaReserved", "False", "WaitingForQuota", message)
        draft.put("Progressing", "False", "WaitingForQuota", message)
        draft.say(message)
        return
    if child.queue:
        draft.put("QuotaReserved", "True", "Admitted", f"admitted by the queue {child.queue}")
    start_clock(draft)
    waiting = [pod for pod in child.pods if not pod.is_running and not pod.is_finished]
    running = [pod for pod in child.pods if pod.is_running]
    if running and not waiting:
        _describe_running(draft, running, facts)
        return
    if sum(pod.is_finished for pod in child.pods) >= child.completions:
        return  # within seconds the Job's own status says how it ended
    if draft.launch.waiting_since is None:
        draft.update_launch(waiting_since=draft.stamp)
    reason, message = _reason_to_wait(draft, child, waiting, facts)
    draft.put("Progressing", "False", reason, message)
    draft.say(f"{draft.launch.unit} waits: {message}")


def start_clock(draft: Draft) -> None:
    """Start the clocks of `stageSeconds` and `runSeconds`; time in a queue does not count."""
    if draft.launch.start_time is None:
        draft.update_launch(start_time=draft.stamp)
    if draft.status.resume_time is None:
        draft.update(resume_time=draft.stamp)


def _describe_running(draft: Draft, pods: list[Pod], facts: Facts) -> None:
    """Show the progress of the first pod, and read its log again after 10 s."""
    pod = min(pods, key=lambda pod: pod.index)
    draft.update_launch(waiting_since=None)
    progress = facts.progress.get(pod.uid)
    if progress is not None and progress.reason:
        draft.update(stage=progress.reason, progress=progress.message)
    seconds = 0.0 if progress is None else progress.at + PROGRESS_SECONDS - draft.now
    if seconds <= 0:
        draft.act(ReadProgress(pod))
        seconds = PROGRESS_SECONDS
    draft.wake_in(seconds)
    message = f"{draft.launch.unit} of iteration {draft.launch.iteration} is running"
    draft.put("Progressing", "True", "Running", f"{message} on {pod.node}")
    draft.say(message)


def _reason_to_wait(
    draft: Draft, child: Child, waiting: list[Pod], facts: Facts
) -> tuple[AnyReason, str]:
    """Return why a launch does not run, from the status of its pods, else from Events."""
    for pod in waiting:
        if pod.deleted_at is not None:
            return "Terminating", f"pod {pod.name} is being deleted"
        if pod.waiting is not None:
            reason, message = pod.waiting
            shown = reasons.of_kubernetes(reason, default="Waiting")
            return shown, f"pod {pod.name}: {reason}: {message}"
    # Quota, Pod Security and mounts show in Events only: of the Job as long as it has no pod.
    uid = waiting[0].uid if waiting else child.uid
    event = facts.events.get(uid)
    due = child.created_at + EVENTS_SECONDS
    if event is not None:
        due = event.at + min(EVENTS_SECONDS * 2**event.count, LONGEST_EVENTS_SECONDS)
    if due <= draft.now:
        draft.act(ReadEvents(uid))
        due = draft.now + EVENTS_SECONDS
    draft.wake_in(due - draft.now)
    if event is not None and event.reason:
        shown = reasons.of_kubernetes(event.reason, default="Waiting")
        return shown, f"{event.reason}: {event.message}"
    return "Starting", f"{child.name} was created and its pods are starting"


def overdue(draft: Draft, spec: Spec, pods: list[Pod]) -> tuple[Reason, str] | None:
    """Return reason and message of a deadline that has passed, None if none has."""
    deadlines, launch = spec.deadlines, draft.status.launch
    started = launch.start_time if launch else None
    waiting = launch.waiting_since if launch else None
    # A deletion time includes the grace period: a pod still there later is on a lost node.
    deleted = [pod.deleted_at for pod in pods if pod.deleted_at and not pod.is_finished]
    lost = times.stamp(min(deleted)) if deleted and min(deleted) < draft.now else None
    clocks: tuple[tuple[Reason, str, int | None, str | None], ...] = (
        ("RunDeadlineExceeded", "runSeconds", deadlines.run_seconds, draft.status.resume_time),
        ("StageDeadlineExceeded", "stageSeconds", deadlines.stage_seconds, started),
        ("StartDeadlineExceeded", "startSeconds", deadlines.start_seconds, waiting),
        ("NodeLost", "nodeLostSeconds", deadlines.node_lost_seconds, lost),
    )
    for reason, name, limit, since in clocks:
        if limit is None or since is None:
            continue
        left = times.seconds(since) + limit - draft.now
        if left <= 0:
            state = f"; {draft.status.message}" if draft.status.message else ""
            return reason, f"deadlines.{name} of {limit} s has passed{state}"
        draft.wake_in(left)
    return None
