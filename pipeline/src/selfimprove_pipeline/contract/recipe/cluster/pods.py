"""How the pods of a run look on a cluster: images, resources, placement, environment.

Every field is optional: the chart has defaults for each role, and `merged_pods` lays the run's
values on top of them. On one machine nothing here counts, and no artifact depends on it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from selfimprove_pipeline.contract.recipe.base import LabelKey, LabelValue, Name, Part
from selfimprove_pipeline.contract.recipe.cluster.kubernetes import of_kubernetes

Item = Mapping[str, Any]


def _each_once(key: str) -> Callable[[tuple[Item, ...]], tuple[Item, ...]]:
    """Return the check that no two items of a list have the same key."""

    def check(items: tuple[Item, ...]) -> tuple[Item, ...]:
        names = [item[key] for item in items]
        if len(set(names)) < len(names):
            msg = f"expected each {key} once, found {', '.join(names)}"
            raise ValueError(msg)
        return items

    return check


def _keyed(key: str, most: int) -> tuple[Any, Any]:
    """Return what makes a list one of named things: its key, each once, and its bound."""
    schema: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return Field(max_length=most, json_schema_extra=schema), AfterValidator(_each_once(key))


Resources = Annotated[dict[str, Any], of_kubernetes("ResourceRequirements")]
Toleration = Annotated[dict[str, Any], of_kubernetes("Toleration")]
Affinity = Annotated[dict[str, Any], of_kubernetes("Affinity")]
SecretName = Annotated[dict[str, Any], of_kubernetes("LocalObjectReference")]
EnvVar = Annotated[dict[str, Any], of_kubernetes("EnvVar")]
EnvFrom = Annotated[dict[str, Any], of_kubernetes("EnvFromSource")]
Volume = Annotated[dict[str, Any], of_kubernetes("Volume")]
VolumeMount = Annotated[dict[str, Any], of_kubernetes("VolumeMount")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[
    dict[LabelKey, Annotated[str, StringConstraints(max_length=32_768)]], Field(max_length=64)
]


class PodSettings(Part):
    """Settings of the pods of one role."""

    image: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    """image of the container. Default: the chart's."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """imagePullPolicy is when nodes pull the image."""

    service_account_name: Name | None = None
    """serviceAccountName of the pods, such as one with a workload identity for the bucket. They get
    no token for the API server."""

    resources: Resources | None = None
    """resources of the container, merged with the chart's by name."""

    capabilities: (
        Annotated[tuple[Literal["IPC_LOCK", "SYS_NICE"], ...], Field(max_length=2)] | None
    ) = None
    """capabilities to add: IPC_LOCK for RDMA between nodes, SYS_NICE to bind memory to a processor.
    The container then runs as root with nothing else; Pod Security must be `privileged`."""

    node_selector: Labels | None = None
    """nodeSelector is the labels a node must have, merged with the chart's."""

    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] | None = None
    """tolerations of taints; they replace the chart's."""

    affinity: Affinity | None = None
    """affinity to nodes and pods; it replaces the chart's."""

    priority_class_name: Name | None = None
    """priorityClassName of the pods."""

    runtime_class_name: Name | None = None
    """runtimeClassName of the pods."""

    image_pull_secrets: Annotated[tuple[SecretName, ...], *_keyed("name", 16)] | None = None
    """imagePullSecrets are added to the chart's by name."""

    labels: Labels | None = None
    """labels of the pods, added to the chart's."""

    annotations: Annotations | None = None
    """annotations of the pods, added to the chart's."""

    env: Annotated[tuple[EnvVar, ...], *_keyed("name", 128)] | None = None
    """env is merged with the chart's by name. Use valueFrom for secrets."""

    env_from: Annotated[tuple[EnvFrom, ...], Field(max_length=32)] | None = None
    """envFrom lists ConfigMaps and Secrets whose keys become variables; it replaces the chart's."""

    volumes: Annotated[tuple[Volume, ...], *_keyed("name", 64)] | None = None
    """volumes are merged with the chart's by name; one named `cache` replaces the empty cache."""

    volume_mounts: Annotated[tuple[VolumeMount, ...], *_keyed("mountPath", 64)] | None = None
    """volumeMounts are merged with the chart's by mountPath."""


class Pods(Part):
    """Settings of the pods of each role."""

    inference: PodSettings = Field(default_factory=PodSettings)
    """inference sets the pods that generate, translate and evaluate."""

    training: PodSettings = Field(default_factory=PodSettings)
    """training sets the pods that train."""

    light: PodSettings = Field(default_factory=PodSettings)
    """light sets the pods that check, pair, score, report and delete; they need no GPU."""


KEYS: Final = {
    "env": "name",
    "volumes": "name",
    "volume_mounts": "mountPath",
    "image_pull_secrets": "name",
}
"""Lists of named things with the key that names them."""

MAPS: Final = ("node_selector", "labels", "annotations")


def merged_pods(defaults: PodSettings, given: PodSettings) -> PodSettings:
    """Return the settings that count: named things and maps merged, else the given value wins."""
    values: dict[str, Any] = {}
    for name in PodSettings.model_fields:
        base, over = getattr(defaults, name), getattr(given, name)
        if base is None or over is None:
            values[name] = base if over is None else over
        elif name in KEYS:
            values[name] = _by_key(base, over, KEYS[name])
        elif name in MAPS:
            values[name] = {**base, **over}
        elif name == "resources":
            values[name] = {key: {**base.get(key, {}), **over.get(key, {})} for key in base | over}
        else:
            values[name] = over
    return PodSettings(**values)


def _by_key(base: Sequence[Item], over: Sequence[Item], key: str) -> tuple[Item, ...]:
    """Return the items of both, base's order first; of two with one key the latter."""
    return tuple({item[key]: item for item in (*base, *over)}.values())
