"""Events about runs: told once, counted, limited, and never in the way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from selfimprove_operator.cluster.door import Manifest
from selfimprove_operator.cluster.errors import Missing, Refused, Unavailable
from selfimprove_operator.decisions.actions import RecordEvent
from selfimprove_operator.decisions.observed import Run
from selfimprove_operator.decisions.observed import run as view_of_run
from selfimprove_operator.process.reporter import Reporter
from support import fake_time
from support.memory_cluster import Call, Fault, MemoryCluster

EPOCH = 1_800_000_000.0
DOWN = Unavailable("down")
STARTED = RecordEvent("Normal", "Starting", "generate of iteration 0 started")


def run_of(name: str = "test", uid: str = "") -> Run:
    uid = uid or f"uid-{name}"
    metadata = {"namespace": "default", "name": name, "uid": uid, "resourceVersion": "1"}
    return view_of_run({"metadata": metadata, "spec": {}})


def wall_clock() -> float:
    return EPOCH + fake_time.now()


Steps = Callable[[Reporter], Awaitable[None]]


def play(steps: Steps, *, fault: Fault | None = None, cluster: Any = None) -> list[Manifest]:
    """Have a reporter record what the test says, wait, and return all Events."""
    used: MemoryCluster = cluster or MemoryCluster(wall_clock)
    if fault is not None:
        used.fault = fault

    async def main() -> None:
        used.clock = wall_clock
        reporter = Reporter(used, wall_clock)
        posting = asyncio.create_task(reporter.post())
        await steps(reporter)
        await asyncio.sleep(300)
        assert not posting.done()
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)

    fake_time.run(main())
    return used.all("Event")


def test_an_event_names_its_run_and_what_happened() -> None:
    """`kubectl describe` finds an Event by the run's uid and shows its reason and message."""

    async def steps(reporter: Reporter) -> None:
        reporter.record(run_of(), STARTED)

    (event,) = play(steps)

    assert event["involvedObject"] == {
        "apiVersion": "selfimprove.dev/v1alpha1",
        "kind": "SelfImproveRun",
        "namespace": "default",
        "name": "test",
        "uid": "uid-test",
    }
    assert (event["type"], event["reason"], event["message"]) == (
        "Normal",
        "Starting",
        "generate of iteration 0 started",
    )
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2027-01-15T08:00:00Z"


def test_the_same_thing_told_again_is_counted() -> None:
    """Three times within ten minutes are one Event with the count 3 and the latest time."""

    async def steps(reporter: Reporter) -> None:
        for _ in range(3):
            reporter.record(run_of(), STARTED)
            await asyncio.sleep(60)

    (event,) = play(steps)

    assert event["count"] == 3
    assert (event["firstTimestamp"], event["lastTimestamp"]) == (
        "2027-01-15T08:00:00Z",
        "2027-01-15T08:02:00Z",
    )


def test_after_ten_minutes_it_is_told_anew() -> None:
    """An Event that began long ago is left alone."""

    async def steps(reporter: Reporter) -> None:
        reporter.record(run_of(), STARTED)
        await asyncio.sleep(601)
        reporter.record(run_of(), STARTED)

    events = play(steps)

    assert [event["count"] for event in events] == [1, 1]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((run_of("other"), STARTED), id="of another run"),
        pytest.param((run_of(uid="2"), STARTED), id="of a run made anew under its name"),
        pytest.param(
            (run_of(), RecordEvent("Normal", "Starting", "another")), id="with another message"
        ),
        pytest.param(
            (run_of(), RecordEvent("Warning", "Starting", STARTED.message)), id="as a warning"
        ),
    ],
)
def test_different_things_are_different_events(other: tuple[Run, RecordEvent]) -> None:
    """Only what is equal in every respect is counted together."""

    async def steps(reporter: Reporter) -> None:
        reporter.record(run_of(), STARTED)
        reporter.record(*other)

    assert len(play(steps)) == 2


