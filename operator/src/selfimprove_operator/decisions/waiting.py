"""Why a launch does not run yet, how far it is, and which deadline ends it."""

from typing import Final

from selfimprove_operator.api import times
from selfimprove_operator.decisions.actions import Facts, Looked, ReadEvents, ReadProgress
from selfimprove_operator.decisions.draft import Draft
from selfimprove_operator.decisions.observed import Child, Pod
from selfimprove_pipeline.contract.recipe import Spec

PATIENCE_SECONDS: Final = 3.0
"""Time in which a launch may come to run before its Events are read."""
LONGEST_LOOK_SECONDS: Final = 60.0
PROGRESS_SECONDS: Final = 10.0


def describe(draft: Draft, child: Child, facts: Facts) -> None:
    """Say of a live launch whether it waits or runs, and ask for what tells more."""
    if child.is_suspended and child.queue:
        _in_queue(draft, child)
        return
    if child.queue:
        draft.put("QuotaReserved", "True", "Admitted", f"admitted by the queue {child.queue}")
    start_clock(draft)
    waiting = [pod for pod in child.pods if not pod.is_running and not pod.is_finished]
    running = [pod for pod in child.pods if pod.is_running]
    if running and not waiting:
        _running(draft, running, facts)
        return
    if sum(pod.is_finished for pod in child.pods) >= child.completions:
        return  # nothing is waited for but the Job's own word, which comes within seconds
    if draft.launch.waiting_since is None:
        draft.update_launch(waiting_since=draft.stamp)
    reason, message = _reason(draft, child, waiting, facts)
    draft.put("Progressing", "False", reason, message)
    draft.say(f"{draft.launch.unit} waits: {message}")


def start_clock(draft: Draft) -> None:
    """Start the clocks of unit and run, which no waiting for quota may count on."""
    if draft.launch.start_time is None:
        draft.update_launch(start_time=draft.stamp)
    if draft.status.resume_time is None:
        draft.update(resume_time=draft.stamp)


def _in_queue(draft: Draft, child: Child) -> None:
    message = f"waiting for the queue {child.queue} to admit {child.name}"
    draft.update_launch(waiting_since=None)
    draft.put("QuotaReserved", "False", "WaitingForQuota", message)
    draft.put("Progressing", "False", "WaitingForQuota", message)
    draft.say(message)


def _running(draft: Draft, pods: list[Pod], facts: Facts) -> None:
    """Show the progress of the first pod, and look at its log again in time."""
    pod = min(pods, key=lambda pod: pod.index)
    draft.update_launch(waiting_since=None)
    looked = facts.progress.get(pod.uid)
    if looked is not None and looked.reason:
        draft.update(stage=looked.reason, progress=looked.message)
    due = 0.0 if looked is None else looked.at + PROGRESS_SECONDS - draft.now
    if due <= 0:
        draft.act(ReadProgress(pod))
        due = PROGRESS_SECONDS
    draft.wake_in(due)
    what = f"{draft.launch.unit} of iteration {draft.launch.iteration} runs"
    draft.put("Progressing", "True", "Running", f"{what} on {pod.node}")
    draft.say(what)


def _reason(draft: Draft, child: Child, waiting: list[Pod], facts: Facts) -> tuple[str, str]:
    """Return reason and message of what a launch waits for, from its pods, else from Events."""
    for pod in waiting:
        if pod.deleted_at is not None:
            return "Terminating", f"pod {pod.name} is being deleted"
        if pod.waiting is not None:
            reason, message = pod.waiting
            return _word(reason), f"pod {pod.name}: {reason}: {message}"
    uid = waiting[0].uid if waiting else child.uid
    looked = facts.events.get(uid)
    _look_again(draft, uid, looked, since=child.created_at)
    if looked is not None and looked.reason:
        return _word(looked.reason), f"{looked.reason}: {looked.message}"
    return "Starting", f"{child.name} was created and its pods start"


def _look_again(draft: Draft, uid: str, looked: Looked | None, *, since: float) -> None:
    """Ask for the Events of an object: 3 s after its creation, then ever more seldom."""
    due = since + PATIENCE_SECONDS
    if looked is not None:
        due = looked.at + min(PATIENCE_SECONDS * 2**looked.count, LONGEST_LOOK_SECONDS)
    if due <= draft.now:
        draft.act(ReadEvents(uid))
        due = draft.now + PATIENCE_SECONDS
    draft.wake_in(due - draft.now)


def _word(reason: str) -> str:
    """Return a reason as one word of letters, as conditions want it."""
    letters = "".join(c for c in reason if c.isascii() and c.isalpha())
    return (letters[:1].upper() + letters[1:])[:64] or "Waiting"


def overdue(draft: Draft, spec: Spec, pods: list[Pod]) -> tuple[str, str] | None:
    """Return reason and message of the deadline that has passed, None while there is time."""
    deadlines, launch = spec.deadlines, draft.status.launch
    clocks = (
        ("RunDeadlineExceeded", "runSeconds", deadlines.run_seconds, draft.status.resume_time),
        (
            "StageDeadlineExceeded",
            "stageSeconds",
            deadlines.stage_seconds,
            launch.start_time if launch else None,
        ),
        (
            "StartDeadlineExceeded",
            "startSeconds",
            deadlines.start_seconds,
            launch.waiting_since if launch else None,
        ),
        ("NodeLost", "nodeLostSeconds", deadlines.node_lost_seconds, _lost_since(draft, pods)),
    )
    for reason, name, limit, since in clocks:
        if limit is None or since is None:
            continue
        left = times.seconds(since) + limit - draft.now
        if left <= 0:
            waited = f"; {draft.status.message}" if draft.status.message else ""
            return reason, f"deadlines.{name} of {limit} s has passed{waited}"
        draft.wake_in(left)
    return None


def _lost_since(draft: Draft, pods: list[Pod]) -> str | None:
    """Return since when a pod should be gone and is not: its node does not answer.

    A deletion's time already includes the pod's grace period.
    """
    lost = [pod.deleted_at for pod in pods if pod.deleted_at is not None and not pod.is_finished]
    late = [at for at in lost if at < draft.now]
    return times.stamp(min(late)) if late else None
