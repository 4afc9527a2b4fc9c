"""What every part of the recipe shares: strict frozen models and the stages a field affects.

A field says with `Affects` which stages' outputs depend on its value. Stage keys are made
from exactly these fields (`stages.key`), and one parametrised test holds every field to it.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Stage = Literal["generate", "translate", "pair", "score", "reference", "train", "evaluate"]


@dataclass(frozen=True)
class Affects:
    """The stages whose output depends on the field that carries this mark."""

    stages: tuple[Stage, ...]


def affects(*stages: Stage) -> Affects:
    """Return the mark for a field, which stands beside its type in Annotated."""
    return Affects(stages)


class Part(BaseModel):
    """A part of the spec: frozen, camelCase outside, unknown fields refused, nothing coerced."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def by_profile(**constraints: Any) -> Any:
    """Declare a field that has no schema default: `recipe.resolve` fills it from the profile.

    Its annotation is the type it has after `resolve`; before that it may be None.
    """
    return Field(default=None, **constraints)


Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=253)]
LANGUAGE_PATTERN: Final = r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?$"
Language = Annotated[str, StringConstraints(max_length=35, pattern=LANGUAGE_PATTERN)]
"""A BCP-47 tag in its canonical case: `de`, `pt-BR`, `zh-Hant`."""

ObjectUri = Annotated[
    str,
    StringConstraints(
        max_length=1024, pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/|file:///).+$"
    ),
]
"""`s3://BUCKET/PREFIX`, or on one machine alone `file:///FOLDER`."""


class SecretRef(Part):
    """A Secret in the namespace of the run."""

    name: Name
    """name of the Secret. On one machine it is ignored: credentials come from AWS_* variables."""
