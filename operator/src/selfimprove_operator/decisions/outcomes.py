"""What the status says after a launch has ended: the next unit, another launch, or the end."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, get_args

from selfimprove_operator.api import times
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
from selfimprove_operator.decisions.actions import Tell
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
STOPS: Final[tuple[str, ...]] = get_args(StopReason)
TOLD: Final[Mapping[str, str]] = {
    str(info.alias): name for name, info in LanguageNumbers.model_fields.items()
}
"""Numbers that a stage tells of a language, and their fields in the status."""


def enter(draft: Draft, spec: Spec, iteration: int, unit: Unit) -> None:
    """Make a unit of an iteration the launch that the run is at."""
    stages = _stages(draft, spec, iteration)
    draft.update(
        iteration=iteration,
        stage=names(unit)[0],
        progress=None,
        stages=stages,
        launch=Launch(unit=unit.name, iteration=iteration, waiting_since=draft.stamp),
    )
    draft.say(f"{unit.name} of iteration {iteration} is next")


def names(unit: Unit) -> tuple[str, ...]:
    """Return the names under which a unit stands in `stages`."""
    return unit.stages or (unit.name,)


def _stages(draft: Draft, spec: Spec, iteration: int) -> tuple[StageStatus, ...]:
    """Return the stages of an iteration, those that have run as they are."""
    is_same = draft.status.iteration == iteration
    known = {stage.name: stage for stage in draft.status.stages} if is_same else {}
    wanted = [name for unit in units.units_of(spec, iteration) for name in names(unit)]
    pending = {name: StageStatus(name=name, state="Pending") for name in wanted}
    return tuple((pending | known).values())


def set_stages(draft: Draft, unit: Unit, digests: Mapping[str, str], **fields: Any) -> None:
    """Set fields of the stages of a unit, each with its own digest where it has one."""
    wanted = names(unit)
    launch = draft.launch
    counters = {"attempts": launch.attempts, "disruptions": launch.disruptions}

    def changed(stage: StageStatus) -> StageStatus:
        if stage.name not in wanted:
            return stage
        more = {"digest": digests[stage.name]} if stage.name in digests else {}
        if stage.state == "Succeeded" and "completion_time" in fields:
            more["completion_time"] = stage.completion_time or draft.stamp
        return stage.model_copy(update={**counters, **fields, **more})

    draft.update(stages=tuple(changed(stage) for stage in draft.status.stages))


def show_running(draft: Draft, unit: Unit) -> None:
    """Show a unit's stages as its log tells them: done before the one that runs, open after it."""
    wanted, current = names(unit), draft.status.stage
    place = wanted.index(current) if current in wanted else 0

    def changed(stage: StageStatus) -> StageStatus:
        if stage.name not in wanted[: place + 1]:
            return stage
        started = {"start_time": stage.start_time or draft.stamp}
        if stage.name == wanted[place]:
            return stage.model_copy(update={**started, "state": "Running"})
        ended = {"completion_time": stage.completion_time or draft.stamp}
        return stage.model_copy(update={**started, **ended, "state": "Succeeded"})

    draft.update(stages=tuple(changed(stage) for stage in draft.status.stages))


def succeed(
    draft: Draft, spec: Spec, unit: Unit, result: Result, numbers: Mapping[str, Any] | None
) -> None:
    """Take over what a unit made, and go on to the next one or to the end of the run."""
    digests = result.stages or {unit.name: result.digest}
    _note_stop(draft, result)
    stop = _stop_of(draft)
    done = replace(unit, stages=tuple(n for n in unit.stages if n in digests)) if stop else unit
    set_stages(draft, done, digests, state="Succeeded", completion_time=draft.stamp)
    _note_totals(draft, result)
    if "warning" in result.totals:
        draft.act(Tell("Warning", "PromptsOverlap", str(result.totals["warning"])))
    if numbers is not None:
        _note_numbers(draft, numbers)
    iteration = draft.launch.iteration
    if stop and unit.name != REPORT:
        _change_iteration(draft, completion_time=draft.stamp)
        enter(draft, spec, iteration, units.unit(REPORT, spec, iteration))
        return
    position = None if stop else units.following(spec, iteration, unit.name)
    if position is None:
        reason, message = stop or ("Succeeded", "every iteration is done")
        finish(draft, is_success=True, reason=reason, message=message)
        return
    if position[0] != iteration:
        _end_iteration(draft, iteration)
    enter(draft, spec, *position)


def _note_stop(draft: Draft, result: Result) -> None:
    """Note in the condition that a gate has stopped the run, until its report is written."""
    reason = result.totals.get("stopped")
    if reason in STOPS:
        draft.put("Succeeded", "Unknown", reason, str(result.totals.get("message", "")))


def _stop_of(draft: Draft) -> tuple[str, str] | None:
    """Return reason and message of a run that a gate has stopped, None of one that goes on."""
    found = conditions.find(draft.status, "Succeeded")
    return (found.reason, found.message) if found and found.reason in STOPS else None


