"""The operator's settings: a YAML file that the chart writes, read once at the start."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Pods
from selfimprove_pipeline.contract.recipe.base import Name, Part
from selfimprove_pipeline.contract.recipe.sources import CaRef

Engine = Literal["vllm", "transformers"]


class StorageDefaults(Part):
    """Defaults for what a run's `storage` leaves out."""

    endpoint: (
        Annotated[str, StringConstraints(max_length=512, pattern=r"^https?://[^/\s@]+/?$")] | None
    ) = None
    """endpoint of the S3 server."""

    region: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """region of the buckets."""

    ca_ref: CaRef | None = None
    """caRef is the ConfigMap, in each run's namespace, with the CA that signed the endpoint's
    certificate."""


class NetworkPolicySettings(Part):
    """The NetworkPolicy that each run gets."""

    enabled: bool = False
    """enabled creates one for every run."""

    egress: Annotated[tuple[dict[str, Any], ...], Field(max_length=64)] = ()
    """egress rules in addition to DNS, HTTPS, the store, the translator and the run's own pods."""


class Settings(Part):
    """The whole settings file."""

    engine: Engine = "vllm"
    """engine of the inference pods."""

    storage: StorageDefaults = Field(default_factory=StorageDefaults)
    """storage has the defaults for each run's `storage`."""

    pods: Pods
    """pods has the defaults by role; each role needs an image."""

    watch_namespaces: Annotated[tuple[Name, ...], Field(max_length=1024)] = ()
    """watchNamespaces are the namespaces to watch for runs. Empty means all."""

    network_policy: NetworkPolicySettings = Field(default_factory=NetworkPolicySettings)
    """networkPolicy of each run."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """logLevel of the operator's own log."""

    @model_validator(mode="after")
    def _each_role_has_an_image(self) -> Self:
        for role in ("inference", "training", "light"):
            if not getattr(self.pods, role).image:
                message = f"pods.{role}.image is missing; set it"
                raise ValueError(message)
        return self


def load(path: Path) -> Settings:
    """Read and check a settings file.

    Raises InputError with the first mistake, on one line.
    """
    try:
        value = yaml.safe_load(path.read_bytes())
    except OSError as error:
        message = f"{path}: cannot read the settings file ({error.strerror})"
        raise InputError(message) from error
    except yaml.YAMLError as error:
        message = f"{path}: not valid YAML: {' '.join(str(error).split())}"
        raise InputError(message) from error
    try:
        return Settings.model_validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        message = f"{path}: {_line(error)}"
        raise InputError(message) from error


def _line(error: ValidationError) -> str:
    """Describe the first mistake: the field, what was expected and what was found."""
    detail = error.errors(include_url=False)[0]
    path = ".".join(str(key) for key in detail["loc"])
    value = json.dumps(detail["input"], ensure_ascii=False, default=str)[:80]
    wanted = detail["msg"].removeprefix("Input should ").removeprefix("be ")
    match detail["type"]:
        case "missing":
            message = "expected a value, found none; add it"
        case "extra_forbidden":
            message = "expected a known field; remove this one"
        case "string_pattern_mismatch":
            message = f"{value} does not have the form of this field; see `helm show values`"
        case "value_error":
            message = " ".join(detail["msg"].removeprefix("Value error, ").split())
        case _:
            message = f"expected {wanted[:1].lower()}{wanted[1:]}, found {value}"
    return ": ".join(filter(None, (path, message)))
