"""The operator's loop over a cluster in memory, with everything around it played by the test.

Watch events arrive when the test says so: late, twice, or at one operator before the other. The
process can be ended between any two writes.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from selfimprove_operator.api.settings import Settings
from selfimprove_operator.api.status import KIND, LABEL_MANAGED_BY, Condition, Status
from selfimprove_operator.cluster.door import Kind, Manifest
from selfimprove_operator.cluster.errors import Unavailable
from selfimprove_operator.decisions.actions import Facts, RecordEvent
from selfimprove_operator.decisions.drive import Observed
from selfimprove_operator.decisions.observed import Run
from selfimprove_operator.launches.snapshot import MultiNode
from selfimprove_operator.process.loop import Loop
from selfimprove_operator.watching.index import Index, Key
from support.job_controller import JobController
from support.memory_cluster import Call, MemoryCluster, no_fault

NAMESPACE = "team"
Take = Callable[[Index, Manifest], Key | None]
DIGEST = "d" * 64
IMAGES = {"image": "localhost/selfimprove-cpu:dev"}
SETTINGS = Settings.model_validate_json(
    json.dumps({"pods": {"inference": IMAGES, "training": IMAGES, "light": IMAGES}})
)
KINDS: dict[str, tuple[Take, Take]] = {
    KIND: (Index.put_run, Index.drop_run),
    "Job": (Index.put_job, Index.drop_job),
    "Pod": (Index.put_pod, Index.drop_pod),
}


NOTHING = Observed(None, (), (), Facts())  # type: ignore[arg-type]  # an empty view


class CrashError(Exception):
    """The operator's process ended here."""


class Told:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[RecordEvent] = []

    def record(self, run: Run, event: RecordEvent) -> None:
        self.events.append(event)

    def moved(self, before: Status, after: Status) -> None:
        return


