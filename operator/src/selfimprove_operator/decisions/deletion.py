"""The end of a run that is deleted: with `deletionPolicy: Delete` its artifacts go first.

The finalizer is the only thing that delays a deletion, and never for long: a Job that cannot be
created, or fails for ten minutes, gives it up and an Event names what is left.
"""

from typing import Final

from selfimprove_operator.api import status
from selfimprove_operator.api.status import Launch
from selfimprove_operator.decisions import drive, endings, outcomes
from selfimprove_operator.decisions.actions import SetFinalizer, Tell
from selfimprove_operator.decisions.draft import Draft
from selfimprove_operator.decisions.drive import Observed
from selfimprove_pipeline.contract.recipe import Spec

PATIENCE_SECONDS: Final = 600.0


def decide(draft: Draft, observed: Observed, spec: Spec) -> None:
    """Remove the artifacts of a run that holds our finalizer, then let it go."""
    run = draft.run
    if status.FINALIZER not in run.finalizers:
        return
    if run.status.start_time is None or spec.deletion_policy != "Delete":
        draft.act(SetFinalizer(is_wanted=False))
        return
    refusal = observed.facts.refusal
    is_ending = refusal is not None and refusal.is_ending
    assert run.deleted_at is not None, "only a deleted run comes here"  # noqa: S101
    left = run.deleted_at + PATIENCE_SECONDS - draft.now
    if is_ending or left <= 0:
        _give_up(draft, spec)
        return
    draft.wake_in(left)
    _remove(draft, observed, spec)


def _remove(draft: Draft, observed: Observed, spec: Spec) -> None:
    """Drive the launch of `delete`, after everything else of the run has ended."""
    if draft.status.launch is None or draft.status.launch.unit != "delete":
        draft.update(launch=Launch(unit="delete", iteration=0, waiting_since=draft.stamp))
        draft.say("removing the artifacts of the run")
    current = drive.current_child(draft, observed)
    strays = [child for child in observed.children if child is not current]
    drive.end_strays(draft, strays)
    if current is None or not current.is_finished:
        drive.drive(draft, observed, spec, current, strays)
    elif current.is_complete:
        draft.act(SetFinalizer(is_wanted=False))
    else:
        # Failures count without a limit: the ten minutes are the limit.
        outcomes.count_failure(draft, endings.ending(current))


def _give_up(draft: Draft, spec: Spec) -> None:
    storage = spec.storage
    prefix = f"s3://{storage.bucket}/{storage.prefix}".rstrip("/")
    run = draft.run
    message = (
        f"the artifacts of the run are left under {prefix}: they could not be removed; its index "
        f"is runs/{run.namespace}.{run.name}/index.json there"
    )
    draft.act(Tell("Warning", "ArtifactsLeft", message), SetFinalizer(is_wanted=False))
