"""The pod of a launch: restricted security, one container, the run file, credentials, caches.

The settings of the role, from the run and the chart, override our defaults (`cache`, `shm`, `tmp`
and the variables that point there), but not what a stage needs to work. Credentials are references
to Secrets in the run's namespace: neither the operator nor a manifest ever has their values.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from selfimprove_operator.launches import snapshot
from selfimprove_operator.launches.blueprint import Blueprint
from selfimprove_pipeline.contract import environment
from selfimprove_pipeline.contract.recipe import PodSettings, merged_pods
from selfimprove_pipeline.contract.recipe.base import SecretRef

Object = dict[str, Any]

RUN_ANNOTATION: Final = "selfimprove.dev/run"
RUN_FOLDER: Final = "/etc/selfimprove/run"
CA_FOLDER: Final = "/etc/selfimprove/ca"
CACHE_FOLDER: Final = "/cache"
TERMINATION_FILE: Final = "/dev/termination-log"
RENDEZVOUS_PORT: Final = 29500
USER: Final = 65532
GRACE_SECONDS: Final = 60
"""Seconds after SIGTERM in which a stage can save its checkpoint and write its message."""
ACCESS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

DEFAULT_ENV: Final = {
    "HOME": f"{CACHE_FOLDER}/home",
    "VLLM_CACHE_ROOT": f"{CACHE_FOLDER}/vllm",
    "HF_HOME": f"{CACHE_FOLDER}/huggingface",
    "TRITON_CACHE_DIR": f"{CACHE_FOLDER}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_FOLDER}/inductor",
    "XDG_CACHE_HOME": f"{CACHE_FOLDER}/xdg",
    "TMPDIR": "/tmp",  # noqa: S108  an emptyDir of the pod's own
    "PYTHONUNBUFFERED": "1",
}
DEFAULT_VOLUMES: Final = (
    {"name": "tmp", "emptyDir": {}},
    # NCCL and vLLM's workers share memory here. The limit reserves nothing; use counts as memory.
    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
    {"name": "cache", "emptyDir": {}},
)
DEFAULT_MOUNTS: Final = (
    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  as above
    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  a memory volume of the pod's own
    {"name": "cache", "mountPath": CACHE_FOLDER},
)

GPUS: Final = (
    "nvidia.com/gpu*",
    "nvidia.com/mig-*",
    "amd.com/gpu*",
    "gpu.intel.com/*",
    "habana.ai/gaudi",
)
"""Extended resources that are GPUs; others may be network cards."""

PLACEMENT: Final = (
    "serviceAccountName",
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "runtimeClassName",
    "imagePullSecrets",
)
"""Settings that are fields of the pod's spec; the others are fields of its container."""


def template(blueprint: Blueprint) -> Object:
    """Return the pod template of a launch."""
    role = blueprint.unit.role
    # The run's settings of the role over the chart's.
    settings = merged_pods(
        getattr(blueprint.snapshot.pods, role), getattr(blueprint.spec.pods, role)
    )
    run_file = snapshot.run_file(
        blueprint.snapshot,
        iterations=blueprint.spec.iterations,
        training=merged_pods(blueprint.snapshot.pods.training, blueprint.spec.pods.training),
    )
    return {
        "metadata": {
            "labels": {**(settings.labels or {}), **blueprint.labels},
            "annotations": {**(settings.annotations or {}), RUN_ANNOTATION: run_file},
        },
        "spec": _spec(blueprint, settings),
    }


def _spec(blueprint: Blueprint, settings: PodSettings) -> Object:
    given = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    placement = {name: given[name] for name in PLACEMENT if given.get(name)}
    subdomain = {"subdomain": blueprint.name} if blueprint.has_service else {}
    fixed = [volume for volume, _ in _fixed_volumes(blueprint)]
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        # Stages never call the API server, and need no variables for the namespace's Services.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",  # else each start walks through the cache
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **subdomain,
        **placement,
        "containers": [_container(blueprint, given)],
        "volumes": _merged("name", DEFAULT_VOLUMES, given.get("volumes", ()), fixed),
    }


def _container(blueprint: Blueprint, given: Mapping[str, Any]) -> Object:
    unit = blueprint.unit
    settings = {
        name: given[name] for name in ("imagePullPolicy", "resources", "envFrom") if name in given
    }
    stages = ["--stages", ",".join(unit.stages)] if unit.is_part else []
    iteration = str(blueprint.launch.iteration)
    fixed_mounts = [mount for _, mount in _fixed_volumes(blueprint)]
    mounts = _merged("mountPath", DEFAULT_MOUNTS, given.get("volumeMounts", ()), fixed_mounts)
    defaults = [_variable(name, value) for name, value in DEFAULT_ENV.items()]
    secrets = list(_secrets(blueprint))
    fixed = [_variable(name, value) for name, value in _environment(blueprint, given).items()]
    return {
        "name": environment.CONTAINER,
        "image": given["image"],
        **settings,
        "args": [
            *("worker", unit.worker, f"{RUN_FOLDER}/run.json"),
            *("--iteration", iteration, "--engine", blueprint.snapshot.engine),
            *stages,
        ],
        "env": _merged("name", [*defaults, *secrets], given.get("env", ()), fixed),
        "volumeMounts": mounts,
        "terminationMessagePath": TERMINATION_FILE,
        "securityContext": _security(given.get("capabilities", ())),
    }


