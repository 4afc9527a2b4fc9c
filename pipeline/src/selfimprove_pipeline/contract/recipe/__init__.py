"""The whole spec of a `SelfImproveRun`, typed: what a user may choose, and what it changes.

The recipe is the contract between the file a person writes, the stages that read it and the
operator that will watch it. It imports nothing but pydantic. `resolve` fills what a profile
sets; `fields_of` gives the values that one stage's output depends on.
"""

import json
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, StringConstraints
from pydantic.fields import FieldInfo

from selfimprove_pipeline.contract.recipe.base import LANGUAGE_PATTERN, Affects, Part, Stage
from selfimprove_pipeline.contract.recipe.cluster.lifecycle import (
    Deadlines,
    Retries,
    Scheduling,
    TtlSecondsAfterFinished,
)
from selfimprove_pipeline.contract.recipe.cluster.pods import (
    Annotations,
    Labels,
    Pods,
    PodSettings,
    merged_pods,
)
from selfimprove_pipeline.contract.recipe.evaluation import SUITE_KINDS, Evaluation, Judge, Suite
from selfimprove_pipeline.contract.recipe.gates import Gates
from selfimprove_pipeline.contract.recipe.profiles import PROFILES, Profile
from selfimprove_pipeline.contract.recipe.sampling import (
    Filters,
    Generation,
    Inference,
    Pairing,
    Translation,
)
from selfimprove_pipeline.contract.recipe.sources import Chat, Languages, Model, Prompts, Storage
from selfimprove_pipeline.contract.recipe.training import Lora, Training

__all__ = [
    "API_VERSION",
    "KIND",
    "LANGUAGE_PATTERN",
    "SUITE_KINDS",
    "Chat",
    "Deadlines",
    "Evaluation",
    "Filters",
    "Gates",
    "Generation",
    "Inference",
    "Judge",
    "Languages",
    "Lora",
    "Metadata",
    "Model",
    "Pairing",
    "PodSettings",
    "Pods",
    "Profile",
    "Prompts",
    "Retries",
    "Run",
    "Scheduling",
    "Spec",
    "Stage",
    "Storage",
    "Suite",
    "Training",
    "Translation",
    "TtlSecondsAfterFinished",
    "fields",
    "fields_of",
    "merged_pods",
    "part_of",
    "resolve",
    "stages_of",
]

API_VERSION = "selfimprove.dev/v1alpha1"
KIND = "SelfImproveRun"


