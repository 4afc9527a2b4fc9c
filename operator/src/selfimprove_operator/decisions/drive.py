"""The run's current launch: start it, follow it, and take over its outcome.

`waiting` describes a launch that does not run yet; `outcomes` changes the status after its end.
"""

from dataclasses import dataclass
from typing import Final

from selfimprove_operator.api import times
from selfimprove_operator.api.reasons import Reason
from selfimprove_operator.api.status import Launch
from selfimprove_operator.decisions import endings, outcomes, waiting
from selfimprove_operator.decisions.actions import (
    Confirm,
    Create,
    Delete,
    DryRun,
    Facts,
    ReadNumbers,
    Restore,
)
from selfimprove_operator.decisions.draft import Draft
from selfimprove_operator.decisions.endings import Ending
from selfimprove_operator.decisions.observed import Child, Pod, Run
from selfimprove_operator.launches import units
from selfimprove_operator.launches.units import Unit
from selfimprove_pipeline.contract.recipe import Spec

FIRST_ON_GPUS: Final = "inference"
"""The first role that asks for GPUs: a wrong pod is found before the run waits for them."""
REFUSED_AGAIN_SECONDS: Final = 10.0
INVALID: Final = 422


@dataclass(frozen=True)
class Observed:
    """One run with everything that is known about it."""

    run: Run
    children: tuple[Child, ...]
    """children with their pods."""
    lingering: tuple[Pod, ...]
    """lingering are pods whose Job is gone."""
    facts: Facts

    @property
    def pods(self) -> list[Pod]:
        """All pods of the run."""
        return [*self.lingering, *(pod for child in self.children for pod in child.pods)]


def current_child(draft: Draft, observed: Observed) -> Child | None:
    """Return the Job of the run's launch, found by its labels, or by name if they were removed."""
    for child in observed.children:
        if _has_labels_of(draft.launch, child) or child.name == draft.launch.job_name:
            return child
    return None


def _has_labels_of(launch: Launch, child: Child) -> bool:
    wanted = (launch.unit, launch.iteration, launch.number)
    return (child.unit, child.iteration, child.number) == wanted


def end_strays(draft: Draft, strays: list[Child]) -> None:
    """Delete running Jobs that are not the current launch, such as one of another operator."""
    draft.act(*(Delete(c) for c in strays if not c.is_finished and not c.is_deleting))


def take_over(draft: Draft, child: Child, spec: Spec, facts: Facts) -> None:
    """Copy the outcome of a finished launch to the status."""
    unit = units.unit(draft.launch.unit, spec, draft.launch.iteration)
    waiting.start_clock(draft)
    outcomes.note_images(draft, unit, child)
    if child.is_failed:
        fail(draft, spec, unit, endings.ending(child))
        return
    result = endings.result(child)
    if result is None:
        message = f"Job {child.name} is complete, but its result is lost with its pods"
        outcomes.relaunch(draft, spec, unit, Ending("Disruption", "ResultLost", message))
        draft.wake_in(0)
        return
    if unit.has_numbers and child.uid not in facts.numbers and child.pods:
        first = min(child.pods, key=lambda pod: pod.index)
        draft.act(ReadNumbers(child.uid, first))
        return
    outcomes.succeed(draft, spec, unit, result, facts.numbers.get(child.uid))
    draft.wake_in(0)


def fail(draft: Draft, spec: Spec, unit: Unit, ending: Ending) -> None:
    """End the run for wrong input, else launch again within the limits."""
    if ending.kind == "Input":
        outcomes.set_stages(draft, unit, {}, state="Failed", completion_time=draft.stamp)
        outcomes.finish(draft, is_success=False, reason=ending.reason, message=ending.message)
        return
    outcomes.relaunch(draft, spec, unit, ending)
    draft.wake_in(0)


def suspend(draft: Draft, observed: Observed, current: Child | None, strays: list[Child]) -> None:
    """Delete the launch; the run is suspended once its pods are gone."""
    if current is not None:
        if not current.is_deleting:
            draft.act(Delete(current))
        draft.put("Progressing", "False", "Suspending", f"waiting for {current.name} to end")
        draft.say("suspending")
        return
    if _awaits_confirmation(draft, observed.facts):
        return
    if draft.launch.job_name is not None:
        count = draft.launch.suspensions + 1
        draft.update_launch(suspensions=count, job_uid=None, job_name=None)
    if _still_running(draft, observed, strays):
        return
    draft.update_launch(waiting_since=None, start_time=None)
    draft.update(resume_time=None, progress=None)
    draft.put("Suspended", "True", "Suspended", "spec.suspend is true; no pod of the run is left")
    draft.put("Progressing", "False", "Suspended")
    draft.say("suspended")


