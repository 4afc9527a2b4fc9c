"""What Prometheus reads: every number the operations manual names, none that names a run."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from selfimprove_operator.api import times
from selfimprove_operator.api.status import Condition, ConditionType, Launch, Outcome, Status
from selfimprove_operator.process.metrics import Metrics

NOW = 1_800_000_000.0


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a name by their label values, sorted by label."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.name == name
    }


def condition(kind: ConditionType, outcome: Outcome, reason: str = "Reason") -> Condition:
    return Condition(type=kind, status=outcome, reason=reason, last_transition_time="t")


def at(unit: Any, iteration: int = 0, **counts: Any) -> Launch:
    started = times.stamp(NOW - 100)
    return Launch(unit=unit, iteration=iteration, start_time=started, **counts)


SUCCEEDED = Status(conditions=(condition("Succeeded", "True"),))
FAILED = Status(conditions=(condition("Succeeded", "False"),))


def test_runs_are_counted_where_they_are() -> None:
    """Each run stands once in the gauge, moves with its status, and leaves when it is deleted."""
    metrics = Metrics()
    suspended = (condition("Suspended", "True"),)
    for uid, status in (
        ("1", Status()),
        ("2", Status(launch=at("check"))),
        ("3", Status(launch=at("check"))),
        ("4", Status(launch=at("training"), conditions=suspended)),
        ("5", SUCCEEDED),
        ("6", FAILED),
    ):
        metrics.seen(uid, status)
        metrics.seen(uid, status)
    metrics.seen("2", Status(launch=at("inference")))
    metrics.gone("6")
    metrics.gone("6")

    assert samples(metrics, "selfimprove_runs") == {
        ("active", "none"): 1,
        ("active", "check"): 1,
        ("active", "inference"): 1,
        ("suspended", "training"): 1,
        ("succeeded", "none"): 1,
        ("failed", "none"): 0,
    }


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        pytest.param(Status(launch=at("light")), "succeeded", id="the next unit"),
        pytest.param(Status(launch=at("inference", 1)), "succeeded", id="the next iteration"),
        pytest.param(SUCCEEDED, "succeeded", id="the end"),
        pytest.param(FAILED, "failed", id="the bitter end"),
    ],
)
def test_a_stage_that_ends_has_a_duration(after: Status, outcome: str) -> None:
    """From the start of the stage's work to its outcome, by stage and outcome."""
    metrics = Metrics(lambda: NOW)

    metrics.moved(Status(launch=at("inference", attempts=2)), after)

    assert samples(metrics, "selfimprove_stage_duration_seconds_sum") == {
        (outcome, "inference"): 100
    }
    assert samples(metrics, "selfimprove_retries_total") == {}


@pytest.mark.parametrize(
    ("counts", "cause"),
    [
        pytest.param({"attempts": 1}, "attempt", id="the program failed"),
        pytest.param({"disruptions": 1}, "disruption", id="the node was drained"),
        pytest.param({"suspensions": 1}, "suspension", id="the run was suspended"),
    ],
)
def test_a_launch_beyond_the_first_has_a_cause(counts: dict[str, int], cause: str) -> None:
    """The counter that grew is the cause, the reason is that of Progressing; no stage ended."""
    metrics = Metrics(lambda: NOW)
    before = Status(launch=at("training"))
    why = (condition("Progressing", "False", "OOMKilled"),)

    metrics.moved(before, Status(launch=at("training", **counts), conditions=why))

    assert samples(metrics, "selfimprove_retries_total") == {(cause, "OOMKilled"): 1}
    assert samples(metrics, "selfimprove_stage_duration_seconds_sum") == {}


def test_other_changes_of_a_status_count_nothing() -> None:
    """Acceptance and progress are no ends and no retries."""
    metrics = Metrics(lambda: NOW)

    metrics.moved(Status(), Status(launch=at("check")))
    metrics.moved(Status(launch=at("check")), Status(launch=at("check"), progress="3/4"))

    assert samples(metrics, "selfimprove_stage_duration_seconds_sum") == {}
    assert samples(metrics, "selfimprove_retries_total") == {}


def test_the_rest_is_there_under_its_name() -> None:
    """Calls, looks, depth, healed differences and watch ages are read as they were told."""
    metrics = Metrics()
    depth = [3.0]
    metrics.called("create", "jobs", "201")
    metrics.reconciled(0.02, is_success=True)
    metrics.reconciled(0.02, is_success=False)
    metrics.watch_depth(lambda: depth[0])
    metrics.watch_age("Job", lambda: 12.0)
    metrics.healed("Pod", "missing")
    depth[0] = 7.0

    assert samples(metrics, "selfimprove_api_calls_total") == {("201", "jobs", "create"): 1}
    assert samples(metrics, "selfimprove_reconcile_duration_seconds_count") == {
        ("success",): 1,
        ("error",): 1,
    }
    assert samples(metrics, "selfimprove_queue_depth") == {(): 7}
    assert samples(metrics, "selfimprove_watch_age_seconds") == {("Job",): 12}
    assert samples(metrics, "selfimprove_healed_differences_total") == {("missing", "Pod"): 1}
    assert samples(metrics, "process_resident_memory_bytes")[()] > 0


def test_two_operators_in_one_process_count_for_themselves() -> None:
    """The registry is the object's own, not the library's."""
    one, other = Metrics(), Metrics()
    one.called("get", "jobs", "200")

    assert samples(other, "selfimprove_api_calls_total") == {}