def test_a_restarted_operator_goes_on_counting() -> None:
    """The count is in the Event, not in the memory of the process."""
    cluster = MemoryCluster(lambda: EPOCH)

    async def steps(reporter: Reporter) -> None:
        reporter.record(run_of(), STARTED)

    play(steps, cluster=cluster)
    (event,) = play(steps, cluster=cluster)

    assert event["count"] == 2


def test_a_run_that_tells_too_much_is_cut_off_and_others_are_not() -> None:
    """25 Events at once, then one in five minutes; another run has an allowance of its own."""

    async def steps(reporter: Reporter) -> None:
        for number in range(40):
            reporter.record(run_of("loud"), RecordEvent("Warning", "Error", f"failure {number}"))
        reporter.record(run_of("quiet"), STARTED)
        await asyncio.sleep(300)
        for number in range(3):
            reporter.record(run_of("loud"), RecordEvent("Warning", "TryAgain", f"failure {number}"))

    events = play(steps)

    told = [(event["involvedObject"]["name"], event["reason"]) for event in events]
    assert told.count(("loud", "Error")) == 25
    assert told.count(("loud", "TryAgain")) == 1
    assert told.count(("quiet", "Starting")) == 1


def test_an_api_server_that_is_away_for_a_while_loses_nothing() -> None:
    """What is told while nothing can be posted is posted afterwards."""

    def down_at_first(*_: object) -> None:
        if fake_time.now() < 30:
            raise DOWN

    async def steps(reporter: Reporter) -> None:
        reporter.record(run_of(), STARTED)
        reporter.record(run_of(), RecordEvent("Warning", "Error", "later"))

    events = play(steps, fault=down_at_first)

    assert [event["reason"] for event in events] == ["Starting", "Error"]


def test_what_is_refused_is_dropped() -> None:
    """A namespace that ends, or a missing permission, stops no other Event."""
    fallen: list[Call] = []

    def refused_once(_: str, call: Call) -> None:
        if not fallen:
            fallen.append(call)
            raise Refused(403, "forbidden")

    async def steps(reporter: Reporter) -> None:
        reporter.record(run_of(), STARTED)
        reporter.record(run_of(), RecordEvent("Warning", "Error", "later"))

    events = play(steps, fault=refused_once)

    assert [event["reason"] for event in events] == ["Error"]


def test_an_event_that_expires_under_the_hand_is_no_failure() -> None:
    """Between reading an Event and counting it the API server may drop it."""

    def gone_when_counted(when: str, call: Call) -> None:
        if call.verb == "patch" and when == "before":
            raise Missing(404, "gone")

    async def steps(reporter: Reporter) -> None:
        reporter.record(run_of(), STARTED)
        reporter.record(run_of(), STARTED)
        reporter.record(run_of(), RecordEvent("Warning", "Error", "later"))

    events = play(steps, fault=gone_when_counted)

    assert [(event["reason"], event["count"]) for event in events] == [
        ("Starting", 1),
        ("Error", 1),
    ]


def test_telling_never_waits() -> None:
    """With an API server that never answers, 5,000 runs tell something and nothing blocks."""

    def down(*_: object) -> None:
        raise DOWN

    async def main() -> float:
        cluster = MemoryCluster(wall_clock)
        cluster.fault = down
        reporter = Reporter(cluster, wall_clock)
        posting = asyncio.create_task(reporter.post())
        for number in range(5000):
            reporter.record(run_of(f"run-{number}"), STARTED)
        told = fake_time.now()
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        return told

    assert fake_time.run(main()) == 0.0


def test_a_long_message_is_cut() -> None:
    """The API server refuses messages above 1,024 characters."""

    async def steps(reporter: Reporter) -> None:
        reporter.record(run_of(), RecordEvent("Warning", "Error", "x" * 5000))

    (event,) = play(steps)

    assert len(event["message"]) == 1024