def _awaits_confirmation(draft: Draft, facts: Facts) -> bool:
    """Have the API server confirm that a Job missing in the cache is gone; true until it has."""
    job = draft.launch.job_name
    if job is None or job in facts.gone:
        return False
    draft.act(Confirm(job))
    return True


def _still_running(draft: Draft, observed: Observed, strays: list[Child]) -> bool:
    """Wait for pods of earlier launches: two launches must not write at the same time."""
    pods = [p for p in observed.lingering if not p.is_finished]
    pods += [p for stray in strays for p in stray.pods if not p.is_finished]
    live = [stray for stray in strays if not stray.is_finished]
    if not pods and not live:
        return False
    name = pods[0].name if pods else live[0].name
    draft.put("Progressing", "False", "Terminating", f"waiting for {name} to end")
    draft.say(f"waiting for {name} to end")
    return True


def drive(
    draft: Draft, observed: Observed, spec: Spec, current: Child | None, strays: list[Child]
) -> None:
    """Start the run's launch, or follow it while it runs."""
    unit = units.unit(draft.launch.unit, spec, draft.launch.iteration)
    draft.put("Suspended", "False", "NotSuspended")
    if current is None:
        _start(draft, observed, spec, unit, strays)
        return
    if draft.launch.job_uid != current.uid:
        draft.update_launch(job_uid=current.uid, job_name=current.name, not_before=None)
    if is_changed_by_hand(current, draft.run, draft.launch):
        draft.act(Restore(current))
    if current.is_deleting or current.is_failing:
        draft.say(f"waiting for {current.name} to end")
        return
    outcomes.note_images(draft, unit, current)
    waiting.describe(draft, current, observed.facts)
    if any(pod.is_running for pod in current.pods):
        outcomes.show_running(draft, unit)


def is_changed_by_hand(child: Child, run: Run, launch: Launch) -> bool:
    """Return whether someone changed the Job in a way that can be undone."""
    if child.is_finished or child.is_deleting:
        return False
    is_ours = child.is_managed and child.run_uid == run.uid and child.owner is not None
    is_ours = is_ours and _has_labels_of(launch, child)
    is_held = child.is_suspended and child.queue is None
    return not is_ours or is_held or child.has_deadline or child.parallelism != child.completions


def _start(draft: Draft, observed: Observed, spec: Spec, unit: Unit, strays: list[Child]) -> None:
    """Create the launch, after back-off, and when nothing of an earlier one runs any more."""
    if draft.launch.job_name is not None:  # it was created once, and is now gone
        if _awaits_confirmation(draft, observed.facts):
            return
        message = f"Job {draft.launch.job_name} was deleted"
        outcomes.relaunch(draft, spec, unit, Ending("Disruption", "JobDeleted", message))
        draft.wake_in(0)
        return
    not_before = draft.launch.not_before
    if not_before is not None and times.seconds(not_before) > draft.now:
        draft.wake_at(not_before)
        return
    if draft.launch.waiting_since is None:
        draft.update_launch(waiting_since=draft.stamp)
    if _still_running(draft, observed, strays) or _is_refused(draft, observed.facts):
        return
    is_first = draft.launch.iteration == 0 and draft.launch.number == 0
    is_validated = observed.facts.is_dry_run_good or unit.role != FIRST_ON_GPUS
    draft.act(DryRun() if is_first and not is_validated else Create())


def _is_refused(draft: Draft, facts: Facts) -> bool:
    """Report a refusal of the API server; retry later, or end the run if the pods are invalid."""
    refusal = facts.refusal
    if refusal is None:
        return False
    if refusal.status == INVALID:
        message = f"the API server rejected the pods; fix spec.pods: {refusal.message}"
        outcomes.finish(draft, is_success=False, reason="InvalidPods", message=message)
        return True
    reason: Reason = "NamespaceTerminating" if refusal.is_ending else "Refused"
    draft.put("Progressing", "False", reason, refusal.message)
    draft.say(f"{draft.launch.unit} waits: {refusal.message}")
    if refusal.is_ending:
        return True
    left = refusal.at + REFUSED_AGAIN_SECONDS - draft.now
    if left > 0:
        draft.wake_in(left)
    return left > 0
