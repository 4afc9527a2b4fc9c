"""A run on a real cluster, in sentences: until it is at work, until it is done, what is left."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from selfimprove_operator.api.status import (
    KIND,
    LABEL_ITERATION,
    LABEL_LAUNCH,
    LABEL_RUN,
    LABEL_UNIT,
)
from support.kube import (
    JSON,
    Kube,
    eventually,
    is_finished,
    is_live,
    is_started,
    kubectl,
    name_of,
)

BRIEF: Final = ("check", "light", "pair", "score", "report", "delete")
"""Units that are done within seconds."""


def condition_of(status: JSON, kind: str) -> JSON:
    """Return a condition of a status, empty where it is not set."""
    conditions: list[JSON] = status.get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def outcome_of(status: JSON) -> str | None:
    """Return True or False where a status has the outcome, None before."""
    value = condition_of(status, "Succeeded").get("status")
    return value if value in ("True", "False") else None


@dataclass(frozen=True)
class LiveRun:
    """A run on the cluster."""

    kube: Kube
    namespace: str
    name: str

    @property
    def body(self) -> JSON:
        """The run as the API server has it."""
        found = self.kube.get(KIND, self.namespace, self.name)
        assert found is not None, f"expected the run {self.name}, found none"
        return found

    @property
    def status(self) -> JSON:
        """Its status, empty before the operator has seen it."""
        return dict(self.body.get("status") or {})

    @property
    def selector(self) -> str:
        """The label selector of what the operator made for it."""
        return f"{LABEL_RUN}={self.name}"

    @property
    def jobs(self) -> list[JSON]:
        """Its Jobs."""
        return self.kube.all("Job", self.namespace, self.selector)

    @property
    def pods(self) -> list[JSON]:
        """Its pods."""
        return self.kube.all("Pod", self.namespace, self.selector)

    @property
    def events(self) -> list[JSON]:
        """The Events about it, oldest first."""
        events = self.kube.all("Event", self.namespace)
        mine = [e for e in events if e["involvedObject"].get("name") == self.name]
        return sorted(mine, key=lambda event: event["metadata"]["creationTimestamp"])

    def condition(self, kind: str) -> JSON:
        """Return a condition as it is now, empty where it is not set."""
        return condition_of(self.status, kind)

    def patch(self, **spec: Any) -> None:
        """Change fields of the spec."""
        self.kube.patch(KIND, self.namespace, self.name, {"spec": spec})

    def delete(self) -> None:
        """Delete the run as `kubectl delete` does."""
        self.kube.delete(KIND, self.namespace, self.name)

    def until(self, is_so: Callable[[JSON], object], *, within: float, what: str) -> JSON:
        """Wait until something is so of the status, and return that same status.

        The predicate asks the status it is given: one that it read itself would be a later one.
        """

        def found() -> JSON | None:
            status = self.status
            return status if status and is_so(status) else None

        return eventually(found, within=within, what=f"{self.name}: {what}", otherwise=self.dump)

    def until_waiting(self, reason: str, *, within: float) -> str:
        """Wait until `Progressing` has a reason, and return its message."""
        status = self.until(
            lambda status: condition_of(status, "Progressing").get("reason") == reason,
            within=within,
            what=f"Progressing with the reason {reason}",
        )
        return str(condition_of(status, "Progressing")["message"])

    def until_at(self, unit: str, iteration: int, *, stage: str = "", within: float = 240) -> JSON:
        """Wait until a unit's pod works, at a stage if one is named, and return the pod.

        A pod that computes works once it has told of its progress: imports are over and there
        is something to lose.
        """
        sign = f'"stage": "{stage}"' if stage else '"progress"'

        def found() -> JSON | None:
            status = self.status
            launch = status.get("launch") or {}
            assert outcome_of(status) is None, f"{self.name} ended before {unit} {iteration}"
            if (launch.get("unit"), launch.get("iteration", 0)) != (unit, iteration):
                return None
            live = [p for p in self.pods_at(unit, iteration) if is_started(p) and is_live(p)]
            fresh = [p for p in live if "deletionTimestamp" not in p["metadata"]]
            return next((p for p in fresh if unit in BRIEF or sign in self.kube.log(p)), None)

        what = f"{self.name}: {stage or unit} of iteration {iteration} at work"
        return eventually(found, within=within, what=what, otherwise=self.dump)

    def pods_at(self, unit: str, iteration: int) -> list[JSON]:
        """Return the pods of a unit, the latest launch first."""
        labels = f"{LABEL_UNIT}={unit},{LABEL_ITERATION}={iteration}"
        pods = self.kube.all("Pod", self.namespace, f"{self.selector},{labels}")
        return sorted(pods, key=lambda p: -int(p["metadata"]["labels"][LABEL_LAUNCH]))

    @property
    def outcome(self) -> str | None:
        """True or False once it is decided, None before."""
        return outcome_of(self.status)

    def until_done(self, *, within: float, succeeded: bool = True) -> JSON:
        """Wait for the outcome, which must be the expected one, and return the status."""
        status = self.until(outcome_of, within=within, what="an outcome")
        assert (outcome_of(status) == "True") is succeeded, (
            f"{self.name} ended otherwise\n{self.dump()}"
        )
        return status

    def until_gone(self, *, within: float) -> None:
        """Wait until the run is deleted."""
        eventually(
            lambda: self.kube.get(KIND, self.namespace, self.name) is None,
            within=within,
            what=f"{self.name} to be gone",
            otherwise=self.dump,
        )

    @property
    def orphans(self) -> list[str]:
        """Names of Jobs and pods that live although the run has no launch with them."""
        launch = self.status.get("launch") or {}
        job = launch.get("jobName")
        jobs = [name_of(j) for j in self.jobs if not is_finished(j) and name_of(j) != job]
        owner = "batch.kubernetes.io/job-name"
        pods = [p for p in self.pods if is_live(p)]
        return jobs + [name_of(p) for p in pods if p["metadata"]["labels"].get(owner) != job]

    def dump(self) -> str:
        """Return what a person would look at first, for the message of a failed test."""
        shown = {k: v for k, v in self.status.items() if k not in ("numbers", "stages", "images")}
        parts = [
            json.dumps(shown, indent=1),
            kubectl("-n", self.namespace, "get", "jobs,pods", "-l", self.selector),
            kubectl("-n", self.namespace, "get", "events", "--sort-by=.lastTimestamp"),
        ]
        for pod in self.pods:
            lines = self.kube.log(pod).splitlines()[-8:]
            parts.append("\n".join([f"--- log of {name_of(pod)}", *lines]))
        return "\n".join(parts)
