"""Look where no watch event tells: into a pod's log, and at the Events about what does not run.

A look at progress or Events that fails brings nothing new and costs nothing but the look. The
numbers of a stage are read once: an API server that does not answer is asked again.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from selfimprove_operator.cluster.door import ClusterApi, Manifest
from selfimprove_operator.cluster.errors import ClusterError
from selfimprove_operator.decisions.actions import (
    Facts,
    Looked,
    ReadEvents,
    ReadNumbers,
    ReadProgress,
)
from selfimprove_operator.decisions.observed import Run

PROGRESS_BYTES: Final = 4096
NUMBERS_BYTES: Final = 16 * 1024

Look = ReadProgress | ReadNumbers | ReadEvents


async def look(cluster: ClusterApi, run: Run, what: Look, facts: Facts, now: float) -> Facts:
    """Return the facts with what a look brought."""
    match what:
        case ReadProgress(pod):
            line = await _line(cluster, run.namespace, pod.name, PROGRESS_BYTES)
            found = _progress(line, facts.progress.get(pod.uid), now)
            return replace(facts, progress={pod.uid: found})
        case ReadNumbers(job_uid, pod):
            line = await cluster.last_log_line(run.namespace, pod.name, NUMBERS_BYTES)
            told = _event(line, "numbers")
            return replace(facts, numbers={job_uid: told})
        case ReadEvents(uid):
            before = facts.events.get(uid)
            count = before.count + 1 if before else 1
            reason, message = await _reason(cluster, run.namespace, uid)
            if not reason and before is not None:
                reason, message = before.reason, before.message
            return replace(facts, events={**facts.events, uid: Looked(now, count, reason, message)})


async def _line(cluster: ClusterApi, namespace: str, pod: str, limit: int) -> str | None:
    try:
        return await cluster.last_log_line(namespace, pod, limit)
    except ClusterError:
        return None


def _progress(line: str | None, before: Looked | None, now: float) -> Looked:
    """Return stage and progress of a log's last line, the ones before where it tells none."""
    event = _event(line, "progress")
    if event is None:
        return Looked(now) if before is None else replace(before, at=now)
    return Looked(now, reason=str(event["stage"]), message=f"{event['done']}/{event['total']}")


def _event(line: str | None, kind: str) -> Mapping[str, Any] | None:
    """Return the event of a kind that a line is, None for every other line."""
    try:
        value = json.loads(line or "")
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and value.get("event") == kind else None


async def _reason(cluster: ClusterApi, namespace: str, uid: str) -> tuple[str, str]:
    """Return reason and message of the latest warning about an object, empty if there is none."""
    try:
        events = await cluster.events_of(namespace, uid)
    except ClusterError:
        return "", ""
    warnings = [event for event in events if event.get("type") == "Warning"]
    if not warnings:
        return "", ""
    latest = max(warnings, key=_time)
    return str(latest.get("reason", "")), " ".join(str(latest.get("message", "")).split())


def _time(event: Manifest) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max((time for time in times if time), default="")
