"""What clusters do to those who run on them, and a witness of what must not come of it.

Faults come through the API server where it has a door for them. The others need the machine
that `../shared/cluster` makes a cluster of: its components have files with their process ids
beside KUBECONFIG, and the command `cluster` starts what is missing.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Final, Self

import urllib3

from selfimprove_operator.api import status
from support.cli import REPOSITORY
from support.kube import JSON, Kube, Refusal, is_finished, is_live, kubectl, name_of, path_of

JOB: Final = "batch.kubernetes.io/job-name"
INDEX: Final = "batch.kubernetes.io/job-completion-index"
CLUSTER: Final = REPOSITORY.parent / "shared" / "cluster" / "cluster"


def delete_pod(kube: Kube, pod: JSON) -> None:
    """Delete a pod, which has its grace period to end."""
    kube.delete("Pod", pod["metadata"]["namespace"], name_of(pod))


def force_away(kube: Kube, pod: JSON) -> None:
    """Delete a pod from the API server without waiting for its node."""
    kube.delete("Pod", pod["metadata"]["namespace"], name_of(pod), gracePeriodSeconds=0)


def evict(kube: Kube, pod: JSON) -> None:
    """Evict a pod as a drain does."""
    namespace, name = pod["metadata"]["namespace"], name_of(pod)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    kube.ask("POST", f"{path_of('Pod', namespace, name)}/eviction", body)


@contextlib.contextmanager
def drained(pod: JSON) -> Iterator[None]:
    """Drain the node of a pod of the pods of its run, and let it be used again at the end."""
    node, labels = pod["spec"]["nodeName"], pod["metadata"]["labels"]
    mine = f"--pod-selector={status.LABEL_RUN_UID}={labels[status.LABEL_RUN_UID]}"
    try:
        kubectl("drain", node, mine, "--delete-emptydir-data", "--timeout=120s")
        yield
    finally:
        kubectl("uncordon", node)


def component(name: str) -> Path:
    """Return the file with the process id of a component of the cluster."""
    return Path(os.environ["KUBECONFIG"]).parent / "pids" / name


def is_machine() -> bool:
    """Return whether the cluster's components can be killed from here."""
    return CLUSTER.exists() and component("kube-apiserver").exists()


@contextlib.contextmanager
def down(name: str, *start: str) -> Iterator[None]:
    """Kill a component as the kernel would, and start it again at the end."""
    os.kill(int(component(name).read_text()), signal.SIGKILL)
    try:
        yield
    finally:
        subprocess.run([CLUSTER, *start], check=True, capture_output=True, timeout=120)


@contextlib.contextmanager
def api_server_down() -> Iterator[None]:
    """Take the API server away."""
    with down("kube-apiserver", "up"):
        yield


@contextlib.contextmanager
def store_down() -> Iterator[None]:
    """Take MinIO away."""
    with down("minio", "s3"):
        yield


@dataclass
class Witness:
    """A thread that sees every change of Jobs and pods in a namespace, and notes what is wrong.

    Pods of two launches of a run, two unfinished Jobs of a run, or two pods with one index of
    a Job are each a second live child. What is force-deleted counts as gone, as it does for
    the API server.
    """

    kube: Kube
    namespace: str
    wrong: list[str] = field(default_factory=list)
    launches: set[str] = field(default_factory=set)
    """launches are the names of all Jobs that were seen."""
    _objects: dict[str, dict[str, JSON]] = field(default_factory=lambda: defaultdict(dict))
    _stopped: Event = field(default_factory=Event)
    _threads: list[Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._threads = [
            Thread(target=self._follow, args=(k,), daemon=True) for k in ("Job", "Pod")
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; a watch that is open ends with the process."""
        self._stopped.set()

    def _follow(self, kind: str) -> None:
        """List and watch a kind, anew whenever the API server ends a watch."""
        kube = Kube()
        while not self._stopped.is_set():
            try:
                listing = kube.ask(
                    "GET", path_of(kind, self.namespace), labelSelector=status.SELECTOR
                )
                self._objects[kind] = {item["metadata"]["uid"]: item for item in listing["items"]}
                self._judge(kind)
                for event in kube.watch(
                    kind, self.namespace, listing["metadata"]["resourceVersion"]
                ):
                    if self._stopped.is_set() or event["type"] == "ERROR":
                        break
                    self._take(kind, event)
            except (urllib3.exceptions.HTTPError, Refusal):
                time.sleep(0.2)

    def _take(self, kind: str, event: JSON) -> None:
        found = event["object"]
        if event["type"] == "DELETED":
            self._objects[kind].pop(found["metadata"]["uid"], None)
        else:
            self._objects[kind][found["metadata"]["uid"]] = found
        self._judge(kind)

    def _judge(self, kind: str) -> None:
        found = list(self._objects[kind].values())
        if kind == "Job":
            self.launches |= {name_of(job) for job in found}
            live = [j for j in found if not is_finished(j)]
            self._note(
                kind,
                [(j["metadata"]["labels"].get(status.LABEL_RUN, ""), name_of(j)) for j in live],
            )
            return
        live = [pod for pod in found if is_live(pod)]
        labels = [pod["metadata"]["labels"] for pod in live]
        self._note("launch with pods", {(at[status.LABEL_RUN], at[JOB]) for at in labels})
        self._note(
            "pod",
            [
                (f"{at[JOB]}/{at.get(INDEX, 0)}", name_of(p))
                for p, at in zip(live, labels, strict=True)
            ],
        )

    def _note(self, what: str, owned: "list[tuple[str, str]] | set[tuple[str, str]]") -> None:
        """Note where one owner has two."""
        found: dict[str, list[str]] = defaultdict(list)
        for owner, name in owned:
            found[owner].append(name)
        for owner, names in found.items():
            line = f"{owner} has more than one live {what}: {', '.join(sorted(names))}"
            if len(names) > 1 and line not in self.wrong:
                self.wrong.append(line)
