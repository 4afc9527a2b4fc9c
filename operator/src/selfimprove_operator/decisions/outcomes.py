"""Changes of the status after a launch has ended: the next unit, a retry, or the outcome."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, get_args

from selfimprove_operator.api import times
from selfimprove_operator.api.reasons import AnyReason
from selfimprove_operator.api.status import (
    ImageStatus,
    IterationNumbers,
    IterationStatus,
    LanguageNumbers,
    Launch,
    StageStatus,
    Status,
)
from selfimprove_operator.decisions import conditions
from selfimprove_operator.decisions.actions import RecordEvent
from selfimprove_operator.decisions.draft import Draft
from selfimprove_operator.decisions.endings import Ending, Result
from selfimprove_operator.decisions.observed import Child
from selfimprove_operator.launches import units
from selfimprove_operator.launches.units import Unit
from selfimprove_pipeline.contract.manifests import StopReason
from selfimprove_pipeline.contract.recipe import Spec

FIRST_BACK_OFF_SECONDS: Final = 10.0
LONGEST_BACK_OFF_SECONDS: Final = 600.0
ITERATIONS_WITH_NUMBERS: Final = 2
REPORT: Final = "report"
STOPS: Final[Mapping[str, StopReason]] = {reason: reason for reason in get_args(StopReason)}
NUMBERS: Final[Mapping[str, str]] = {
    str(info.alias): name for name, info in LanguageNumbers.model_fields.items()
}
"""Fields of a language's numbers in the status, by their name in a stage's log."""


def enter(draft: Draft, spec: Spec, iteration: int, unit: Unit) -> None:
    """Make a unit of an iteration the run's current launch."""
    stages = {
        name: StageStatus(name=name, state="Pending")
        for each in units.units_of(spec, iteration)
        for name in stage_names(each)
    }
    if draft.status.iteration == iteration:  # keep what is known of earlier units' stages
        stages |= {stage.name: stage for stage in draft.status.stages}
    draft.update(
        iteration=iteration,
        stage=stage_names(unit)[0],
        progress=None,
        stages=tuple(stages.values()),
        launch=Launch(unit=unit.name, iteration=iteration, waiting_since=draft.stamp),
    )
    draft.say(f"{unit.name} of iteration {iteration} is next")


def stage_names(unit: Unit) -> tuple[str, ...]:
    """Return the names of a unit's entries in `status.stages`."""
    return unit.stages or (unit.name,)


def set_stages(draft: Draft, unit: Unit, digests: Mapping[str, str], **fields: Any) -> None:
    """Set fields of a unit's stages, and the digest of each stage that has one."""
    names, launch = stage_names(unit), draft.launch
    counters = {"attempts": launch.attempts, "disruptions": launch.disruptions}

    def changed(stage: StageStatus) -> StageStatus:
        if stage.name not in names:
            return stage
        own = {"digest": digests[stage.name]} if stage.name in digests else {}
        if stage.state == "Succeeded" and "completion_time" in fields:
            # Its log has shown that it was done: that time is the better one.
            own["completion_time"] = stage.completion_time or draft.stamp
        return stage.model_copy(update={**counters, **fields, **own})

    draft.update(stages=tuple(changed(stage) for stage in draft.status.stages))


def show_running(draft: Draft, unit: Unit) -> None:
    """Show the stage that the log reports as running, and the stages before it as succeeded."""
    names, current = stage_names(unit), draft.status.stage
    position = names.index(current) if current in names else 0

    def changed(stage: StageStatus) -> StageStatus:
        if stage.name not in names[: position + 1]:
            return stage
        started = {"start_time": stage.start_time or draft.stamp}
        if stage.name == names[position]:
            return stage.model_copy(update={**started, "state": "Running"})
        ended = {"completion_time": stage.completion_time or draft.stamp}
        return stage.model_copy(update={**started, **ended, "state": "Succeeded"})

    draft.update(stages=tuple(changed(stage) for stage in draft.status.stages))


def succeed(
    draft: Draft, spec: Spec, unit: Unit, result: Result, numbers: Mapping[str, Any] | None
) -> None:
    """Copy the results of a unit to the status; enter the next unit or end the run."""
    digests = result.stages or {unit.name: result.digest}
    stop = _stopped_by_gate(draft, result)
    # A gate spares the stages after it: they have no digest and stay pending.
    done = replace(unit, stages=tuple(n for n in unit.stages if n in digests)) if stop else unit
    set_stages(draft, done, digests, state="Succeeded", completion_time=draft.stamp)
    _copy_totals(draft, result)
    if "warning" in result.totals:
        draft.act(RecordEvent("Warning", "PromptsOverlap", str(result.totals["warning"])))
    if numbers is not None:
        _merge_numbers(draft, numbers)
    iteration = draft.launch.iteration
    if stop and unit.name != REPORT:
        _change_iteration(draft, completion_time=draft.stamp)
        enter(draft, spec, iteration, units.unit(REPORT, spec, iteration))
        return
    following = None if stop else units.following(spec, iteration, unit.name)
    if following is None:
        reason, message = stop or ("Succeeded", "all iterations are done")
        finish(draft, is_success=True, reason=reason, message=message)
        return
    if following[0] != iteration:
        _change_iteration(draft, completion_time=draft.stamp)
        gain = f", gain {draft.status.last_gain}" if draft.status.last_gain and iteration else ""
        message = f"trained M{iteration + 1} on {draft.status.pairs_kept} pairs{gain}"
        draft.act(RecordEvent("Normal", "IterationSucceeded", message))
    enter(draft, spec, *following)


