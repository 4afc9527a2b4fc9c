"""The CustomResourceDefinition of `SelfImproveRun`, generated from the types of recipe and status.

pydantic generates the JSON schema. This module makes it structural, as Kubernetes requires, and
adds the rules for updates, which only the API server can check because it has the old object.
The descriptions are the docstrings. `python -m selfimprove_operator.api.crd` writes the files in
the repository; a test fails if they are stale.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from typing_extensions import override

from selfimprove_operator.api.status import GROUP, KIND, PLURAL, VERSION, Status
from selfimprove_pipeline.contract.recipe import Metadata, Run, Spec
from selfimprove_pipeline.contract.recipe.base import Part
from selfimprove_pipeline.contract.recipe.changing import MUTABLE
from selfimprove_pipeline.contract.recipe.schema import Schema, map_of, resolved

ROOT: Final = Path(__file__).resolve().parents[4]
TARGET: Final = ROOT / "crds" / f"{GROUP}_{PLURAL}.yaml"
CHART_TARGET: Final = ROOT / "charts" / "selfimprove" / "files" / "crd.yaml"
HEADER: Final = "# Made from the types of the recipe and the status by `make crds`.\n"

KEPT: Final = (
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
)
"""Keywords of JSON schema that a structural schema may have too."""

SUCCEEDED: Final = '.status.conditions[?(@.type=="Succeeded")].status'
COLUMNS: Final[tuple[Schema, ...]] = (
    {"name": "Iteration", "type": "integer", "jsonPath": ".status.iteration"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.stage"},
    {"name": "Progress", "type": "string", "jsonPath": ".status.progress"},
    {"name": "Succeeded", "type": "string", "jsonPath": SUCCEEDED},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Pairs Kept", "type": "integer", "jsonPath": ".status.pairsKept", "priority": 1},
    {"name": "Last Gain", "type": "string", "jsonPath": ".status.lastGain", "priority": 1},
    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
)
"""Columns of `kubectl get`; those of priority 1 only with `-o wide`."""


def definition() -> Schema:
    """Return the whole CustomResourceDefinition."""
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["sir"],
        "categories": ["selfimprove"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": list(COLUMNS),
        "schema": {"openAPIV3Schema": resource()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def resource() -> Schema:
    """Return the schema of a run."""
    name = structural(Metadata)["properties"]["name"]
    return {
        "type": "object",
        "description": _text(Run.__doc__),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": {**structural(Spec), "description": _text(Spec.__doc__)},
            "status": {**_undefaulted(structural(Status)), "description": _text(Status.__doc__)},
        },
        "x-kubernetes-validations": list(_transitions()),
    }


def _transitions() -> Iterator[Schema]:
    """Yield the rules for updates: before the start, after it and after the outcome."""
    for info in Spec.model_fields.values():
        field = str(info.alias)
        if field == "managedBy":
            yield _rule(field, _equal(field), "managedBy cannot be changed")
        elif field not in MUTABLE:
            rule = f"!({_has_old('startTime')}) || ({_equal(field)})"
            yield _rule(field, rule, f"{field} cannot be changed after the start")
    grows = "self.spec.iterations >= oldSelf.spec.iterations"
    yield _rule(
        "iterations",
        f"!({_has_old('startTime')}) || {_has_old('completionTime')} || {grows}",
        "iterations can only grow",
    )
    yield _rule(
        "iterations",
        f"!({_has_old('completionTime')}) || {_equal('iterations')}",
        "the run has ended; apply it under a new name, finished stages are reused",
    )


def _rule(field: str, rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message, "fieldPath": f".spec.{field}"}


def _has_old(time: str) -> str:
    return f"has(oldSelf.status) && has(oldSelf.status.{time})"


def _equal(field: str) -> str:
    # The shorter form with optional types is refused for its estimated cost.
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


def structural(part: type[Part]) -> Schema:
    """Return the structural schema of a type: no references, no unions with null."""
    schema = part.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def _structural(given: Schema, parts: Mapping[str, Schema]) -> Schema:
    schema = resolved(given, parts)
    result: Schema = {key: copy.deepcopy(schema[key]) for key in KEPT if key in schema}
    if "const" in schema:  # structural schemas have no `const`
        result["enum"] = [schema["const"]]
    if description := schema.get("description"):
        result["description"] = _text(description)
    for bound in ("Minimum", "Maximum"):  # OpenAPI 3.0 has the limit and a flag, not a number
        if (limit := schema.get(f"exclusive{bound}")) is not None:
            result |= {bound.lower(): limit, f"exclusive{bound}": True}
    if result.get("x-kubernetes-int-or-string"):
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "items" in schema:
        result["items"] = _structural(schema["items"], parts)
        result.setdefault("x-kubernetes-list-type", "atomic")
    if "properties" in schema:
        result["properties"] = {
            name: _property(inner, parts, is_required=name in schema.get("required", ()))
            for name, inner in schema["properties"].items()
        }
    elif pairs := map_of(schema):
        result |= _map(schema.get("propertyNames", {}), *pairs, parts)
    return result


def _property(given: Schema, parts: Mapping[str, Schema], *, is_required: bool) -> Schema:
    """Return a property's schema with its default.

    An object gets the default `{}` if a field in it has a default, because the API server fills in
    nothing below an absent parent. Fields that a profile sets have no default here: the API server
    would fill them in before the profile is applied.
    """
    result = _structural(given, parts)
    if (default := given.get("default")) is not None:
        result["default"] = default
    elif not is_required and "$ref" in given:
        fields = result["properties"].values()
        result |= {"default": {}} if any("default" in field for field in fields) else {}
    return result


def _map(keys: Schema, pattern: str, values: Schema, parts: Mapping[str, Schema]) -> Schema:
    """Return the schema of a map's values, and a rule for its keys, which OpenAPI cannot limit."""
    rules = [f"size(key) >= {keys['minLength']}"] if "minLength" in keys else []
    rules += [f"size(key) <= {keys['maxLength']}"] if "maxLength" in keys else []
    rules += [f"key.matches('{pattern}')"] if pattern else []
    result: Schema = {"additionalProperties": _structural(values, parts)}
    if rules:
        rule = f"self.all(key, {' && '.join(rules)})"
        message = f"expected keys of the form {pattern}" if pattern else "expected shorter keys"
        result["x-kubernetes-validations"] = [{"rule": rule, "message": message}]
    return result


def _undefaulted(schema: Any) -> Any:
    """Remove all defaults from the schema: the operator writes the whole status itself."""
    if isinstance(schema, dict):
        return {key: _undefaulted(value) for key, value in schema.items() if key != "default"}
    return schema


def _text(docstring: str | None) -> str:
    return re.sub(r"\s+", " ", docstring or "").strip()


class _Dumper(yaml.SafeDumper):
    """Writes no YAML anchors, which not every API tool resolves."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        """Write every value in full."""
        return True


def text() -> str:
    """Return the content of the CRD's file; the same types always give the same bytes."""
    # A description folded at 100 columns repeats its deep indentation, 4 KB in all.
    return HEADER + yaml.dump(definition(), Dumper=_Dumper, sort_keys=False, width=10_000)


def main() -> None:
    """Write the repository's file, and the chart's copy if there is a chart."""
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text())
    if CHART_TARGET.parents[1].is_dir():
        CHART_TARGET.parent.mkdir(exist_ok=True)
        CHART_TARGET.write_text(text())


if __name__ == "__main__":
    main()
