"""Fetches what watches do not deliver: a pod's log, and the Events of what does not run.

If progress or Events cannot be read, the last ones stay. The numbers of a stage are read only once,
so there an error is raised, and the work queue retries.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from selfimprove_operator.cluster.door import ClusterApi, Manifest
from selfimprove_operator.cluster.errors import ClusterError
from selfimprove_operator.decisions.actions import (
    Facts,
    Fetched,
    ReadEvents,
    ReadNumbers,
    ReadProgress,
)
from selfimprove_operator.decisions.observed import Run

PROGRESS_BYTES: Final = 4096
NUMBERS_BYTES: Final = 16 * 1024

Look = ReadProgress | ReadNumbers | ReadEvents


async def look(cluster: ClusterApi, run: Run, what: Look, facts: Facts, now: float) -> Facts:
    """Fetch what an action asks for, and return the facts with it."""
    match what:
        case ReadProgress(pod):
            try:
                line = await cluster.last_log_line(run.namespace, pod.name, PROGRESS_BYTES)
            except ClusterError:
                line = None
            known = facts.progress.get(pod.uid) or Fetched(now)
            progress = replace(known, at=now)
            if (event := _parsed(line, "progress")) is not None:
                done, total = event["done"], event["total"]
                progress = Fetched(now, reason=str(event["stage"]), message=f"{done}/{total}")
            return replace(facts, progress={pod.uid: progress})
        case ReadNumbers(job_uid, pod):
            line = await cluster.last_log_line(run.namespace, pod.name, NUMBERS_BYTES)
            return replace(facts, numbers={job_uid: _parsed(line, "numbers")})
        case ReadEvents(uid):
            before = facts.events.get(uid)
            count = before.count + 1 if before else 1
            reason, message = await _latest_warning(cluster, run.namespace, uid)
            if not reason and before is not None:
                reason, message = before.reason, before.message
            warning = Fetched(now, count, reason, message)
            return replace(facts, events={**facts.events, uid: warning})


def _parsed(line: str | None, kind: str) -> Mapping[str, Any] | None:
    """Return the stage's event of a kind in a log line, None for every other line."""
    try:
        value = json.loads(line or "")
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and value.get("event") == kind else None


async def _latest_warning(cluster: ClusterApi, namespace: str, uid: str) -> tuple[str, str]:
    """Return reason and message of the latest Warning about an object, empty if there is none."""
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
    """Return when an Event last happened; which field has it depends on who recorded it."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max((time for time in times if time), default="")