def _note_totals(draft: Draft, result: Result) -> None:
    totals = result.totals
    if "pairs" in totals:
        draft.update(pairs_kept=int(totals["pairs"]))
    if "gain" in totals:
        draft.update(last_gain=str(totals["gain"])[:16])
    if result.model:
        _change_iteration(draft, model_digest=str(result.model)[:64])
    if "gain" in totals:
        _change_iteration(draft, gain=str(totals["gain"])[:16])
    if "pairs" in totals:
        _change_iteration(draft, pairs=int(totals["pairs"]))


def _change_iteration(draft: Draft, **fields: Any) -> None:
    """Set fields of the entry of the launch's iteration, which begins with its first unit."""
    index = draft.launch.iteration
    entries = {entry.index: entry for entry in draft.status.iterations}
    entry = entries.get(index) or IterationStatus(index=index, start_time=draft.launch.start_time)
    entries[index] = entry.model_copy(update=fields)
    draft.update(iterations=tuple(entries[number] for number in sorted(entries)))


def _end_iteration(draft: Draft, iteration: int) -> None:
    _change_iteration(draft, completion_time=draft.stamp)
    gain = f", gain {draft.status.last_gain}" if draft.status.last_gain and iteration else ""
    message = f"M{iteration + 1} is trained on {draft.status.pairs_kept} pairs{gain}"
    draft.act(Tell("Normal", "IterationSucceeded", message))


def _note_numbers(draft: Draft, numbers: Mapping[str, Any]) -> None:
    """Merge the numbers that a stage told by language into those of its iteration."""
    index = int(numbers.get("iteration", draft.launch.iteration))
    entries = {entry.index: entry for entry in draft.status.numbers}
    before = {row.language: row for row in entries[index].languages} if index in entries else {}
    for told in numbers.get("languages", ()):
        language = str(told["language"])
        row = before.get(language) or LanguageNumbers(language=language)
        fields = {key: told[name] for name, key in TOLD.items() if name in told}
        before[language] = row.model_copy(update=fields)
    entries[index] = IterationNumbers(index=index, languages=tuple(before.values()))
    latest = sorted(entries)[-ITERATIONS_WITH_NUMBERS:]
    draft.update(numbers=tuple(entries[number] for number in latest))


def note_images(draft: Draft, unit: Unit, child: Child) -> None:
    """Record the digest of the image that a role's pods ran."""
    found = next((pod.image_id for pod in child.pods if pod.image_id), None)
    if found is None:
        return
    images = {image.role: image for image in draft.status.images}
    images[unit.role] = ImageStatus(role=unit.role, imageID=found[:512])
    draft.update(images=tuple(images.values()))


def relaunch(draft: Draft, spec: Spec, unit: Unit, ending: Ending) -> None:
    """Count how a launch ended, and launch again as far as the limits allow."""
    count = count_failure(draft, ending)
    set_stages(draft, unit, {}, state="Pending")
    is_attempt = ending.kind == "Failure"
    limit = spec.retries.limit if is_attempt else spec.retries.disruption_limit
    if count > limit:
        reason = "RetriesExceeded" if is_attempt else "DisruptionsExceeded"
        message = f"{draft.status.message}; {count} times, the limit is {limit}"
        finish(draft, is_success=False, reason=reason, message=message)


def count_failure(draft: Draft, ending: Ending) -> int:
    """Count how a launch ended, by attempts or by disruptions, and say when the next one is."""
    launch, is_attempt = draft.launch, ending.kind != "Disruption"
    counter = "attempts" if is_attempt else "disruptions"
    count = 1 + (launch.attempts if is_attempt else launch.disruptions)
    back_off = _back_off(count, is_attempt=is_attempt)
    draft.update_launch(
        **{counter: count},
        job_name=None,
        job_uid=None,
        waiting_since=None,
        not_before=times.stamp(draft.now + back_off + 1) if back_off else None,
    )
    what = "failed" if is_attempt else "was disrupted"
    message = (
        f"{launch.unit} of iteration {launch.iteration} {what} ({ending.reason}): {ending.message}"
    )
    draft.act(Tell("Warning", ending.reason, message))
    draft.put("Progressing", "False", ending.reason, message)
    draft.say(message)
    return count


def _back_off(count: int, *, is_attempt: bool) -> float:
    """Return the seconds to wait: 10 doubling after failures; a first disruption waits not."""
    doublings = count - 1 if is_attempt else count - 2
    if doublings < 0:
        return 0.0
    return float(min(FIRST_BACK_OFF_SECONDS * 2**doublings, LONGEST_BACK_OFF_SECONDS))


def finish(draft: Draft, *, is_success: bool, reason: str, message: str) -> None:
    """Decide the outcome, once and for all."""
    states = {"Running": "Failed"} if not is_success else {}
    stages = tuple(
        stage.model_copy(update={"state": states.get(stage.state, stage.state)})
        for stage in draft.status.stages
    )
    if is_success and draft.status.iterations:
        _change_iteration(draft, completion_time=draft.stamp)
    draft.update(completion_time=draft.stamp, stages=stages, progress=None, launch=None)
    draft.put("Succeeded", "True" if is_success else "False", reason, message)
    draft.put("Progressing", "False", reason, message)
    draft.put("Suspended", "False", "NotSuspended")
    draft.say(message)
    draft.act(Tell("Normal" if is_success else "Warning", reason, message))


def is_decided(status: Status) -> bool:
    """Return whether the run's outcome is decided."""
    return status.completion_time is not None
