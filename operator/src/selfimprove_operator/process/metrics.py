"""Metrics for Prometheus, in a registry of their own; no label names a run.

`cluster` counts its calls here, `queue` its looks, and the loop tells what became of a run.
"""

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from selfimprove_operator.api import times
from selfimprove_operator.api.status import ConditionType, Launch, Status

STAGE_SECONDS: Final = (10, 30, 60, 180, 600, 1800, 3600, 7200, 14400, 28800, 86400)
LOOK_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PREFIX: Final = "selfimprove"


class Metrics:
    """What the operator counts and measures."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._places: dict[str, tuple[str, str]] = {}
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._runs = Gauge(
            f"{PREFIX}_runs",
            "Runs by outcome (active, suspended, succeeded, failed) and the stage they are at.",
            ["outcome", "stage"],
            registry=self.registry,
        )
        self._stages = Histogram(
            f"{PREFIX}_stage_duration_seconds",
            "Time from the start of a stage's work to its outcome, all its launches included.",
            ["stage", "outcome"],
            buckets=STAGE_SECONDS,
            registry=self.registry,
        )
        self._retries = Counter(
            f"{PREFIX}_retries",
            "Launches beyond the first by cause (attempt, disruption, suspension) and reason.",
            ["cause", "reason"],
            registry=self.registry,
        )
        self._looks = Histogram(
            f"{PREFIX}_reconcile_duration_seconds",
            "Time that one look at a run took.",
            ["result"],
            buckets=LOOK_SECONDS,
            registry=self.registry,
        )
        self._depth = Gauge(
            f"{PREFIX}_queue_depth", "Runs that wait for a worker.", registry=self.registry
        )
        self._healed = Counter(
            f"{PREFIX}_healed_differences",
            "Objects of which the watches had lost something, by how (missing, stale, gone).",
            ["kind", "difference"],
            registry=self.registry,
        )
        self._watch_age = Gauge(
            f"{PREFIX}_watch_age_seconds",
            "Time since the last event of a watch.",
            ["kind"],
            registry=self.registry,
        )
        self._calls = Counter(
            f"{PREFIX}_api_calls",
            "Calls of the API server by verb, resource and HTTP status; kopf's watches are not in.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def called(self, verb: str, resource: str, code: str) -> None:
        """Count a call of the API server."""
        self._calls.labels(verb, resource, code).inc()

    def looked(self, seconds: float, is_good: bool) -> None:
        """Note how long a look at a run took and whether it went well."""
        self._looks.labels("success" if is_good else "error").observe(seconds)

    def healed(self, kind: str, difference: str) -> None:
        """Count a difference between a listing and the index that was mended."""
        self._healed.labels(kind, difference).inc()

    def watch_depth(self, depth: Callable[[], float]) -> None:
        """Read the queue's depth from a function whenever the metrics are read."""
        self._depth.set_function(depth)

    def watch_age(self, kind: str, age: Callable[[], float]) -> None:
        """Read a watch's age in seconds from a function whenever the metrics are read."""
        self._watch_age.labels(kind).set_function(age)

    def seen(self, uid: str, status: Status) -> None:
        """Count a run where its status says that it is."""
        self.gone(uid)
        place = _outcome(status), status.launch.unit if status.launch else "none"
        self._places[uid] = place
        self._runs.labels(*place).inc()

    def gone(self, uid: str) -> None:
        """Count a run no more."""
        before = self._places.pop(uid, None)
        if before is not None:
            self._runs.labels(*before).dec()

    def moved(self, before: Status, after: Status) -> None:
        """Note what a change of a run's status says of its launches."""
        launch, following = before.launch, after.launch
        if launch is None:
            return
        if following is None or _work(following) != _work(launch):
            self._ended(launch, after)
            return
        reason = next((c.reason for c in after.conditions if c.type == "Progressing"), "Unknown")
        for cause, count in (
            ("attempt", following.attempts - launch.attempts),
            ("disruption", following.disruptions - launch.disruptions),
            ("suspension", following.suspensions - launch.suspensions),
        ):
            if count > 0:
                self._retries.labels(cause, reason).inc(count)

    def _ended(self, launch: Launch, after: Status) -> None:
        if launch.start_time is None:
            return
        outcome = "failed" if _holds(after, "Succeeded") == "False" else "succeeded"
        seconds = max(self._clock() - times.seconds(launch.start_time), 0.0)
        self._stages.labels(launch.unit, outcome).observe(seconds)


def _work(launch: Launch) -> tuple[str, int]:
    return launch.unit, launch.iteration


def _holds(status: Status, name: ConditionType) -> str:
    return next((c.status for c in status.conditions if c.type == name), "Unknown")


def _outcome(status: Status) -> str:
    decided = {"True": "succeeded", "False": "failed"}.get(_holds(status, "Succeeded"))
    if decided is not None:
        return decided
    return "suspended" if _holds(status, "Suspended") == "True" else "active"
