"""Deletion of a run. With `deletionPolicy: Delete` a Job first removes its artifacts.

Only our finalizer delays the deletion, for ten minutes at most. If the Job cannot be created or
has not succeeded by then, the finalizer is removed and an Event says what is left.
"""

from typing import Final

from selfimprove_operator.api import status
from selfimprove_operator.api.status import Launch
from selfimprove_operator.decisions import drive, endings, outcomes
from selfimprove_operator.decisions.actions import RecordEvent, SetFinalizer
from selfimprove_operator.decisions.draft import Draft
from selfimprove_operator.decisions.drive import Observed
from selfimprove_pipeline.contract.recipe import Spec

LIMIT_SECONDS: Final = 600.0


def decide(draft: Draft, observed: Observed, spec: Spec) -> None:
    """Remove the artifacts of a deleted run with the unit `delete`, then its finalizer."""
    run = draft.run
    if status.FINALIZER not in run.finalizers:
        return
    if run.status.start_time is None or spec.deletion_policy != "Delete":
        draft.act(SetFinalizer(is_wanted=False))
        return
    refusal = observed.facts.refusal
    is_ending = refusal is not None and refusal.is_ending
    assert run.deleted_at is not None, "`plan` calls this for deleted runs only"  # noqa: S101
    left = run.deleted_at + LIMIT_SECONDS - draft.now
    if is_ending or left <= 0:
        prefix = f"s3://{spec.storage.bucket}/{spec.storage.prefix}".rstrip("/")
        message = (
            f"the artifacts of the run could not be removed and are left under {prefix}; "
            f"runs/{run.namespace}.{run.name}/index.json there lists them"
        )
        draft.act(RecordEvent("Warning", "ArtifactsLeft", message), SetFinalizer(is_wanted=False))
        return
    draft.wake_in(left)
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
        # No limit of retries applies here, only the ten minutes.
        outcomes.count_failure(draft, endings.ending(current))
