"""One launch with everything that its manifests are drawn from, and what its objects are called.

`jobs` and `pods` draw from it. Names and labels are made here alone, so that doing a launch
twice is doing it once, and every object is found by its labels.
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
"""Length of a DNS label, which the names of Jobs, Services and host names are."""
RANKS: Final = "ranks"
"""Name of the one Job in a JobSet."""
HASH_DIGITS: Final = 6


def launch_name(launch: status.Launch, owner: Owner, *, limit: int) -> str:
    """Return `<run>-<iteration>-<unit>-<number>`, the run cut and hashed beyond the limit."""
    rest = f"-{launch.iteration}-{launch.unit}-{launch.number}"
    if len(owner.name) + len(rest) <= limit:
        return owner.name + rest
    digits = hashlib.sha256(owner.name.encode()).hexdigest()[:HASH_DIGITS]
    kept = limit - len(rest) - HASH_DIGITS - 1
    return f"{owner.name[:kept]}-{digits}{rest}"


@dataclass(frozen=True)
class Blueprint:
    """A launch of a unit, whose run it is, and what the run is made of."""

    launch: status.Launch
    unit: Unit
    owner: Owner
    snapshot: Snapshot
    spec: Spec
    """spec as it stands now; everything but its mutable fields comes from the snapshot."""

    @cached_property
    def fixed(self) -> Spec:
        """The resolved spec as it was accepted."""
        return self.snapshot.spec

    @property
    def nodes(self) -> int:
        """Pods that train together, 1 where the unit trains nothing."""
        return self.fixed.training.nodes if self.unit.role == "training" else 1

    @property
    def shards(self) -> int:
        """Pods that share the prompts, 1 where the unit infers nothing."""
        return self.fixed.generation.shards if self.unit.role == "inference" else 1

    @property
    def size(self) -> int:
        """Pods of the launch."""
        return max(self.nodes, self.shards)

    @property
    def is_jobset(self) -> bool:
        """Whether the launch is a JobSet."""
        return self.nodes > 1 and self.snapshot.multi_node == "JobSet"

    @property
    def has_service(self) -> bool:
        """Whether the launch has a headless Service of ours; a JobSet makes its own."""
        return self.nodes > 1 and not self.is_jobset

    @property
    def name(self) -> str:
        """Name of the Job or JobSet, and of the Service."""
        # What is added to the name must fit too: a pod's host name, and in a JobSet its name.
        index = f"-{self.size - 1}" if self.size > 1 else ""
        added = f"-{RANKS}-0{index}-abcde" if self.is_jobset else index
        return launch_name(self.launch, self.owner, limit=LABEL_LIMIT - len(added))

    @property
    def rendezvous_host(self) -> str:
        """Host name of the first rank."""
        first = f"{self.name}-{RANKS}-0-0" if self.is_jobset else f"{self.name}-0"
        return f"{first}.{self.name}"

    @property
    def queue(self) -> Scheduling | None:
        """The queue that admits the launch; clearing up waits for no quota."""
        scheduling = self.fixed.scheduling
        return scheduling if scheduling.queue_name and self.unit.name != "delete" else None

    @property
    def labels(self) -> dict[str, str]:
        """The labels of every object of the launch."""
        return {
            **self.owner.labels,
            "app.kubernetes.io/component": self.unit.role,
            status.LABEL_UNIT: self.unit.name,
            status.LABEL_ITERATION: str(self.launch.iteration),
            status.LABEL_LAUNCH: str(self.launch.number),
        }

    @property
    def queue_labels(self) -> dict[str, str]:
        """The labels by which Kueue holds the launch until there is quota."""
        if self.queue is None:
            return {}
        labels = {
            "kueue.x-k8s.io/queue-name": self.queue.queue_name,
            "kueue.x-k8s.io/priority-class": self.queue.workload_priority_class_name,
        }
        return {name: value for name, value in labels.items() if value}

    def metadata(self, **labels: str) -> dict[str, Any]:
        """Return the metadata of an object of the launch that the run owns."""
        return {
            "name": self.name,
            "namespace": self.owner.namespace,
            "labels": {**self.labels, **labels},
            "ownerReferences": [self.owner.reference],
        }
