"""The pod of a launch: restricted security, one container, the run file, credentials, caches.

The run's and the chart's settings of the role lie over our defaults (`cache`, `shm`, `tmp`
and what points into them), and below what a stage cannot do without. Credentials come by
reference from Secrets of the run's namespace: neither the operator nor a manifest holds one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from selfimprove_operator.launches import snapshot
from selfimprove_operator.launches.blueprint import Blueprint
from selfimprove_pipeline.contract import environment
from selfimprove_pipeline.contract.keys import grades_pairs
from selfimprove_pipeline.contract.recipe import PodSettings, merged_pods
from selfimprove_pipeline.contract.recipe.base import SecretRef

Object = dict[str, Any]

RUN_ANNOTATION: Final = "selfimprove.dev/run"
RUN_FOLDER: Final = "/etc/selfimprove/run"
CA_FOLDER: Final = "/etc/selfimprove/ca"
CACHE: Final = "/cache"
TERMINATION_LOG: Final = "/dev/termination-log"
RENDEZVOUS_PORT: Final = 29500
USER: Final = 65532
GRACE_SECONDS: Final = 60
"""Seconds that a stage has to leave its checkpoint and its message after SIGTERM."""
ACCESS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

DEFAULT_ENV: Final = {
    "HOME": f"{CACHE}/home",
    "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
    "HF_HOME": f"{CACHE}/huggingface",
    "TRITON_CACHE_DIR": f"{CACHE}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
    "XDG_CACHE_HOME": f"{CACHE}/xdg",
    "TMPDIR": "/tmp",  # noqa: S108  an emptyDir of the pod's own
    "PYTHONUNBUFFERED": "1",
}
DEFAULT_VOLUMES: Final = (
    {"name": "tmp", "emptyDir": {}},
    # NCCL and vLLM's workers talk through it. A limit reserves nothing; what is used is memory.
    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
    {"name": "cache", "emptyDir": {}},
)
DEFAULT_MOUNTS: Final = (
    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  as above
    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  a memory volume of the pod's own
    {"name": "cache", "mountPath": CACHE},
)

GPUS: Final = (
    "nvidia.com/gpu*",
    "nvidia.com/mig-*",
    "amd.com/gpu*",
    "gpu.intel.com/*",
    "habana.ai/gaudi",
)
"""Names of the extended resources that are GPUs; others are network cards and the like."""

PLACEMENT: Final = (
    "serviceAccountName",
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "runtimeClassName",
    "imagePullSecrets",
)
"""Pod settings that are fields of the pod's spec; the others are the container's."""


def template(blueprint: Blueprint) -> Object:
    """Return the pod template of a launch."""
    settings = _settings(blueprint)
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


def _settings(blueprint: Blueprint) -> PodSettings:
    """Return the settings of the unit's role, the run's over the chart's."""
    role = blueprint.unit.role
    return merged_pods(getattr(blueprint.snapshot.pods, role), getattr(blueprint.spec.pods, role))


def _spec(blueprint: Blueprint, settings: PodSettings) -> Object:
    given = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    placement = {name: given[name] for name in PLACEMENT if given.get(name)}
    subdomain = {"subdomain": blueprint.name} if blueprint.has_service else {}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **subdomain,
        **placement,
        "containers": [_container(blueprint, given)],
        "volumes": _merged("name", DEFAULT_VOLUMES, given.get("volumes", ()), _volumes(blueprint)),
    }


def _container(blueprint: Blueprint, given: Mapping[str, Any]) -> Object:
    own = {
        name: given[name] for name in ("imagePullPolicy", "resources", "envFrom") if name in given
    }
    mounts = _merged("mountPath", DEFAULT_MOUNTS, given.get("volumeMounts", ()), _mounts(blueprint))
    defaults = [_variable(name, value) for name, value in DEFAULT_ENV.items()]
    secrets = list(_secrets(blueprint))
    fixed = [_variable(name, value) for name, value in _environment(blueprint, given).items()]
    return {
        "name": environment.CONTAINER,
        "image": given["image"],
        **own,
        "args": _arguments(blueprint),
        "env": _merged("name", [*defaults, *secrets], given.get("env", ()), fixed),
        "volumeMounts": mounts,
        "terminationMessagePath": TERMINATION_LOG,
        "securityContext": _security(given.get("capabilities", ())),
    }


