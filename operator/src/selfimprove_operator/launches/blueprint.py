"""Everything that the manifests of one launch depend on, and the names and labels of its objects.

`jobs` and `pods` build the manifests from it. A launch always gets the same names, so creating it
twice has the effect of creating it once.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from selfimprove_operator.api import status
from selfimprove_operator.launches.snapshot import Owner, Snapshot
from selfimprove_operator.launches.units import Unit
from selfimprove_pipeline.contract.recipe import Scheduling, Spec

LABEL_LIMIT: Final = 63
"""Longest DNS label: names of Jobs and Services and host names of pods are DNS labels."""
RANKS: Final = "ranks"
"""Name of the only Job in a JobSet."""
HASH_DIGITS: Final = 6


def launch_name(launch: status.Launch, owner: Owner, *, limit: int) -> str:
    """Return `<run>-<iteration>-<unit>-<number>`; a run name that is too long is cut and hashed."""
    suffix = f"-{launch.iteration}-{launch.unit}-{launch.number}"
    if len(owner.name) + len(suffix) <= limit:
        return owner.name + suffix
    digits = hashlib.sha256(owner.name.encode()).hexdigest()[:HASH_DIGITS]
    length = limit - len(suffix) - HASH_DIGITS - 1
    return f"{owner.name[:length]}-{digits}{suffix}"


@dataclass(frozen=True)
class Blueprint:
    """A launch, its unit, and the run that it belongs to."""

    launch: status.Launch
    unit: Unit
    owner: Owner
    snapshot: Snapshot
    spec: Spec
    """spec is the current one, for its mutable fields; the others come from the snapshot."""

    @cached_property
    def fixed(self) -> Spec:
        """The resolved spec as it was accepted."""
        return self.snapshot.spec

    @property
    def nodes(self) -> int:
        """Number of pods that train together, 1 for other units."""
        return self.fixed.training.nodes if self.unit.role == "training" else 1

    @property
    def shards(self) -> int:
        """Number of pods that split the prompts, 1 for other units."""
        return self.fixed.generation.shards if self.unit.role == "inference" else 1

    @property
    def size(self) -> int:
        """Number of pods of the launch."""
        return max(self.nodes, self.shards)

    @property
    def is_jobset(self) -> bool:
        """Whether the launch is a JobSet."""
        return self.nodes > 1 and self.snapshot.multi_node == "JobSet"

    @property
    def has_service(self) -> bool:
        """Whether the launch needs a headless Service; a JobSet creates its own."""
        return self.nodes > 1 and not self.is_jobset

    @property
    def name(self) -> str:
        """Name of the Job or JobSet, and of the Service."""
        # A pod's host name ends with its index, a JobSet pod's name also with Job and five letters.
        index = f"-{self.size - 1}" if self.size > 1 else ""
        appended = f"-{RANKS}-0{index}-abcde" if self.is_jobset else index
        return launch_name(self.launch, self.owner, limit=LABEL_LIMIT - len(appended))

    @property
    def rendezvous_host(self) -> str:
        """Host name of the first rank."""
        first = f"{self.name}-{RANKS}-0-0" if self.is_jobset else f"{self.name}-0"
        return f"{first}.{self.name}"

    @property
    def queue(self) -> Scheduling | None:
        """The queue that admits the launch, if any; `delete` needs no quota."""
        scheduling = self.fixed.scheduling
        return scheduling if scheduling.queue_name and self.unit.name != "delete" else None

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all objects of the launch."""
        return {
            **self.owner.labels,
            "app.kubernetes.io/component": self.unit.role,
            status.LABEL_UNIT: self.unit.name,
            status.LABEL_ITERATION: str(self.launch.iteration),
            status.LABEL_LAUNCH: str(self.launch.number),
        }

    @property
    def queue_labels(self) -> dict[str, str]:
        """The labels by which Kueue queues the launch until there is quota."""
        if self.queue is None:
            return {}
        labels = {
            "kueue.x-k8s.io/queue-name": self.queue.queue_name,
            "kueue.x-k8s.io/priority-class": self.queue.workload_priority_class_name,
        }
        return {name: value for name, value in labels.items() if value}

    def metadata(self, **labels: str) -> dict[str, Any]:
        """Return the metadata of an object of the launch, with the run as its controller owner."""
        return {
            "name": self.name,
            "namespace": self.owner.namespace,
            "labels": {**self.labels, **labels},
            "ownerReferences": [self.owner.reference],
        }
