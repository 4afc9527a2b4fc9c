"""Decide what happens next with a run: a pure function of what is observed and the time.

`decide` gives the status as it should be and the actions after it has been written. Three rules
make a crash between any two writes harmless: a launch stands in the status before its Job is
created; an outcome stands there before anything is deleted; and nothing counts as gone before
the API server has said so. Neighbours: `outcomes` (after a launch), `waiting` (before and
during it), `drive` (the launch itself),
`deletion` (the run's own end), and `loop`, which does what is decided here.
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
    SetFinalizer,
    Tell,
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
"""Makes the snapshot that a new run starts with; InputError where its recipe is too large."""


def decide(observed: Observed, take: Take, now: float) -> Decision:
    """Return what to do with a run. `take` makes the snapshot that a new run starts with."""
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
        _after(draft, observed, resolved.spec)
    elif run.status.start_time is None:
        _accept(draft, resolved, take)
    else:
        _go_on(draft, observed, resolved.spec)
    return draft.decision()


def owner_of(run: Run) -> Owner:
    """Return the run as the owner of its children."""
    return Owner(run.namespace, run.name, run.uid)


def resolved_run(run: Run) -> recipe.Run:
    """Return the run's recipe, its profile filled in; ValueError where it is none."""
    metadata = {"name": run.name, "namespace": run.namespace}
    body = {"apiVersion": recipe.API_VERSION, "kind": recipe.KIND, "metadata": metadata}
    return _resolved(json.dumps({**body, "spec": run.spec}))


@lru_cache(maxsize=64)  # every pass over a run asks, and its spec seldom changes
def _resolved(text: str) -> recipe.Run:
    return recipe.resolve(recipe.Run.model_validate_json(text))


def _refuse(draft: Draft, message: str) -> None:
    """Say that a spec is wrong that the API server let through: only its author can mend it."""
    draft.put("Accepted", "False", "InvalidSpec", message)
    if draft.status.start_time is None:
        draft.put("Succeeded", "Unknown", "NotAccepted")
    draft.say(message)


def _accept(draft: Draft, resolved: recipe.Run, take: Take) -> None:
    """Fix what the run uses, and make `check` its first launch."""
    spec = resolved.spec
    if spec.suspend:
        draft.put("Accepted", "True", "Accepted")
        draft.put("Suspended", "True", "Suspended", "spec.suspend is true")
        draft.put("Progressing", "False", "Suspended")
        draft.put("Succeeded", "Unknown", "Suspended")
        draft.say("suspended before it began")
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
    draft.put("Accepted", "True", "Accepted", "the recipe is fixed from now on")
    draft.put("Suspended", "False", "NotSuspended")
    queue = spec.scheduling.queue_name
    if queue is None:
        draft.put("QuotaReserved", "True", "NotQueued", "no queue was named")
    else:
        draft.put("QuotaReserved", "False", "WaitingForQuota", f"queue {queue}")
    draft.put("Progressing", "False", "Starting")
    draft.put("Succeeded", "Unknown", "Running")
    draft.say("starting")
    outcomes.enter(draft, spec, 0, units.first(spec))
    draft.act(Tell("Normal", "Accepted", f"recipe {draft.status.recipe_digest}"))
    _finalizer(draft, spec)
    draft.act(Create())


def _finalizer(draft: Draft, spec: Spec) -> None:
    """Keep the finalizer exactly while artifacts are to go with the run."""
    is_wanted = spec.deletion_policy == "Delete"
    if is_wanted != (status.FINALIZER in draft.run.finalizers):
        draft.act(SetFinalizer(is_wanted))


def _after(draft: Draft, observed: Observed, spec: Spec) -> None:
    """Nothing starts after the outcome: what still runs ends, and in the end the run goes."""
    _finalizer(draft, spec)
    draft.act(*(Delete(child) for child in observed.children if not child.is_finished))
    succeeded = conditions.is_true(draft.status, "Succeeded")
    ttl = spec.ttl_seconds_after_finished
    seconds = ttl.succeeded if succeeded else ttl.failed
    if seconds is None or draft.status.completion_time is None:
        return
    left = times.seconds(draft.status.completion_time) + seconds - draft.now
    if left > 0:
        draft.wake_in(left)
    else:
        draft.act(DeleteRun())


def _go_on(draft: Draft, observed: Observed, spec: Spec) -> None:
    """Take the current launch one step further."""
    _finalizer(draft, spec)
    current = drive.current_child(draft, observed)
    strays = [c for c in observed.children if c is not current]
    drive.end_strays(draft, strays)
    if current is not None and current.is_finished:
        drive.take_over(draft, current, spec, observed.facts)
    elif spec.suspend:
        drive.suspend(draft, observed, current, strays)
    else:
        drive.drive(draft, observed, spec, current, strays)
    is_open = not outcomes.is_decided(draft.status) and not spec.suspend
    late = waiting.overdue(draft, spec, observed.pods) if is_open else None
    if late is not None:
        outcomes.finish(draft, is_success=False, reason=late[0], message=late[1])
        draft.actions = [a for a in draft.actions if not isinstance(a, (Create, DryRun))]
