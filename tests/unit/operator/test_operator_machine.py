"""The operator under any order of events: stale, doubled, crashed, two at once.

Three things hold whatever happens: no two launches of a run work at the same time, a unit whose
outcome is in the status is never launched again, and a healthy world always leads to an end.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from selfimprove_operator.api.status import LABEL_ITERATION, LABEL_UNIT
from selfimprove_operator.cluster.door import Manifest
from support import runs
from support.machine import NAMESPACE, Machine, is_finished

ORDER = ("check", "inference", "light", "training", "evaluate", "report")


def spec(**values: Any) -> dict[str, Any]:
    made: dict[str, Any] = runs.file(**values)["spec"]
    return {**made, "storage": {"bucket": "runs", "endpoint": "http://store:9000"}}


class Clusters(RuleBasedStateMachine):
    """One run, two operators, and a world without pity."""

    @initialize()
    def begin(self) -> None:
        self.machine = Machine(count=2)
        self.key = self.machine.apply("run", spec(retries={"limit": 90, "disruptionLimit": 900}))
        self.reached = (0, 0)
        self.launched: set[str] = set()
        self.is_wrong = False

    @rule(number=st.integers(0, 1), count=st.integers(1, 4))
    def deliver_some(self, number: int, count: int) -> None:
        self.machine.operators[number].deliver(count)

    @rule(number=st.integers(0, 1))
    def deliver_all(self, number: int) -> None:
        self.machine.operators[number].deliver()

    @rule(number=st.integers(0, 1), back=st.integers(1, 12))
    def deliver_twice(self, number: int, back: int) -> None:
        self.machine.operators[number].deliver_again(back)

    @rule(number=st.integers(0, 1))
    def reconcile(self, number: int) -> None:
        self.machine.step(self.key, number)

    @rule(number=st.integers(0, 1))
    def deliver_and_reconcile(self, number: int) -> None:
        self.machine.operators[number].deliver()
        self.machine.step(self.key, number)

    @rule(number=st.integers(0, 1), write=st.integers(0, 5))
    def crash(self, number: int, write: int) -> None:
        self.machine.crash_at(write)
        self.machine.operators[number].deliver()
        self.machine.step(self.key, number)

    @rule(number=st.integers(0, 1))
    def restart(self, number: int) -> None:
        self.machine.restart(number)

    @rule(seconds=st.sampled_from([1, 4, 11, 60, 601]))
    def wait(self, seconds: int) -> None:
        self.machine.tick(seconds)

    @rule()
    def collect(self) -> None:
        self.machine.controller.collect()

    @precondition(lambda self: self.machine.jobs())
    @rule(data=st.data(), is_stopped=st.sampled_from([False, False, False, True]))
    def succeed(self, data: st.DataObject, is_stopped: bool) -> None:
        job = data.draw(st.sampled_from(self.machine.jobs()))
        if not job["spec"]["suspend"] and job["spec"]["parallelism"]:
            tells = "inference" in job["metadata"]["name"] or "light" in job["metadata"]["name"]
            totals = {"stopped": "StoppedByGate"} if is_stopped and tells else {}
            self.machine.succeed(job["metadata"]["name"], pairs=3, **totals)

    @precondition(lambda self: self.machine.jobs())
    @rule(data=st.data(), code=st.sampled_from([1, 75, 137, 143, 128, 0]))
    def end_badly(self, data: st.DataObject, code: int) -> None:
        job = data.draw(st.sampled_from(self.machine.jobs()))
        if not job["spec"]["suspend"] and job["spec"]["parallelism"]:
            self.machine.end(job["metadata"]["name"], code)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), is_eviction=st.booleans())
    def take_a_pod(self, data: st.DataObject, is_eviction: bool) -> None:
        pod = data.draw(st.sampled_from(self.running()))["metadata"]["name"]
        take = self.machine.controller.evict if is_eviction else self.machine.controller.delete_pod
        take(NAMESPACE, pod)

    @precondition(lambda self: self.ending())
    @rule(data=st.data())
    def end_a_pod(self, data: st.DataObject) -> None:
        pod = data.draw(st.sampled_from(self.ending()))
        self.machine.controller.end_pod(NAMESPACE, pod["metadata"]["name"], 143)
        owner = pod["metadata"]["ownerReferences"][0]["name"]
        if self.machine.cluster.get("Job", NAMESPACE, owner) is not None:
            while self.machine.controller.sync(NAMESPACE, owner):
                pass
        left = self.machine.cluster.get("Pod", NAMESPACE, pod["metadata"]["name"])
        if left is not None:
            left["metadata"]["finalizers"] = []
            self.machine.cluster.put(left)

    @precondition(lambda self: self.machine.jobs())
    @rule(data=st.data())
    def start_pods(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.machine.jobs()))
        if not job["spec"]["suspend"] and job["spec"]["parallelism"]:
            self.machine.controller.start_pod(NAMESPACE, job["metadata"]["name"])

    @precondition(lambda self: self.machine.jobs(live=False))
    @rule(data=st.data())
    def delete_a_job(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.machine.jobs(live=False)))
        self.machine.cluster.remove("Job", NAMESPACE, job["metadata"]["name"])

    @precondition(lambda self: self.machine.jobs())
    @rule(data=st.data(), what=st.sampled_from(["parallelism", "suspend", "label", "deadline"]))
    def edit_a_job(self, data: st.DataObject, what: str) -> None:
        job = data.draw(st.sampled_from(self.machine.jobs()))
        if what == "label":
            del job["metadata"]["labels"]
            job["metadata"]["labels"] = {}
        else:
            values = {"parallelism": 0, "suspend": True, "deadline": 5}
            job["spec"]["activeDeadlineSeconds" if what == "deadline" else what] = values[what]
        self.machine.cluster.put(job)

    @rule(is_held=st.booleans())
    def suspend(self, is_held: bool) -> None:
        self.machine.change(self.key, suspend=is_held)

    def running(self) -> list[Manifest]:
        return [p for p in self.machine.cluster.all("Pod") if p["status"]["phase"] == "Running"]

    def ending(self) -> list[Manifest]:
        return [p for p in self.running() if "deletionTimestamp" in p["metadata"]]

    @invariant()
    def one_launch_works_at_a_time(self) -> None:
        working = {p["metadata"]["ownerReferences"][0]["name"] for p in self.running()}
        assert len(working) <= 1, working

    @invariant()
    def what_is_done_is_not_launched_again(self) -> None:
        status = self.machine.status(self.key)
        for job in self.machine.jobs(live=False):
            labels = job["metadata"]["labels"]
            name = job["metadata"]["name"]
            if name in self.launched or not labels:
                continue
            self.launched.add(name)
            place = int(labels[LABEL_ITERATION]), ORDER.index(labels[LABEL_UNIT])
            assert place >= self.reached, (name, self.reached)
        if status.launch is not None:
            place = status.launch.iteration, ORDER.index(status.launch.unit)
            assert place >= self.reached, (status.launch, self.reached)
            self.reached = place

    @override
    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        self.machine.change(self.key, suspend=False)
        self.machine.run_to_end(self.key)
        self.machine.tick(60)
        self.machine.settle()
        assert not [job for job in self.machine.jobs() if not is_finished(job)]


TestClusters = pytest.mark.timeout(3600)(Clusters.TestCase)
TestClusters.settings = settings(
    max_examples=100,
    stateful_step_count=60,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes many minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
