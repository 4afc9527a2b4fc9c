"""The loops that `control_loop.py` measures, and what can be seen of their processes.

All three get objects that ask for the same kind of pod, one that fits no node. What the bare
loop is stands in `bare_loop.py`; JobSet's controller is whatever the cluster runs.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from selfimprove_operator.cluster.transport import Resource

ROOT: Final = Path(__file__).resolve().parents[1]
RUN: Final = ROOT / "examples" / "miniature" / "run.yaml"
CALLS: Final = "selfimprove_api_calls_total"
IMAGE: Final = "localhost/none:benchmark"
NOWHERE: Final = {"selfimprove.dev/benchmark": "no-such-node"}
POD: Final = {
    "restartPolicy": "Never",
    "nodeSelector": NOWHERE,
    "containers": [{"name": "stage", "image": IMAGE}],
}
AS_IN_ITS_IMAGE: Final = """
import runpy, sys
sys.modules["chardet"] = None
runpy.run_module("selfimprove_operator", run_name="__main__")
"""
"""Starts the operator without what its image does not have: requests takes chardet, 11 MiB of
memory, where it finds it, and lm-eval brings it into this environment."""
JOB: Final = {"backoffLimit": 0, "parallelism": 1, "completions": 1, "template": {"spec": POD}}
JOBSET_SPEC: Final = {
    "suspend": False,
    "network": {"enableDNSHostnames": False},
    "replicatedJobs": [{"name": "main", "replicas": 1, "template": {"spec": JOB}}],
}
BARE_CRD: Final = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: bareruns.benchmark.selfimprove.dev}
spec:
  group: benchmark.selfimprove.dev
  names: {kind: BareRun, plural: bareruns, singular: barerun}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, properties: {job: {type: string}}}
"""


@dataclass(frozen=True)
class Loop:
    """One way from an object to its Job."""

    name: str
    kind: str
    resource: Resource
    spec: Mapping[str, Any]
    command: Callable[[str, int, Path], Sequence[str]] | None
    """command of its process for a namespace, a port and a folder; None where it runs already."""

    def manifest(self, namespace: str, name: str) -> dict[str, Any]:
        """Return one of its objects."""
        identity = {"apiVersion": self.resource.group_version, "kind": self.kind}
        metadata = {"namespace": namespace, "name": name}
        return {**identity, "metadata": metadata, "spec": self.spec}


@dataclass(frozen=True)
class Process:
    """The process of a loop, as far as it can be seen."""

    pid: int | None
    port: int | None

    @property
    def cpu_seconds(self) -> float:
        """Time that it has computed, 0 where the process is not known."""
        if self.pid is None:
            return 0.0
        values = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self, name: str) -> float | None:
        """Return a size of its status: VmRSS, or VmHWM for the most that it was."""
        if self.pid is None:
            return None
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

    async def calls(self) -> Counter[str]:
        """Return how often it has called the API server, by verb and resource."""
        counted: Counter[str] = Counter()
        if self.port is None:
            return counted
        url = f"http://127.0.0.1:{self.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            text = await answer.text()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == CALLS:
                    labels = sample.labels
                    counted[f"{labels['verb']} {labels['resource']}"] += int(sample.value)
        return counted


@contextlib.asynccontextmanager
async def started(loop: Loop, namespace: str) -> AsyncIterator[Process]:
    """Start a loop's process and stop it afterwards; or find the one that runs already."""
    if loop.command is None:
        pid = os.environ.get("JOBSET_CONTROLLER_PID")
        yield Process(int(pid) if pid else None, None)
        return
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "log").open("w+") as log:
            command = loop.command(namespace, port, folder)
            child = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
            try:
                yield Process(child.pid, port)
            except Exception:
                log.seek(0)
                print(log.read()[-4000:], file=sys.stderr)
                raise
            finally:
                if child.returncode is None:
                    child.send_signal(signal.SIGTERM)
                await child.wait()


def _bare_command(namespace: str, port: int, _: Path) -> Sequence[str]:
    group, version = BARE.group_version.split("/")
    script = Path(__file__).with_name("bare_loop.py")
    where = ("--namespace", namespace, "--port", str(port))
    return (sys.executable, str(script), group, version, BARE.plural, *where)


def _operator_command(namespace: str, port: int, folder: Path) -> Sequence[str]:
    pods = {"image": IMAGE, "nodeSelector": NOWHERE}
    settings = {
        "engine": "transformers",
        "pods": dict.fromkeys(("inference", "training", "light"), pods),
        "watchNamespaces": [namespace],
    }
    path = folder / "settings.yaml"
    path.write_text(json.dumps(settings))
    variables = (f"SELFIMPROVE_SETTINGS={path}", f"SELFIMPROVE_PORT={port}")
    return ("env", *variables, sys.executable, "-c", AS_IN_ITS_IMAGE)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _run_spec() -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(RUN.read_text())["spec"]
    return spec


BARE: Final = Resource("benchmark.selfimprove.dev/v1", "bareruns")
RUNS: Final = Resource("selfimprove.dev/v1alpha1", "selfimproveruns")
JOBSETS: Final = Resource("jobset.x-k8s.io/v1alpha2", "jobsets")
JOBSET: Final = Loop("jobset", "JobSet", JOBSETS, JOBSET_SPEC, None)
LOOPS: Final = (
    Loop("bare", "BareRun", BARE, JOB, _bare_command),
    Loop("operator", "SelfImproveRun", RUNS, _run_spec(), _operator_command),
    JOBSET,
)
