"""The recipe's JSON schema read as Kubernetes reads one, for the CRD and for `validation`."""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def resolved(given: Schema, parts: Mapping[str, Schema]) -> Schema:
    """Return a schema without reference, and without the null of an optional field."""
    if reference := given.get("$ref"):
        named = parts[str(reference).removeprefix("#/$defs/")]
        return {**named, **{key: given[key] for key in given if key != "$ref"}}
    members = [member for member in given.get("anyOf", ()) if member.get("type") != "null"]
    if len(members) == 1:
        outside = {key: given[key] for key in given if key not in {"anyOf", "default"}}
        return {**resolved(members[0], parts), **outside}
    return given


def map_of(schema: Schema) -> tuple[str, Schema] | None:
    """Return the pattern of a map's keys, empty when there is none, and its values' schema."""
    for pattern, values in schema.get("patternProperties", {}).items():
        return pattern, values
    values = schema.get("additionalProperties")
    return ("", values) if values else None


def without_nulls(value: Any, given: Schema, parts: Mapping[str, Schema]) -> Any:
    """Return a value without the nulls of known fields: the API server takes those for unset.

    In a list, or with a field that is not known, a null stays, for it is a mistake there.
    """
    schema = resolved(given, parts)
    if isinstance(value, list):
        return [without_nulls(item, schema.get("items", {}), parts) for item in value]
    if not isinstance(value, dict):
        return value
    known, pairs = schema.get("properties", {}), map_of(schema)
    inside = {key: known.get(key, pairs[1] if pairs else None) for key in value}
    return {
        key: without_nulls(inner, inside[key] or {}, parts)
        for key, inner in value.items()
        if inner is not None or inside[key] is None
    }