def _security(capabilities: Sequence[str]) -> Object:
    """Return the container's rights: none, or those asked for and nothing beyond.

    What is added reaches root alone: a program that another user starts loses all capabilities
    but ambient ones, which Kubernetes cannot give.
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
    """Return the items of all lists; of those with one key the last, in the place of the first."""
    return list({item[key]: dict(item) for items in lists for item in items}.values())


def _arguments(blueprint: Blueprint) -> list[str]:
    unit = blueprint.unit
    narrowed = ["--stages", ",".join(unit.stages)] if unit.is_part else []
    return [
        "worker",
        unit.worker,
        f"{RUN_FOLDER}/run.json",
        "--iteration",
        str(blueprint.launch.iteration),
        "--engine",
        blueprint.snapshot.engine,
        *narrowed,
    ]


def _variable(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def _environment(blueprint: Blueprint, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that no settings may change."""
    variables = {environment.CACHE: CACHE, environment.TERMINATION_LOG: TERMINATION_LOG}
    ca = blueprint.fixed.storage.ca_ref
    if ca:
        variables["AWS_CA_BUNDLE"] = f"{CA_FOLDER}/{ca.key}"
    if gpus := _gpus(given):
        variables[environment.DEVICES] = gpus
    if blueprint.shards > 1:
        variables[environment.SHARDS] = str(blueprint.shards)
    if blueprint.nodes > 1:
        variables |= {
            environment.NODES: str(blueprint.nodes),
            environment.RENDEZVOUS: f"{blueprint.rendezvous_host}:{RENDEZVOUS_PORT}",
            environment.RENDEZVOUS_ID: blueprint.name,
        }
    return variables


def _gpus(given: Mapping[str, Any]) -> str:
    """Return the GPUs that the container's limits ask for, `nvidia.com/gpu=8`.

    The worker refuses to compute on processors where its pod asked for GPUs.
    """
    limits = given.get("resources", {}).get("limits", {})
    return ",".join(
        f"{name}={limits[name]}"
        for name in sorted(limits)
        if any(fnmatchcase(name, gpu) for gpu in GPUS) and str(limits[name]) != "0"
    )


def _secrets(blueprint: Blueprint) -> Iterator[Object]:
    """Yield the credentials that the unit needs; deletion needs those of the store alone."""
    spec, unit = blueprint.fixed, blueprint.unit
    yield from _access(spec.storage.secret_ref)
    if unit.name == "delete":
        return
    yield from _access(spec.prompts.secret_ref, prefix=environment.PROMPTS)
    if spec.model.secret_ref:
        yield _secret(spec.model.secret_ref, "HF_TOKEN")
    external = spec.translation.external
    if external and external.secret_ref and (unit.role == "inference" or unit.name == "check"):
        yield _secret(external.secret_ref, "OPENAI_API_KEY")
    judge = spec.evaluation.judge
    asks = "judge" in unit.stages or ("score" in unit.stages and grades_pairs(spec))
    if judge and judge.secret_ref and asks:
        yield _secret(judge.secret_ref, "OPENAI_API_KEY", prefix=environment.JUDGE)


def _access(reference: SecretRef | None, prefix: str = "") -> Iterator[Object]:
    """Yield the credentials of a bucket; a session token need not be there."""
    if reference:
        for key in ACCESS:
            yield _secret(reference, key, prefix=prefix)
        yield _secret(reference, "AWS_SESSION_TOKEN", prefix=prefix, optional=True)


def _secret(reference: SecretRef, key: str, *, prefix: str = "", **more: bool) -> Object:
    return {
        "name": f"{prefix}{key}",
        "valueFrom": {"secretKeyRef": {"name": reference.name, "key": key, **more}},
    }


def _volumes(blueprint: Blueprint) -> Iterator[Object]:
    """Yield the volumes that no settings may replace."""
    annotation = f"metadata.annotations['{RUN_ANNOTATION}']"
    item = {"path": "run.json", "fieldRef": {"fieldPath": annotation}}
    yield {"name": "run", "downwardAPI": {"items": [item]}}
    ca = blueprint.fixed.storage.ca_ref
    if ca:
        items = [{"key": ca.key, "path": ca.key}]
        yield {"name": "ca", "configMap": {"name": ca.name, "items": items}}
    claim = _claim(blueprint)
    if claim:
        yield {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}


def _mounts(blueprint: Blueprint) -> Iterator[Object]:
    """Yield where those volumes are."""
    yield {"name": "run", "mountPath": RUN_FOLDER, "readOnly": True}
    if blueprint.fixed.storage.ca_ref:
        yield {"name": "ca", "mountPath": CA_FOLDER, "readOnly": True}
    if _claim(blueprint):
        yield {"name": "model", "mountPath": environment.MODEL_FOLDER, "readOnly": True}


def _claim(blueprint: Blueprint) -> str | None:
    """Return the claim of `pvc://CLAIM/PATH`, None for another model or a unit without one."""
    scheme, _, rest = blueprint.fixed.model.uri.partition("://")
    is_needed = scheme == "pvc" and blueprint.unit.name != "delete"
    return rest.partition("/")[0] if is_needed else None
