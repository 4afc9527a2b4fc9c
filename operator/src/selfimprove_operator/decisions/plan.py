"""Decide what happens next with a run: a pure function of the observed state and the time.

`decide` returns the status to write and the actions to take afterwards. Three rules make a crash
between any two writes harmless:

- A launch is in the status before its Job is created.
- An outcome is in the status before anything is deleted.
- An object that is missing in the cache counts as gone only after the API server has confirmed it.

`drive` handles the current launch, `waiting` describes it before and while it runs, `outcomes`
follows its end, and `deletion` handles a deleted run. `loop` carries out what is decided here.
"""

import json
from collections.abc import Callable
from functools import lru_cache

from selfimprove_operator.api import status, times
from selfimprove_operator.decisions import conditions, deletion, drive, outcomes, waiting
from selfimprove_operator.decisions.actions import (
    Create,
    Decision,
    Delete,
    DeleteRun,
    DryRun,
    RecordEvent,
    SetFinalizer,
)
from selfimprove_operator.decisions.draft import Draft
from selfimprove_operator.decisions.drive import Observed
from selfimprove_operator.decisions.observed import Run
from selfimprove_operator.launches import snapshot, units
from selfimprove_operator.launches.snapshot import Owner, Snapshot
from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Spec

Take = Callable[[recipe.Run], Snapshot]
"""Takes the snapshot that a new run starts with; raises InputError if its recipe is too large."""


def decide(observed: Observed, take: Take, now: float) -> Decision:
    """Return the run's new status and what to do. `take` takes the snapshot of a new run."""
    run = observed.run
    draft = Draft(run, now, run.status)
    managed_by = run.spec.get("managedBy", status.MANAGER)
    if managed_by != status.MANAGER:
        return draft.decision()
    try:
        resolved = resolved_run(run)
    except ValueError as error:
        _refuse(draft, str(error))
        return draft.decision()
    draft.update(observed_generation=run.generation)
    if run.deleted_at is not None:
        deletion.decide(draft, observed, resolved.spec)
    elif outcomes.is_decided(run.status):
        _clean_up(draft, observed, resolved.spec)
    elif run.status.start_time is None:
        _accept(draft, resolved, take)
    else:
        _continue(draft, observed, resolved.spec)
    return draft.decision()


def owner_of(run: Run) -> Owner:
    """Return the run as the controller owner of its objects."""
    return Owner(run.namespace, run.name, run.uid)


def resolved_run(run: Run) -> recipe.Run:
    """Return the run's recipe with its profile applied; ValueError if the spec is invalid."""
    metadata = {"name": run.name, "namespace": run.namespace}
    body = {"apiVersion": recipe.API_VERSION, "kind": recipe.KIND, "metadata": metadata}
    return _resolved(json.dumps({**body, "spec": run.spec}))


@lru_cache(maxsize=64)  # every reconcile needs it, and a spec seldom changes
def _resolved(text: str) -> recipe.Run:
    return recipe.resolve(recipe.Run.model_validate_json(text))


def _refuse(draft: Draft, message: str) -> None:
    """Report an invalid spec that the API server let through; its author has to correct it."""
    draft.put("Accepted", "False", "InvalidSpec", message)
    if draft.status.start_time is None:
        draft.put("Succeeded", "Unknown", "NotAccepted")
    draft.say(message)


def _accept(draft: Draft, resolved: recipe.Run, take: Take) -> None:
    """Fix what the run uses from now on, and make `check` its first launch."""
    spec = resolved.spec
    if spec.suspend:
        draft.put("Accepted", "True", "Accepted")
        draft.put("Suspended", "True", "Suspended", "spec.suspend is true")
        draft.put("Progressing", "False", "Suspended")
        draft.put("Succeeded", "Unknown", "Suspended")
        draft.say("suspended before the start")
        return
    try:
        taken: Snapshot = take(resolved)
    except InputError as error:
        _refuse(draft, str(error))
        return
    draft.update(
        start_time=draft.stamp,
        recipe_digest=snapshot.digest(taken),
        runtime_ref=status.RuntimeRef(name=owner_of(draft.run).metadata["name"]),
    )
    draft.put("Accepted", "True", "Accepted", "the recipe is valid and can no longer be changed")
    draft.put("Suspended", "False", "NotSuspended")
    queue = spec.scheduling.queue_name
    if queue is None:
        draft.put("QuotaReserved", "True", "NotQueued", "spec.scheduling.queueName is not set")
    else:
        draft.put("QuotaReserved", "False", "WaitingForQuota", f"queue {queue}")
    draft.put("Progressing", "False", "Starting")
    draft.put("Succeeded", "Unknown", "Running")
    draft.say("starting")
    outcomes.enter(draft, spec, 0, units.first(spec))
    draft.act(RecordEvent("Normal", "Accepted", f"recipe {draft.status.recipe_digest}"))
    _set_finalizer(draft, spec)
    draft.act(Create())


def _set_finalizer(draft: Draft, spec: Spec) -> None:
    """Add or remove the finalizer to match `deletionPolicy`, which may change at any time."""
    is_wanted = spec.deletion_policy == "Delete"
    if is_wanted != (status.FINALIZER in draft.run.finalizers):
        draft.act(SetFinalizer(is_wanted))


def _clean_up(draft: Draft, observed: Observed, spec: Spec) -> None:
    """After the outcome: end what still runs, and delete the run after its time to live."""
    _set_finalizer(draft, spec)
    draft.act(*(Delete(child) for child in observed.children if not child.is_finished))
    is_success = conditions.is_true(draft.status, "Succeeded")
    ttl = spec.ttl_seconds_after_finished
    seconds = ttl.succeeded if is_success else ttl.failed
    if seconds is None or draft.status.completion_time is None:
        return
    left = times.seconds(draft.status.completion_time) + seconds - draft.now
    if left > 0:
        draft.wake_in(left)
    else:
        draft.act(DeleteRun())


def _continue(draft: Draft, observed: Observed, spec: Spec) -> None:
    """Take the current launch one step further, and end the run if a deadline has passed."""
    _set_finalizer(draft, spec)
    current = drive.current_child(draft, observed)
    strays = [child for child in observed.children if child is not current]
    drive.end_strays(draft, strays)
    if current is not None and current.is_finished:
        drive.take_over(draft, current, spec, observed.facts)
    elif spec.suspend:
        drive.suspend(draft, observed, current, strays)
    else:
        drive.drive(draft, observed, spec, current, strays)
    if outcomes.is_decided(draft.status) or spec.suspend:
        return
    overdue = waiting.overdue(draft, spec, observed.pods)
    if overdue is not None:
        outcomes.finish(draft, is_success=False, reason=overdue[0], message=overdue[1])
        draft.actions = [a for a in draft.actions if not isinstance(a, (Create, DryRun))]
