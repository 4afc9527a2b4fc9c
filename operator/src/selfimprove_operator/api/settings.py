"""What the chart tells the operator's process: one YAML file, read once when it starts."""

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
    """What a run's `storage` leaves open."""

    endpoint: (
        Annotated[str, StringConstraints(max_length=512, pattern=r"^https?://[^/\s@]+/?$")] | None
    ) = None
    """endpoint of the S3 server."""

    region: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """region of the buckets."""

    ca_ref: CaRef | None = None
    """caRef is the authority of the endpoint's certificate, a ConfigMap in each run's namespace."""


class NetworkPolicySettings(Part):
    """The NetworkPolicy that each run gets."""

    enabled: bool = False
    """enabled makes one for every run."""

    egress: Annotated[tuple[dict[str, Any], ...], Field(max_length=64)] = ()
    """egress rules beside those for DNS, HTTPS, the store, the translator and the run itself."""


class Settings(Part):
    """The whole file."""

    engine: Engine = "vllm"
    """engine of the inference pods."""

    storage: StorageDefaults = Field(default_factory=StorageDefaults)
    """storage defaults."""

    pods: Pods
    """pods by role, each with an image."""

    watch_namespaces: Annotated[tuple[Name, ...], Field(max_length=1024)] = ()
    """watchNamespaces are the namespaces with runs. Empty means all."""

    network_policy: NetworkPolicySettings = Field(default_factory=NetworkPolicySettings)
    """networkPolicy of the runs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """logLevel of the operator's own log."""

    @model_validator(mode="after")
    def _each_role_has_an_image(self) -> Self:
        for role in ("inference", "training", "light"):
            if not getattr(self.pods, role).image:
                message = f"expected pods.{role}.image, found none"
                raise ValueError(message)
        return self


def load(path: Path) -> Settings:
    """Return the settings of a file; InputError names the first mistake in one line."""
    try:
        value = yaml.safe_load(path.read_bytes())
    except OSError as error:
        message = f"{path}: expected the settings, found no file to read ({error.strerror})"
        raise InputError(message) from error
    except yaml.YAMLError as error:
        message = f"{path}: expected YAML, found {' '.join(str(error).split())}"
        raise InputError(message) from error
    try:
        return Settings.model_validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        message = f"{path}: {_line(error)}"
        raise InputError(message) from error


def _line(error: ValidationError) -> str:
    """Return the first mistake: its place, what was expected and what was found."""
    detail = error.errors(include_url=False)[0]
    place = ".".join(str(key) for key in detail["loc"])
    found = json.dumps(detail["input"], ensure_ascii=False, default=str)[:80]
    wanted = detail["msg"].removeprefix("Input should ").removeprefix("be ")
    match detail["type"]:
        case "missing":
            message = "expected a value, found none; add it"
        case "extra_forbidden":
            message = "expected a known field; remove this one"
        case "value_error":
            message = " ".join(detail["msg"].removeprefix("Value error, ").split())
        case _:
            message = f"expected {wanted[:1].lower()}{wanted[1:]}, found {found}"
    return ": ".join(filter(None, (place, message)))
