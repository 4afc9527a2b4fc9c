"""Metrics for Prometheus. No label has the name of a run, so their number stays small.

`cluster` counts its requests, the work queue its reconciles, and the loop changes of a status.
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
from selfimprove_operator.api.status import ConditionType, Status

STAGE_SECONDS: Final = (10, 30, 60, 180, 600, 1800, 3600, 7200, 14400, 28800, 86400)
RECONCILE_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
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
            "Runs by outcome (active, suspended, succeeded, failed) and current stage.",
            ["outcome", "stage"],
            registry=self.registry,
        )
        self._stages = Histogram(
            f"{PREFIX}_stage_duration_seconds",
            "Time from the start of a stage to its outcome, over all its launches.",
            ["stage", "outcome"],
            buckets=STAGE_SECONDS,
            registry=self.registry,
        )
        self._retries = Counter(
            f"{PREFIX}_retries",
            "Launches after the first by cause (attempt, disruption, suspension) and reason.",
            ["cause", "reason"],
            registry=self.registry,
        )
        self._reconciles = Histogram(
            f"{PREFIX}_reconcile_duration_seconds",
            "Duration of one reconcile of a run.",
            ["result"],
            buckets=RECONCILE_SECONDS,
            registry=self.registry,
        )
        self._depth = Gauge(
            f"{PREFIX}_queue_depth", "Runs in the work queue.", registry=self.registry
        )
        self._healed = Counter(
            f"{PREFIX}_healed_differences",
            "Objects that a watch has lost an event of, by difference (missing, stale, gone).",
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
            "Requests to the API server by verb, resource and HTTP status, without kopf's watches.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def called(self, verb: str, resource: str, code: str) -> None:
        """Count a request to the API server."""
        self._calls.labels(verb, resource, code).inc()

    def reconciled(self, seconds: float, is_success: bool) -> None:
        """Record the duration and result of a reconcile."""
        self._reconciles.labels("success" if is_success else "error").observe(seconds)

    def healed(self, kind: str, difference: str) -> None:
        """Count an object of the cache that was corrected from a listing."""
        self._healed.labels(kind, difference).inc()

    def watch_depth(self, depth: Callable[[], float]) -> None:
        """Report the queue's depth from a function at each scrape."""
        self._depth.set_function(depth)

    def watch_age(self, kind: str, age: Callable[[], float]) -> None:
        """Report the age of a watch in seconds from a function at each scrape."""
        self._watch_age.labels(kind).set_function(age)

    def seen(self, uid: str, status: Status) -> None:
        """Count a run by outcome and stage, instead of where it was counted before."""
        self.gone(uid)
        outcome = {"True": "succeeded", "False": "failed"}.get(_value(status, "Succeeded"))
        if outcome is None:
            outcome = "suspended" if _value(status, "Suspended") == "True" else "active"
        place = outcome, status.launch.unit if status.launch else "none"
        self._places[uid] = place
        self._runs.labels(*place).inc()

    def gone(self, uid: str) -> None:
        """Stop counting a run."""
        place = self._places.pop(uid, None)
        if place is not None:
            self._runs.labels(*place).dec()

    def moved(self, before: Status, after: Status) -> None:
        """Record what a change of a run's status means for its launch: retried, or ended."""
        launch, following = before.launch, after.launch
        if launch is None:
            return
        unit = launch.unit, launch.iteration
        if following is not None and (following.unit, following.iteration) == unit:
            progressing = (c.reason for c in after.conditions if c.type == "Progressing")
            reason = next(progressing, "Unknown")
            for cause, count in (
                ("attempt", following.attempts - launch.attempts),
                ("disruption", following.disruptions - launch.disruptions),
                ("suspension", following.suspensions - launch.suspensions),
            ):
                if count > 0:
                    self._retries.labels(cause, reason).inc(count)
        elif launch.start_time is not None:
            outcome = "failed" if _value(after, "Succeeded") == "False" else "succeeded"
            seconds = max(self._clock() - times.seconds(launch.start_time), 0.0)
            self._stages.labels(launch.unit, outcome).observe(seconds)


def _value(status: Status, name: ConditionType) -> str:
    return next((c.status for c in status.conditions if c.type == name), "Unknown")
