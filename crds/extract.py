"""Makes the pinned extract of Kubernetes' own types that a recipe may hold.

`kubectl get --raw /openapi/v3/api/v1 | python crds/extract.py` writes
`recipe/cluster/kubernetes.json`: references inlined, no descriptions, every string, list and map
bounded. The recipe judges by it and the CRD holds it, so that both say the same.
"""  # noqa: INP001  a script, not a package

import json
import sys
from pathlib import Path
from typing import Any, Final

TARGET: Final = (
    Path(__file__).resolve().parents[1]
    / "pipeline/src/selfimprove_pipeline/contract/recipe/cluster/kubernetes.json"
)
CORE: Final = "io.k8s.api.core.v1."
TYPES: Final = (
    "Affinity",
    "EnvFromSource",
    "EnvVar",
    "LocalObjectReference",
    "ResourceRequirements",
    "Toleration",
    "Volume",
    "VolumeMount",
)
KEPT: Final[dict[str, set[str]]] = {
    "Volume": {
        "name",
        "configMap",
        "secret",
        "persistentVolumeClaim",
        "emptyDir",
        "ephemeral",
        "csi",
        "image",
    },
    "ObjectMeta": {"labels", "annotations"},  # of a claim's template; Kubernetes takes no others
    "ResourceRequirements": {"limits", "requests"},
    "EnvVarSource": {"configMapKeyRef", "fieldRef", "resourceFieldRef", "secretKeyRef"},
}
"""Properties of the types of which not all are kept."""

NEEDED: Final = {"LocalObjectReference": ["name"]}
"""Properties that Kubernetes leaves open for old clients and that are useless when unset."""

LIST_MAPS: Final = ("x-kubernetes-list-type", "x-kubernetes-list-map-keys")
SHORT, TEXT, ITEMS = 1024, 32_768, 64
LONG_TEXTS: Final = {("EnvVar", "value")}
INTEGERS: Final = {"int32": 2**31 - 1, "int64": 2**53 - 1}
QUANTITY: Final = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "maxLength": 32,
    "pattern": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
}


def main() -> None:
    """Read the API server's OpenAPI from the standard input and write the extract."""
    schemas = json.load(sys.stdin)["components"]["schemas"]
    extract = {name: _type(CORE + name, schemas) for name in TYPES}
    TARGET.write_text(json.dumps(extract, indent=1, sort_keys=True) + "\n")


def _type(name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a named type with everything that it refers to inside it."""
    if name.endswith(".Quantity"):
        return dict(QUANTITY)
    short, given = name.rpartition(".")[2], schemas[name]
    kept = KEPT.get(short, given["properties"].keys())
    properties = {
        key: _bounded(_inlined(value, schemas), is_long=(short, key) in LONG_TEXTS)
        for key, value in given["properties"].items()
        if key in kept
    }
    made: dict[str, Any] = {"type": "object", "properties": properties}
    if required := [*given.get("required", []), *NEEDED.get(short, [])]:
        made["required"] = required
    if map_type := given.get("x-kubernetes-map-type"):
        made["x-kubernetes-map-type"] = map_type
    return made


def _inlined(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a property's schema without references."""
    (reference,) = schema.get("allOf", [schema])
    if "$ref" in reference:
        return _type(reference["$ref"].rpartition("/")[2], schemas)
    made: dict[str, Any] = {
        key: schema[key] for key in ("type", "format", "enum", *LIST_MAPS) if key in schema
    }
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            made[inner] = _bounded(_inlined(schema[inner], schemas))
    return made


def _bounded(schema: dict[str, Any], *, is_long: bool = False) -> dict[str, Any]:
    """Return a schema with a bound on what it holds."""
    match schema.get("type"):
        case "string" if "enum" not in schema:
            return {**schema, "maxLength": TEXT if is_long else SHORT}
        case "integer":
            bound = INTEGERS[schema["format"]]
            return {**schema, "minimum": -bound, "maximum": bound}
        case "array":
            return {**schema, "maxItems": ITEMS}
        case "object" if "additionalProperties" in schema:
            return {**schema, "maxProperties": ITEMS}
    return schema


if __name__ == "__main__":
    main()
