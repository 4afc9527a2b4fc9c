"""What every part of the recipe shares: strict frozen models and the stages a field affects.

A field says with `Affects` which stages' outputs depend on its value. Stage keys are made
from exactly these fields (`keys.key`), and one parametrised test holds every field to it.

What pydantic checks here, the API server checks by the CRD that is made from these types. So
patterns hold no character class that Rust and Go read differently, and a `Rule` holds its
condition in CEL and in Python.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import override

Stage = Literal[
    "generate", "translate", "pair", "score", "reference", "train", "evaluate", "gate", "judge"
]


@dataclass(frozen=True)
class Affects:
    """The stages whose output depends on the field that carries this mark."""

    stages: tuple[Stage, ...]
    unless: tuple[Any, ...] = ()
    """unless the field has one of these values: then it is in no key."""


def affects(*stages: Stage, unless: tuple[Any, ...] = ()) -> Affects:
    """Return the mark for a field, which stands beside its type in Annotated.

    A field that is newer than artifacts in people's buckets names in `unless` the value at which
    everything is as before it existed. Otherwise it changes the key of each of them, and all are
    computed again.
    """
    return Affects(stages, unless)


@dataclass(frozen=True)
class Rule:
    """A rule over several fields: one message, for the API server and for this machine."""

    cel: str
    """cel is the condition as the API server reads it."""
    message: str
    broken: Callable[[Any], str | None]
    """broken returns what was found if the condition fails, "" if the message says it already;
    None if the condition holds."""

    def mistake(self, value: Any) -> str | None:
        """Return the message with what was found, None if the condition holds."""
        found = self.broken(value)
        if found is None:
            return None
        return f"{self.message}, found {found}" if found else self.message

    def schema(self) -> dict[str, str]:
        """Return the rule as the CRD holds it."""
        return {"rule": self.cel, "message": self.message}


def repeated(names: Sequence[str]) -> str | None:
    """Return the names if one of them is there twice, for a rule that forbids it."""
    return ", ".join(names) if len(set(names)) < len(names) else None


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

    rules: ClassVar[tuple[Rule, ...]] = ()
    """rules over several fields of the part."""

    @model_validator(mode="after")
    def _obeys_its_rules(self) -> Self:
        for rule in self.rules:
            if mistake := rule.mistake(self):
                raise ValueError(mistake)
        return self

    @classmethod
    @override
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        """Return the part's schema with its rules."""
        schema = handler(core_schema)
        if cls.rules:
            rules = [rule.schema() for rule in cls.rules]
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = rules
        return schema


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

LABEL_KEY_PATTERN: Final = (
    r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
)
LabelKey = Annotated[str, StringConstraints(max_length=317, pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[
    str, StringConstraints(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$")
]

NOT_A_FILE: Final = Rule(
    "!self.startsWith('file://')",
    "expected a URI that every node reaches (s3://, for models also hf:// and pvc://)",
    lambda uri: uri if uri.startswith("file://") else None,
)
ObjectUri = Annotated[
    str,
    StringConstraints(
        max_length=1024, pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/|file:///).+$"
    ),
    Field(json_schema_extra={"x-kubernetes-validations": [NOT_A_FILE.schema()]}),
]
"""`s3://BUCKET/PREFIX`, or on one machine alone `file:///FOLDER`."""


class SecretRef(Part):
    """A Secret in the run's namespace."""

    name: Name
    """name of the Secret. Ignored on one machine: set environment variables there."""


FRACTION: Final = re.compile(r"-?[0-9]+(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)")
MAX_ARGUMENT: Final = 4096


def _argument(value: Any) -> bool | int | float | str:
    """Return an argument; text that is a boolean or a fraction is read as one."""
    match value:
        case "true" | "false":
            return bool(value == "true")
        case str() if FRACTION.fullmatch(value) and math.isfinite(float(value)):
            return float(value)
        case str() if len(value) <= MAX_ARGUMENT:
            return value
        case bool():
            return value
        case int() if abs(value) < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
    found = f"{len(value)} characters" if isinstance(value, str) else json.dumps(value)[:80]
    msg = f"expected a number, a boolean or at most {MAX_ARGUMENT} characters, found {found}"
    raise ValueError(msg)


Argument = Annotated[
    bool | int | float | str,
    PlainValidator(_argument),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": MAX_ARGUMENT,
        }
    ),
]
"""A value for a program's argument. A CRD has no type for it: on a cluster booleans and fractions
are written as text, `"false"` and `"0.5"`, which is read the same everywhere."""
