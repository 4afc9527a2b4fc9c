"""The Job controller, the nodes and the garbage collector of a `MemoryCluster`.

They act when a test says so, one step at a time. Conditions, reasons and messages are those
that Kubernetes 1.36 writes for exit codes, evictions and deletions.
"""

from typing import Any

from selfimprove_operator.api import times
from selfimprove_operator.cluster.door import Manifest
from support.memory_cluster import MemoryCluster

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")


class JobController:
    def __init__(self, cluster: MemoryCluster) -> None:
        self.cluster = cluster
        self._made = 0

    @property
    def now(self) -> str:
        return times.stamp(self.cluster.clock())

    # Pods.

    def add_pod(self, namespace: str, job: str, index: int = 0) -> str:
        """Create the pod of an index, Pending; return its name."""
        found = self._job(namespace, job)
        spec, self._made = found["spec"], self._made + 1
        is_indexed = spec.get("completionMode") == "Indexed"
        stem = f"{job}-{index}" if is_indexed else job
        template = spec["template"]
        labels = template["metadata"]["labels"] | ({INDEX: str(index)} if is_indexed else {})
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{stem}-{self._made:05d}",
                "namespace": namespace,
                "labels": labels,
                "annotations": template["metadata"].get("annotations", {}),
                "finalizers": [TRACKING],
                "ownerReferences": [_owner(found)],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        name: str = self.cluster.add(pod)["metadata"]["name"]
        self._count(found)
        return name

    def start_pod(self, namespace: str, job: str, index: int = 0) -> str:
        """Make the pod of an index run, creating it where it is not there; return its name."""
        waiting = [p for p in self.pods(namespace, job) if _index(p) == index and not _ended(p)]
        name: str = (
            waiting[0]["metadata"]["name"] if waiting else self.add_pod(namespace, job, index)
        )
        pod = self._pod(namespace, name)
        pod["spec"]["nodeName"] = "node0"
        self._set(pod, "Running", {"running": {"startedAt": self.now}})
        self._condition(pod, "PodScheduled", "True")
        self.cluster.put(pod)
        return name

    def hold_pod(self, namespace: str, pod: str, reason: str, message: str) -> None:
        """Keep a pod from running: `Unschedulable`, or what a container waits for."""
        held = self._pod(namespace, pod)
        if reason == "Unschedulable":
            self._condition(held, "PodScheduled", "False", reason, message)
        else:
            self._condition(held, "PodScheduled", "True")
            self._set(held, "Pending", {"waiting": {"reason": reason, "message": message}})
        self.cluster.put(held)

    def evict(
        self,
        namespace: str,
        pod: str,
        reason: str = "EvictionByEvictionAPI",
        message: str = "Eviction API: evicting",
    ) -> None:
        """Begin to take a pod away by a disruption that Kubernetes calls one."""
        evicted = self._pod(namespace, pod)
        self._condition(evicted, "DisruptionTarget", "True", reason, message)
        self.cluster.put(evicted)
        self.delete_pod(namespace, pod)

    def delete_pod(self, namespace: str, pod: str) -> None:
        """Begin to delete a pod: it runs on until its container ends."""
        self.cluster.remove("Pod", namespace, pod)

    def end_pod(self, namespace: str, pod: str, exit_code: int, message: str = "") -> None:
        """End a pod's container; one that never ran ends as Kubernetes makes it end."""
        ended = self._pod(namespace, pod)
        if ended["status"]["phase"] == "Pending":
            exit_code, state = 137, {"reason": "ContainerStatusUnknown", "finishedAt": None}
            message = "The container could not be located when the pod was terminated"
        else:
            state = {"reason": "Error" if exit_code else "Completed", "finishedAt": self.now}
        if message:
            state["message"] = message
        terminated = {"terminated": {"exitCode": exit_code, **state}}
        self._set(ended, "Failed" if exit_code else "Succeeded", terminated)
        self.cluster.put(ended)

    # Jobs.

    def finish(
        self, namespace: str, job: str, exit_code: int, message: str = "", index: int = 0
    ) -> None:
        """End a Job's pod of an index, and let the controllers come to rest."""
        live = [p for p in self.pods(namespace, job) if _index(p) == index and not _ended(p)]
        self.end_pod(namespace, live[0]["metadata"]["name"], exit_code, message)
        while self.sync(namespace, job):
            pass

    def sync(self, namespace: str, job: str) -> bool:
        """Make one step of the Job controller; return whether there was one to make."""
        found, pods = self._job(namespace, job), self.pods(namespace, job)
        have = {condition["type"] for condition in found["status"].get("conditions", ())}
        live = [pod for pod in pods if not _ended(pod)]
        if have & {"Complete", "Failed"} or found["spec"]["suspend"]:
            return self._release(found, live if found["spec"]["suspend"] else [])
        if "FailureTarget" in have and not live:
            target = found["status"]["conditions"][-1]
            self._conclude(found, "Failed", target["reason"], target["message"])
        elif "SuccessCriteriaMet" in have:
            self._conclude(found, "Complete", *REACHED)
        elif "FailureTarget" in have:
            return self._release(found, live)
        elif failed := [pod for pod in pods if pod["status"]["phase"] == "Failed"]:
            self._conclude(found, "FailureTarget", *_verdict(found, failed))
        elif len(pods) - len(live) >= found["spec"]["completions"]:
            self._conclude(found, "SuccessCriteriaMet", *REACHED)
        else:
            return False
        return True

    def start_jobset(self, namespace: str, jobset: str) -> str:
        """Create the Job of a JobSet's only group; return its name."""
        found = self.cluster.get("JobSet", namespace, jobset)
        assert found is not None
        group = found["spec"]["replicatedJobs"][0]
        template = group["template"]
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                **template.get("metadata", {}),
                "name": f"{jobset}-{group['name']}-0",
                "namespace": namespace,
                "ownerReferences": [_owner(found)],
            },
            "spec": template["spec"],
        }
        name: str = self.cluster.add(job)["metadata"]["name"]
        return name

    # The garbage collector.

    def collect(self) -> bool:
        """Make one round over what has lost its owner; return whether anything changed."""
        before = len(self.cluster.watched)
        alive = {found["metadata"]["uid"] for found in self.cluster.objects.values()}
        for kind, namespace, name in list(self.cluster.objects):
            found = self.cluster.get(kind, namespace, name)
            assert found is not None
            owners = found["metadata"].get("ownerReferences", ())
            if not owners or any(owner["uid"] in alive for owner in owners):
                continue
            if kind == "Pod" and not _ended(found) and found["status"]["phase"] == "Running":
                self.cluster.remove(kind, namespace, name)
            else:
                self.cluster.vanish(kind, namespace, name)
        return len(self.cluster.watched) > before

    def pods(self, namespace: str, job: str) -> list[Manifest]:
        """Return the pods that a Job owns."""
        uid = self._job(namespace, job)["metadata"]["uid"]
        return [
            pod
            for pod in self.cluster.all("Pod")
            if any(owner["uid"] == uid for owner in pod["metadata"]["ownerReferences"])
        ]

    def _job(self, namespace: str, name: str) -> Manifest:
        found = self.cluster.get("Job", namespace, name)
        assert found is not None, f"no Job {name}"
        return found

    def _pod(self, namespace: str, name: str) -> Manifest:
        found = self.cluster.get("Pod", namespace, name)
        assert found is not None, f"no Pod {name}"
        return found

    def _conclude(self, job: Manifest, condition: str, reason: str, message: str) -> None:
        self._condition(job, condition, "True", reason, message)
        if condition == "Complete":
            job["status"]["completionTime"] = self.now
        self._count(job)

    def _release(self, job: Manifest, unwanted: list[Manifest]) -> bool:
        """Delete unwanted pods, and let pods go that have ended and are deleted."""
        before = len(self.cluster.watched)
        namespace = job["metadata"]["namespace"]
        for pod in unwanted:
            self.cluster.remove("Pod", namespace, pod["metadata"]["name"])
        for pod in self.pods(namespace, job["metadata"]["name"]):
            is_over = _ended(pod) or pod["status"]["phase"] == "Pending"
            if "deletionTimestamp" in pod["metadata"] and is_over:
                self.cluster.vanish("Pod", namespace, pod["metadata"]["name"])
        return len(self.cluster.watched) > before

    def _count(self, job: Manifest) -> None:
        pods = self.pods(job["metadata"]["namespace"], job["metadata"]["name"])
        phases = [pod["status"]["phase"] for pod in pods]
        job["status"]["active"] = sum(not _ended(pod) for pod in pods)
        job["status"]["succeeded"] = phases.count("Succeeded")
        job["status"]["failed"] = phases.count("Failed")
        self.cluster.put(job)

    def _condition(
        self, found: Manifest, name: str, status: str, reason: str = "", message: str = ""
    ) -> None:
        condition = {"type": name, "status": status, "lastTransitionTime": self.now}
        condition |= {k: v for k, v in (("reason", reason), ("message", message)) if v}
        others = [c for c in found["status"].get("conditions", ()) if c["type"] != name]
        found["status"]["conditions"] = [*others, condition]

    def _set(self, pod: Manifest, phase: str, state: dict[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        pod["status"]["phase"] = phase
        pod["status"]["containerStatuses"] = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "sha256:" + "0" * 64,
                "restartCount": 0,
                "state": state,
            }
        ]


def _owner(found: Manifest) -> dict[str, Any]:
    metadata = found["metadata"]
    return {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _index(pod: Manifest) -> int:
    return int(pod["metadata"]["labels"].get(INDEX, "0"))


def _ended(pod: Manifest) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def _verdict(job: Manifest, failed: list[Manifest]) -> tuple[str, str]:
    """Return reason and message that the pod failure policy gives a failed Job."""
    rules = job["spec"].get("podFailurePolicy", {}).get("rules", [])
    for pod in failed:
        metadata, status = pod["metadata"], pod["status"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        code = status["containerStatuses"][0]["state"]["terminated"]["exitCode"]
        conditions = {c["type"] for c in status.get("conditions", ()) if c["status"] == "True"}
        for number, rule in enumerate(rules):
            at = f"matching FailJob rule at index {number}"
            wanted = [each["type"] for each in rule.get("onPodConditions", ())]
            if found := conditions.intersection(wanted):
                return "PodFailurePolicy", f"Pod {name} has condition {found.pop()} {at}"
            if code in rule.get("onExitCodes", {}).get("values", ()):
                text = f"Container stage for pod {name} failed with exit code {code} {at}"
                return "PodFailurePolicy", text
    return BACKOFF
