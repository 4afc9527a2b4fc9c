"""A namespace of a test's own with a bucket and the Secret for it, and the small run in it."""

import contextlib
import copy
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from selfimprove_pipeline.run import status
from selfimprove_pipeline.store.repository import Repository
from support import benchmark_tasks
from support.cli import MINIATURE, Cli
from support.kube import JSON, Kube, kubectl
from support.live_runs import LiveRun
from support.s3 import Server

SECRET: Final = "store"  # noqa: S105  the name of one
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
SMALL: Final[JSON] = {
    "prompts": {"perIteration": 96},
    "training": {"checkpointSteps": 2},
}
"""Minutes on two cores: two iterations of some twelve steps each."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> JSON:
    """Return `over` on top of `base`, maps merged key by key; a None takes a key away."""
    found = copy.deepcopy(dict(base))
    for key, value in over.items():
        inner = found.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            found[key] = merged(inner, value)
        else:
            found[key] = value
    return {key: value for key, value in found.items() if value is not None}


def small(inputs: str, name: str = "run", **spec: Any) -> JSON:
    """Return the small run of the miniature with its inputs under a URI, and `spec` on top."""
    body: JSON = yaml.safe_load((MINIATURE / "run.yaml").read_text())
    suite = {"name": "exactMatch", "uri": f"{inputs}/suite", "limit": 30}
    here = {
        "model": {"uri": f"{inputs}/m0"},
        "prompts": {"uri": f"{inputs}/prompts"},
        "evaluation": {"suites": [suite]},
    }
    body["metadata"]["name"] = name
    return {**body, "spec": merged(merged(merged(body["spec"], SMALL), here), spec)}


def with_tasks(inputs: str) -> JSON:
    """Return a spec that measures tasks of lm-eval beside the small run's suite."""
    return {
        "evaluation": {
            "suites": [
                {"name": "exactMatch", "uri": f"{inputs}/suite", "limit": 30},
                {"name": "nlp", "uri": f"{inputs}/tasks", "limit": 4},
            ]
        }
    }


def inputs_on_disk(tasks: Path) -> dict[str, Path]:
    """Return the folders that runs read, by their names in the store; tasks are written now."""
    kinds = (benchmark_tasks.CHOICE, benchmark_tasks.ROLLING, benchmark_tasks.WRITING)
    own = {part: MINIATURE / part for part in ("m0", "prompts", "suite")}
    return {**own, "tasks": benchmark_tasks.write(tasks, kinds)}


@dataclass(frozen=True)
class Place:
    """A namespace, the bucket of its runs, and where their inputs are."""

    kube: Kube
    namespace: str
    bucket: str
    inputs: str
    """inputs is the URI under which m0, prompts, suite and tasks are."""
    server: Server
    folder: Path
    runs: list[LiveRun] = field(default_factory=list)

    def manifest(self, name: str = "run", **spec: Any) -> JSON:
        """Return the small run of the miniature, with `spec` on top."""
        storage = {
            "endpoint": os.environ["S3_ENDPOINT_FROM_PODS"],
            "bucket": self.bucket,
            "prefix": name,
            "secretRef": {"name": SECRET},
        }
        return small(self.inputs, name, **merged({"storage": storage}, spec))

    def apply(self, name: str = "run", **spec: Any) -> LiveRun:
        """Apply the small run, as `kubectl apply -f run.yaml` does."""
        text = json.dumps(self.manifest(name, **spec))
        kubectl("-n", self.namespace, "apply", "-f", "-", stdin=text)
        run = LiveRun(self.kube, self.namespace, name)
        self.runs.append(run)
        return run

    def repository(self, run: LiveRun) -> Repository:
        """Return where a run's artifacts are, as the pipeline sees it."""
        prefix = run.body["spec"]["storage"]["prefix"]
        cache = self.folder / "cache"
        return Repository(self.server.store(), bucket=self.bucket, prefix=prefix, cache=cache)

    def shown(self, run: LiveRun) -> JSON:
        """Return what `selfimprove show -o json` tells of a run on the cluster."""
        repository = self.repository(run)
        index = repository.read_index(run.namespace, run.name)
        assert index is not None, f"expected an index of {run.name}, found none"
        return status.status(index, repository)

    def rows(self, run: LiveRun, iteration: int, stage: str) -> dict[str, list[JSON]]:
        """Return the rows of a stage's artifacts by part, as they lie in the bucket."""
        repository = self.repository(run)
        (found,) = [
            s for s in self.shown(run)["iterations"][iteration]["stages"] if s["name"] == stage
        ]
        rows = {}
        for part, artifact in found["artifacts"].items():
            manifest = repository.manifest(stage, artifact["key"])
            assert manifest is not None, f"expected the artifact {stage} {part}, found none"
            file = next(file.name for file in manifest.files if file.is_payload)
            content = repository.store.read(repository.uri(stage, manifest.key) + file) or b""
            rows[part] = [json.loads(line) for line in content.splitlines()]
        return rows

    def objects(self, prefix: str = "") -> list[str]:
        """Return the URIs in the bucket that begin with a prefix."""
        return [entry.uri for entry in self.server.store().entries(f"s3://{self.bucket}/{prefix}")]


@contextlib.contextmanager
def place(kube: Kube, server: Server, inputs: str, folder: Path, **labels: str) -> Iterator[Place]:
    """Make a namespace with everything, and remove it at the end."""
    name = f"test-{secrets.token_hex(4)}"
    body = {"metadata": {"name": name, "labels": {**RESTRICTED, **labels}}}
    kube.ask("POST", "/api/v1/namespaces", body)
    try:
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        secret = {"metadata": {"name": SECRET}, "stringData": keys}
        kube.ask("POST", f"/api/v1/namespaces/{name}/secrets", secret)
        yield Place(kube, name, server.make_bucket(), inputs, server, folder)
    finally:
        kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=120s")


def on_this_machine(
    body: JSON, inputs: str, folder: Path, engine: str, environment: Mapping[str, str] | None = None
) -> JSON:
    """Return `show -o json` of the same file after `selfimprove run` with a folder for a store."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(body))
    cli = Cli(folder / "store", folder / "cache", engine, environment or {})
    for part, path in inputs_on_disk(folder / "tasks").items():
        uri = f"{inputs}/{part}"
        uploaded = cli("upload", str(path), uri, "--store", str(cli.store))
        assert uploaded.code == 0, uploaded.errors
    ran = cli("run", str(file), "--store", str(cli.store), "--engine", engine)
    assert ran.code == 0, ran.errors
    shown = cli("show", str(file), "--store", str(cli.store), "-o", "json")
    assert shown.code == 0, shown.errors
    found: JSON = json.loads(shown.output)
    return found


def digests(shown: JSON) -> dict[str, str]:
    """Return the digest of every model and stage."""
    models = {f"M{i['index']}": i["model"]["digest"] for i in shown["iterations"]}
    stages = {
        f"M{i['index']} {stage['name']}": stage["digest"]
        for i in shown["iterations"]
        for stage in i["stages"]
    }
    return models | stages


def keys(shown: JSON) -> list[JSON]:
    """Return the artifacts of every stage with their keys."""
    return [stage["artifacts"] for i in shown["iterations"] for stage in i["stages"]]