def _stopped_by_gate(draft: Draft, result: Result) -> tuple[AnyReason, str] | None:
    """Return reason and message if a gate has stopped the run, in this launch or before.

    The condition keeps them until the report is written: only then is the outcome decided.
    """
    reason = STOPS.get(str(result.totals.get("stopped")))
    if reason is not None:
        draft.put("Succeeded", "Unknown", reason, str(result.totals.get("message", "")))
    condition = conditions.find(draft.status, "Succeeded")
    if condition is None or condition.reason not in STOPS:
        return None
    return STOPS[condition.reason], condition.message


def _copy_totals(draft: Draft, result: Result) -> None:
    changes: dict[str, Any] = {}
    if result.model:
        changes["model_digest"] = str(result.model)[:64]
    if "gain" in result.totals:
        changes["gain"] = str(result.totals["gain"])[:16]
        draft.update(last_gain=changes["gain"])
    if "pairs" in result.totals:
        changes["pairs"] = int(result.totals["pairs"])
        draft.update(pairs_kept=changes["pairs"])
    if changes:
        _change_iteration(draft, **changes)


def _change_iteration(draft: Draft, **fields: Any) -> None:
    """Set fields of the current iteration's entry; the first change adds the entry."""
    index = draft.launch.iteration
    entries = {entry.index: entry for entry in draft.status.iterations}
    entry = entries.get(index) or IterationStatus(index=index, start_time=draft.launch.start_time)
    entries[index] = entry.model_copy(update=fields)
    draft.update(iterations=tuple(entries[number] for number in sorted(entries)))


def _merge_numbers(draft: Draft, numbers: Mapping[str, Any]) -> None:
    """Merge the numbers by language from a stage's log into those of its iteration."""
    index = int(numbers.get("iteration", draft.launch.iteration))
    entries = {entry.index: entry for entry in draft.status.numbers}
    rows = {row.language: row for row in entries[index].languages} if index in entries else {}
    for reported in numbers.get("languages", ()):
        language = str(reported["language"])
        row = rows.get(language) or LanguageNumbers(language=language)
        fields = {field: reported[name] for name, field in NUMBERS.items() if name in reported}
        rows[language] = row.model_copy(update=fields)
    entries[index] = IterationNumbers(index=index, languages=tuple(rows.values()))
    latest = sorted(entries)[-ITERATIONS_WITH_NUMBERS:]
    draft.update(numbers=tuple(entries[number] for number in latest))


def note_images(draft: Draft, unit: Unit, child: Child) -> None:
    """Record the digest of the image that a role's pods ran."""
    image_id = next((pod.image_id for pod in child.pods if pod.image_id), None)
    if image_id is None:
        return
    images = {image.role: image for image in draft.status.images}
    images[unit.role] = ImageStatus(role=unit.role, imageID=image_id[:512])
    draft.update(images=tuple(images.values()))


def relaunch(draft: Draft, spec: Spec, unit: Unit, ending: Ending) -> None:
    """Schedule another launch of the unit, or end the run if the limit is reached."""
    count = count_failure(draft, ending)
    set_stages(draft, unit, {}, state="Pending")
    if ending.kind == "Failure" and count > spec.retries.limit:
        message = f"failure {count}, retries.limit is {spec.retries.limit}: {draft.status.message}"
        finish(draft, is_success=False, reason="RetriesExceeded", message=message)
    elif ending.kind == "Disruption" and count > spec.retries.disruption_limit:
        limit = f"retries.disruptionLimit is {spec.retries.disruption_limit}"
        message = f"disruption {count}, {limit}: {draft.status.message}"
        finish(draft, is_success=False, reason="DisruptionsExceeded", message=message)


def count_failure(draft: Draft, ending: Ending) -> int:
    """Count how a launch ended, set the back-off, and return the new count."""
    launch, is_attempt = draft.launch, ending.kind != "Disruption"
    counter = "attempts" if is_attempt else "disruptions"
    count = 1 + (launch.attempts if is_attempt else launch.disruptions)
    # 10 s, doubling to 10 minutes. After a first disruption there is nothing to wait for.
    doublings = count - 1 if is_attempt else count - 2
    seconds = min(FIRST_BACK_OFF_SECONDS * 2**doublings, LONGEST_BACK_OFF_SECONDS)
    draft.update_launch(
        **{counter: count},
        job_name=None,
        job_uid=None,
        waiting_since=None,
        # Times of the API are whole seconds: without the one more it could be too early.
        not_before=times.stamp(draft.now + seconds + 1) if doublings >= 0 else None,
    )
    what = "failed" if is_attempt else "was disrupted"
    message = (
        f"{launch.unit} of iteration {launch.iteration} {what} ({ending.reason}): {ending.message}"
    )
    draft.act(RecordEvent("Warning", ending.reason, message))
    draft.put("Progressing", "False", ending.reason, message)
    draft.say(message)
    return count


def finish(draft: Draft, *, is_success: bool, reason: AnyReason, message: str) -> None:
    """Decide the outcome; it never changes afterwards."""
    stages = draft.status.stages
    if not is_success:
        stages = tuple(
            stage.model_copy(update={"state": "Failed"}) if stage.state == "Running" else stage
            for stage in stages
        )
    if is_success and draft.status.iterations:
        _change_iteration(draft, completion_time=draft.stamp)
    draft.update(completion_time=draft.stamp, stages=stages, progress=None, launch=None)
    draft.put("Succeeded", "True" if is_success else "False", reason, message)
    draft.put("Progressing", "False", reason, message)
    draft.put("Suspended", "False", "NotSuspended")
    draft.say(message)
    draft.act(RecordEvent("Normal" if is_success else "Warning", reason, message))


def is_decided(status: Status) -> bool:
    """Return whether the run's outcome is decided."""
    return status.completion_time is not None