def _security(capabilities: Sequence[str]) -> Object:
    """Return the container's security context: no rights except capabilities that are requested.

    With capabilities the container runs as root: for other users they would have to be ambient,
    which Kubernetes does not support.
    """
    rights: Object = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    if capabilities:
        rights["capabilities"]["add"] = list(capabilities)
        rights |= {"runAsNonRoot": False, "runAsUser": 0}
    return rights


def _merged(key: str, *lists: Iterable[Mapping[str, Any]]) -> list[Object]:
    """Join lists; of items with the same key the last one counts, in the first one's position."""
    return list({item[key]: dict(item) for items in lists for item in items}.values())


def _variable(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def _environment(blueprint: Blueprint, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that settings cannot override."""
    variables = {environment.CACHE: CACHE_FOLDER, environment.TERMINATION_LOG: TERMINATION_FILE}
    ca = blueprint.fixed.storage.ca_ref
    if ca:
        variables["AWS_CA_BUNDLE"] = f"{CA_FOLDER}/{ca.key}"
    # The worker refuses to compute on processors if its pod has requested GPUs.
    limits = given.get("resources", {}).get("limits", {})
    gpus = [
        f"{name}={limits[name]}"
        for name in sorted(limits)
        if any(fnmatchcase(name, pattern) for pattern in GPUS) and str(limits[name]) != "0"
    ]
    if gpus:
        variables[environment.DEVICES] = ",".join(gpus)
    if blueprint.shards > 1:
        variables[environment.SHARDS] = str(blueprint.shards)
    if blueprint.nodes > 1:
        variables |= {
            environment.NODES: str(blueprint.nodes),
            environment.RENDEZVOUS: f"{blueprint.rendezvous_host}:{RENDEZVOUS_PORT}",
            environment.RENDEZVOUS_ID: blueprint.name,
        }
    return variables


def _secrets(blueprint: Blueprint) -> Iterator[Object]:
    """Yield the credentials that the unit needs; `delete` needs only those of the store."""
    spec, unit = blueprint.fixed, blueprint.unit
    yield from _access(spec.storage.secret_ref)
    if unit.name == "delete":
        return
    yield from _access(spec.prompts.secret_ref, prefix=environment.PROMPTS)
    if spec.model.secret_ref:
        yield _secret(spec.model.secret_ref, "HF_TOKEN")
    external = spec.translation.external
    if external and external.secret_ref and ("translator" in unit.asks or unit.name == "check"):
        yield _secret(external.secret_ref, "OPENAI_API_KEY")
    judge = spec.evaluation.judge
    if judge and judge.secret_ref and "judge" in unit.asks:
        yield _secret(judge.secret_ref, "OPENAI_API_KEY", prefix=environment.JUDGE)


def _access(reference: SecretRef | None, prefix: str = "") -> Iterator[Object]:
    """Yield the credentials of a bucket; the session token is optional."""
    if reference:
        for key in ACCESS:
            yield _secret(reference, key, prefix=prefix)
        yield _secret(reference, "AWS_SESSION_TOKEN", prefix=prefix, optional=True)


def _secret(reference: SecretRef, key: str, *, prefix: str = "", **more: bool) -> Object:
    return {
        "name": f"{prefix}{key}",
        "valueFrom": {"secretKeyRef": {"name": reference.name, "key": key, **more}},
    }


def _fixed_volumes(blueprint: Blueprint) -> Iterator[tuple[Object, Object]]:
    """Yield the volumes that settings cannot replace, each with its mount."""
    annotation = f"metadata.annotations['{RUN_ANNOTATION}']"
    item = {"path": "run.json", "fieldRef": {"fieldPath": annotation}}
    yield _read_only("run", RUN_FOLDER, downwardAPI={"items": [item]})
    ca = blueprint.fixed.storage.ca_ref
    if ca:
        items = [{"key": ca.key, "path": ca.key}]
        yield _read_only("ca", CA_FOLDER, configMap={"name": ca.name, "items": items})
    scheme, _, rest = blueprint.fixed.model.uri.partition("://")
    if scheme == "pvc" and blueprint.unit.name != "delete":  # pvc://CLAIM/PATH
        claim = {"claimName": rest.partition("/")[0], "readOnly": True}
        yield _read_only("model", environment.MODEL_FOLDER, persistentVolumeClaim=claim)


def _read_only(name: str, folder: str, **source: Object) -> tuple[Object, Object]:
    return {"name": name, **source}, {"name": name, "mountPath": folder, "readOnly": True}