class Operator:
    """One process of the operator: what it has been told, and its loop."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.index = Index()
        self.dirty: set[Key] = set()
        self.loop = Loop(
            cluster=machine.cluster,
            settings=machine.settings,
            index=self.index,
            listener=machine.told,
            multi_node=machine.multi_node,
            again=self.dirty.add,
            clock=lambda: machine.now,
        )
        for kind in KINDS:
            for found in machine.cluster.all(cast("Kind", kind)):
                self._take("ADDED", found)
        self.seen = len(machine.cluster.watched)

    def deliver(self, count: int | None = None) -> None:
        """Deliver the next watch events, all of them by default."""
        watched = self.machine.cluster.watched
        until = len(watched) if count is None else min(self.seen + count, len(watched))
        for event in watched[self.seen : until]:
            if event.object["kind"] in KINDS:
                self._take(event.type, event.object)
        self.seen = until

    def deliver_ahead(self, kind: Kind) -> None:
        """Deliver the next watch events of one kind before those of the others."""
        for event in self.machine.cluster.watched[self.seen :]:
            if event.object["kind"] == kind:
                self._take(event.type, event.object)

    def deliver_again(self, back: int) -> None:
        """Deliver some of the last events a second time, as a new watch does.

        It lists first, so that nothing comes back whose end this process has been told.
        """
        told = self.machine.cluster.watched[: self.seen]
        ended = {e.object["metadata"]["uid"] for e in told if e.type == "DELETED"}
        for event in told[max(0, self.seen - back) :]:
            if event.object["kind"] in KINDS and event.object["metadata"]["uid"] not in ended:
                self._take(event.type, event.object)

    def reconcile(self, key: Key) -> bool:
        """Take one run one step further; return False if the process ended on the way."""
        self.dirty.discard(key)
        try:
            asyncio.run(self.loop.reconcile(key))
        except CrashError:
            return False
        except Unavailable:
            self.dirty.add(key)
        return True

    def _take(self, change: str, body: Manifest) -> None:
        if body["kind"] != KIND and LABEL_MANAGED_BY not in body["metadata"]["labels"]:
            change = "DELETED"  # so the server tells it to a watch by label
        put, drop = KINDS[body["kind"]]
        key = (drop if change == "DELETED" else put)(self.index, body)
        if key is not None:
            self.dirty.add(key)


class Machine:
    """A cluster in memory with one or more operators on it."""

    def __init__(
        self, settings: Settings = SETTINGS, *, multi_node: MultiNode = "IndexedJob", count: int = 1
    ) -> None:
        self.now = 1_800_000_000.0
        self.cluster = MemoryCluster(clock=lambda: self.now)
        self.controller = JobController(self.cluster)
        self.settings = settings
        self.multi_node = multi_node
        self.told = Told()
        self.operators = [Operator(self) for _ in range(count)]

    def restart(self, number: int = 0) -> None:
        """Start an operator anew: it knows nothing but what it lists."""
        self.operators[number] = Operator(self)

    def apply(self, name: str, spec: dict[str, Any]) -> Key:
        """Create a run."""
        body = {
            "apiVersion": "selfimprove.dev/v1alpha1",
            "kind": KIND,
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }
        self.cluster.add(body)
        return NAMESPACE, name

    def change(self, key: Key, **spec: Any) -> None:
        """Change fields of a run's spec."""
        body = self.cluster.get("SelfImproveRun", *key)
        assert body is not None
        self.cluster.put({**body, "spec": {**body["spec"], **spec}})

    def step(self, key: Key, number: int = 0) -> None:
        """Have one operator reconcile a run; if that ends its process, another one starts."""
        if not self.operators[number].reconcile(key):
            self.restart(number)

    def settle(self, rounds: int = 60) -> None:
        """Deliver and reconcile until nothing moves any more without the clock or the world."""
        for _ in range(rounds):
            while self.controller.collect():
                pass
            for number, operator in enumerate(self.operators):
                operator.deliver()
                for key in sorted(operator.dirty):
                    self.step(key, number)
            told = len(self.cluster.watched)
            if not any(operator.dirty or operator.seen < told for operator in self.operators):
                return
        message = f"the operator does not come to rest: {self.cluster.calls[-12:]}"
        raise AssertionError(message)

    def tick(self, seconds: float) -> None:
        """Let time pass; every run is looked at again."""
        self.now += seconds
        for operator in self.operators:
            operator.dirty.update(operator.index.keys())

    def crash_at(self, number: int) -> None:
        """End the process at the n-th write from now, before or after its effect."""
        left = number

        def fault(when: str, call: Call) -> None:
            nonlocal left
            if call.verb in ("get", "list", "log"):
                return
            left -= 1
            if left < 0:
                self.cluster.fault = no_fault
                message = f"{when} {call}"
                raise CrashError(message)

        self.cluster.fault = fault

    def status(self, key: Key) -> Status:
        """Return the status as the API server has it."""
        body = self.cluster.get("SelfImproveRun", *key)
        assert body is not None
        return Status.model_validate_json(json.dumps(body.get("status") or {}))

    def condition(self, key: Key, kind: str) -> Condition:
        """Return a condition of a run."""
        return next(c for c in self.status(key).conditions if c.type == kind)

    def jobs(self, *, live: bool = True) -> list[Manifest]:
        """Return the Jobs, the live ones alone by default."""
        return [job for job in self.cluster.all("Job") if not live or not is_finished(job)]

    def job(self) -> str:
        """Return the name of the only live Job."""
        (job,) = self.jobs()
        return str(job["metadata"]["name"])

    def succeed(self, job: str, **totals: Any) -> None:
        """Have a Job's pods run and end with a result."""
        said = json.dumps({"contract": "1", "digest": DIGEST, "totals": totals})
        self.end(job, 0, said)

    def end(self, job: str, exit_code: int, message: str = "") -> None:
        """Have a Job's first pod run and end, and the others with it."""
        found = self.cluster.get("Job", NAMESPACE, job)
        assert found is not None
        for index in range(found["spec"]["completions"]):
            self.controller.start_pod(NAMESPACE, job, index)
            self.controller.finish(NAMESPACE, job, exit_code, message, index)

    def run_to_end(
        self, key: Key, limit: int = 80, on_job: Callable[[str], None] | None = None
    ) -> None:
        """Let everything succeed, and pods that are deleted end, until the outcome is decided."""
        for _ in range(limit):
            self.settle()
            for pod in self.cluster.all("Pod"):
                if "deletionTimestamp" in pod["metadata"]:
                    self.cluster.vanish("Pod", NAMESPACE, pod["metadata"]["name"])
            if self.status(key).completion_time:
                return
            for job in self.jobs():
                (on_job or self.succeed)(job["metadata"]["name"])
            self.tick(11)
        children = [
            (child.name, child.is_complete, child.is_failed, child.resource_version, child.pods)
            for operator in self.operators
            for child in (operator.index.observed(key, {}) or NOTHING).children
        ]
        message = f"no outcome: {self.status(key)} {children} {self.cluster.all('Job')}"
        raise AssertionError(message)


def is_finished(job: Manifest) -> bool:
    """Return whether a Job is Complete or Failed."""
    kinds = {
        c["type"] for c in job.get("status", {}).get("conditions", ()) if c["status"] == "True"
    }
    return bool(kinds & {"Complete", "Failed"})
