"""A real cluster as a test sees it: objects as JSON, and waiting for what others do to them.

What a user types goes through kubectl; what a test looks at every fraction of a second goes
through the official client, without its model classes. Neighbours: `live_runs` speaks of runs,
`faults` breaks things, `operators` runs the operator.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import urllib3
from kubernetes import config

from selfimprove_operator.api.status import GROUP, KIND, PLURAL, SELECTOR, VERSION

JSON = dict[str, Any]
T = TypeVar("T")

PATHS: Final[Mapping[str, tuple[str, str]]] = {
    KIND: (f"/apis/{GROUP}/{VERSION}", PLURAL),
    "Job": ("/apis/batch/v1", "jobs"),
    "JobSet": ("/apis/jobset.x-k8s.io/v1alpha2", "jobsets"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "Event": ("/api/v1", "events"),
    "ControllerRevision": ("/apis/apps/v1", "controllerrevisions"),
    "Workload": ("/apis/kueue.x-k8s.io/v1beta2", "workloads"),
}
PAUSE: Final = 0.25
"""Seconds between two looks."""
PATIENCE: Final = float(os.environ.get("SELFIMPROVE_TEST_PATIENCE", "3"))
"""Factor on the seconds of every wait, for a machine that has much else to do."""


ESTABLISHED: Final = '--for=jsonpath={.status.conditions[?(@.type=="Established")].status}=True'
"""What `kubectl wait` waits for until a definition is served.

`--for=condition` fails at once on a definition that is so new that it has no conditions yet.
"""


def eventually(
    found: Callable[[], T | None],
    *,
    within: float,
    what: str,
    otherwise: Callable[[], str] = str,
) -> T:
    """Return the first true value of `found`; fail with what `otherwise` says after `within` s.

    An API server that does not answer is one more reason to look again.
    """
    deadline = time.monotonic() + within * PATIENCE
    while True:
        try:
            if value := found():
                return value
        except urllib3.exceptions.HTTPError:
            pass
        if time.monotonic() > deadline:
            message = f"waited {within * PATIENCE:.0f} s for {what}\n{otherwise()}"
            raise AssertionError(message)
        time.sleep(PAUSE)


class Refusal(Exception):  # noqa: N818  what the API server does
    """The API server said no; `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Kube:
    """The API server of KUBECONFIG, in raw JSON."""

    def __init__(self) -> None:
        self._client: Any = config.new_client_from_config()  # type: ignore[no-untyped-call]

    def send(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        query: Mapping[str, str] | None = None,
        *,
        seconds: float = 30,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request and return the answer before its body is read; raise `Refusal`."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        sent = self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Content-Type": kind, "Accept": "application/json, */*"},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer: urllib3.BaseHTTPResponse
        answer = self._client.call_api(*sent[:4], _request_timeout=seconds).response
        if answer.status >= 400:
            raise Refusal(answer.status, answer.read().decode())
        return answer

    def ask(self, method: str, path: str, body: JSON | None = None, **query: str) -> JSON:
        """Send a request and return the JSON of its answer."""
        found: JSON = json.loads(self.send(method, path, body, query).read())
        return found

    def get(self, kind: str, namespace: str, name: str) -> JSON | None:
        """Return an object, None where there is none."""
        try:
            return self.ask("GET", path_of(kind, namespace, name))
        except Refusal as refusal:
            if refusal.status == 404:
                return None
            raise

    def all(self, kind: str, namespace: str, selector: str = "") -> list[JSON]:
        """Return the objects of a namespace, of `selector` alone if one is given."""
        answer = self.ask("GET", path_of(kind, namespace), labelSelector=selector)
        found: list[JSON] = answer["items"]
        return found

    def create(self, kind: str, namespace: str, body: JSON) -> JSON:
        """Create an object."""
        return self.ask("POST", path_of(kind, namespace), body)

    def patch(self, kind: str, namespace: str, name: str, body: JSON) -> JSON:
        """Apply a JSON merge patch."""
        return self.ask("PATCH", path_of(kind, namespace, name), body)

    def delete(self, kind: str, namespace: str, name: str, **options: Any) -> None:
        """Delete an object with its dependents; one that is gone is fine."""
        body = {"propagationPolicy": "Background", **options}
        try:
            self.send("DELETE", path_of(kind, namespace, name), body).read()
        except Refusal as refusal:
            if refusal.status != 404:
                raise

    def log(self, pod: JSON) -> str:
        """Return a pod's whole log, empty where none can be had."""
        path = path_of("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        try:
            return self.send("GET", f"{path}/log").read().decode(errors="replace")
        except Refusal:
            return ""

    def watch(self, kind: str, namespace: str, version: str) -> Iterator[JSON]:
        """Yield watch events from a version on, until the server ends the watch (300 s)."""
        answer = self.send(
            "GET",
            path_of(kind, namespace),
            query={
                "watch": "true",
                "resourceVersion": version,
                "timeoutSeconds": "300",
                "labelSelector": SELECTOR,
            },
            seconds=310,
        )
        rest = b""
        for chunk in answer.stream(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines if line)


def path_of(kind: str, namespace: str, name: str = "") -> str:
    """Return the path of a collection or an object in a namespace."""
    root, plural = PATHS[kind]
    return f"{root}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def kubectl(*arguments: str, stdin: str | None = None, is_good: bool = True) -> str:
    """Run kubectl as a user does and return what it prints; `is_good` tells how it must end."""
    done = subprocess.run(
        ["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is is_good, f"kubectl {' '.join(arguments)}: {done}"
    return done.stdout if is_good else done.stderr


def is_live(pod: JSON) -> bool:
    """Return whether anything of a pod runs or may still come to run."""
    return pod["status"].get("phase") not in ("Succeeded", "Failed")


def is_finished(job: JSON) -> bool:
    """Return whether a Job's outcome is final."""
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def is_started(pod: JSON) -> bool:
    """Return whether the container of a pod runs."""
    statuses = pod["status"].get("containerStatuses", ())
    return any("running" in status["state"] for status in statuses)


def name_of(body: JSON) -> str:
    """Return an object's name."""
    name: str = body["metadata"]["name"]
    return name
