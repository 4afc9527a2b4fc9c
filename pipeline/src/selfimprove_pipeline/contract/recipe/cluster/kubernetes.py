"""Kubernetes' own types in the recipe: plain JSON, judged as the API server judges it.

`kubernetes.json` is a pinned extract of the API server's OpenAPI (`crds/extract.py` makes it).
A field's validator and its schema in the CRD both come from it.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class OfKubernetes:
    """The mark of a value that has a type of Kubernetes."""

    name: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the validator of the type instead of that of any map."""
        return _validator(_extract()[self.name])

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the type's schema as the CRD holds it."""
        return dict(_extract()[self.name])


def of_kubernetes(name: str) -> OfKubernetes:
    """Return the mark for a map that has a type of Kubernetes, such as `Toleration`."""
    return OfKubernetes(name)


@cache
def _extract() -> dict[str, Any]:
    source = files("selfimprove_pipeline.contract.recipe.cluster") / "kubernetes.json"
    return cast("dict[str, Any]", json.loads(source.read_text()))


def _validator(schema: dict[str, Any]) -> CoreSchema:
    """Return the validator of a structural schema; nothing is coerced."""
    if schema.get("x-kubernetes-int-or-string"):
        return _quantity(schema)
    match schema["type"]:
        case "object" if "properties" in schema:
            return _object(schema)
        case "object":
            return core_schema.dict_schema(
                core_schema.str_schema(),
                _validator(schema["additionalProperties"]),
                max_length=schema["maxProperties"],
                strict=True,
            )
        case "array":
            return core_schema.list_schema(
                _validator(schema["items"]), max_length=schema["maxItems"], strict=True
            )
        case "string" if "enum" in schema:
            return core_schema.literal_schema(schema["enum"])
        case "string":
            return core_schema.str_schema(max_length=schema["maxLength"], strict=True)
        case "integer":
            return core_schema.int_schema(ge=schema["minimum"], le=schema["maximum"], strict=True)
    return core_schema.bool_schema(strict=True)


def _object(schema: dict[str, Any]) -> CoreSchema:
    needed = schema.get("required", ())
    fields = {
        name: core_schema.typed_dict_field(_validator(inner), required=name in needed)
        for name, inner in schema["properties"].items()
    }
    return core_schema.typed_dict_schema(fields, extra_behavior="forbid", strict=True)


def _quantity(schema: dict[str, Any]) -> CoreSchema:
    text = core_schema.str_schema(
        pattern=schema["pattern"], max_length=schema["maxLength"], strict=True
    )
    return core_schema.union_schema(
        [core_schema.int_schema(strict=True), text],
        custom_error_type="quantity",
        custom_error_message="Input should be a whole number or text such as 500m or 16Gi",
    )