class Metadata(Part):
    """The Kubernetes metadata that the pipeline reads."""

    name: Annotated[str, StringConstraints(max_length=40, pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")]
    """name of the run: a DNS label of at most 40 characters that starts with a letter."""

    namespace: (
        Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
        | None
    ) = None
    """namespace of the run on a cluster. Default on one machine: `local`."""

    labels: Labels = Field(default_factory=dict)
    """labels are passed on unchanged."""

    annotations: Annotations = Field(default_factory=dict)
    """annotations are passed on unchanged."""


class Spec(Part):
    """The recipe: model, prompts, languages, iterations, and the settings of every stage."""

    model: Model
    """model is the model that the run starts from (M0)."""

    languages: Languages
    """languages are the dominant language and the languages to improve."""

    prompts: Prompts
    """prompts are the training prompts, parallel in all languages."""

    iterations: Annotated[int, Field(ge=1, le=100)] = 2
    """iterations is the number of training iterations; the last model is M(iterations). After the
    start it can only grow. Default: 2."""

    profile: Profile = "lidr-safe"
    """profile supplies values for fields that are left open: `lidr-paper` as published, `lidr-safe`
    with retries, filters and gates. Default: lidr-safe."""

    chat: Chat = Field(default_factory=Chat)
    """chat sets the system prompt and the template that turns messages into tokens."""

    generation: Generation = Field(default_factory=Generation)
    """generation controls how the model answers the prompts: sampling, length and seed."""

    translation: Translation = Field(default_factory=Translation)
    """translation controls how answers are translated between the dominant and the other
    languages."""

    inference: Inference = Field(default_factory=Inference)
    """inference configures the engine that generates, translates and evaluates."""

    pairing: Pairing = Field(default_factory=Pairing)
    """pairing controls how answers and translations become preference pairs."""

    training: Training = Field(default_factory=Training)
    """training controls how the pairs train the next model: DPO with an NLL term."""

    evaluation: Evaluation = Field(default_factory=Evaluation)
    """evaluation lists the suites, baselines and judge that measure every model."""

    gates: Gates = Field(default_factory=Gates)
    """gates leave out languages with unreliable pairs, and end the run when a model gets worse."""

    storage: Storage
    """storage is the bucket for all artifacts."""

    suspend: bool = False
    """suspend ends the run's pods and starts none until it is false again. Default: false."""

    pods: Pods = Field(default_factory=Pods)
    """pods sets image, resources and placement of the run's pods. Changes apply from the next
    launch."""

    stage_pods: Literal["Fused", "Separate"] = "Fused"
    """stagePods is `Fused` if neighbouring stages share a pod and an engine, `Separate` if each has
    its own. Default: Fused."""

    scheduling: Scheduling = Field(default_factory=Scheduling)
    """scheduling sets the Kueue queue and priority of the pods."""

    deadlines: Deadlines = Field(default_factory=Deadlines)
    """deadlines are time limits after which the run fails."""

    retries: Retries = Field(default_factory=Retries)
    """retries limits how often failed or interrupted work is launched again."""

    ttl_seconds_after_finished: TtlSecondsAfterFinished = Field(
        default_factory=TtlSecondsAfterFinished
    )
    """ttlSecondsAfterFinished deletes the finished run automatically."""

    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """deletionPolicy decides about the artifacts of a deleted run: `Retain` keeps them, `Delete`
    deletes those that no other run in the bucket uses. Default: Retain."""

    managed_by: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = None
    """managedBy names the controller responsible for this run. It cannot be changed. Default:
    selfimprove.dev/operator."""


class Run(Part):
    """A run: a model is trained on pairs of its own answers to improve in the run's languages."""

    api_version: Literal["selfimprove.dev/v1alpha1"]
    """apiVersion is the version of this API."""

    kind: Literal["SelfImproveRun"]
    """kind is the type of this resource."""

    metadata: Metadata
    """metadata is the run's name, namespace, labels and annotations."""

    spec: Spec
    """spec is the recipe of the run."""


def resolve(run: Run) -> Run:
    """Return the run with every field that the file leaves open filled from its profile."""
    given = run.model_dump(mode="json", by_alias=True, exclude_unset=True)
    given["spec"] = _merged(PROFILES[run.spec.profile], given["spec"])
    return Run.model_validate_json(json.dumps(given))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return base with over's values on top, maps merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(inner, value)
        else:
            merged[key] = value
    return merged


def fields(part: type[Part] = Spec, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every leaf of a part as its dotted camelCase path and its declaration.

    Lists of parts, such as suites, are leaves.
    """
    for info in part.model_fields.values():
        path = f"{prefix}{info.alias}"
        inner = part_of(info)
        if inner is None:
            yield path, info
        else:
            yield from fields(inner, f"{path}.")


def part_of(info: FieldInfo) -> type[Part] | None:
    """Return the part that a field holds, optional or not, else None."""
    is_optional = get_origin(info.annotation) in (Union, UnionType)
    candidates = get_args(info.annotation) if is_optional else (info.annotation,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, Part):
            return candidate
    return None


def stages_of(info: FieldInfo) -> tuple[Stage, ...]:
    """Return the stages whose output depends on a field."""
    return tuple(stage for mark in _marks(info) for stage in mark.stages)


def _marks(info: FieldInfo) -> list[Affects]:
    return [mark for mark in info.metadata if isinstance(mark, Affects)]


def fields_of(part: Part, stage: Stage) -> dict[str, Any]:
    """Return the resolved values of a part that a stage's output depends on, by dotted path.

    Those are left out at which a field is in no key (`Affects.unless`).
    """
    values = part.model_dump(mode="json", by_alias=True)
    return {
        path: value
        for path, info in fields(type(part))
        if stage in stages_of(info)
        and (value := _value_at(values, path)) not in [v for m in _marks(info) for v in m.unless]
    }


def _value_at(values: Any, path: str) -> Any:
    """Return the value at a dotted path, None where a part on the way is unset."""
    for key in path.split("."):
        if values is None:
            return None
        values = values[key]
    return values
