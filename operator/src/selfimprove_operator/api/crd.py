"""The CustomResourceDefinition of `SelfImproveRun`, made from the types of recipe and status.

pydantic gives the JSON schema; this module makes it structural, as Kubernetes wants it, and
adds what only the API server can know: what may change after the start. The descriptions are
the docstrings. `python -m selfimprove_operator.api.crd` writes the files that are in the
repository; a test fails when they are stale.
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
"""What a structural schema takes over from JSON schema as it is."""

COLUMNS: Final[tuple[tuple[str, str, str, int], ...]] = (
    ("Iteration", "integer", ".status.iteration", 0),
    ("Stage", "string", ".status.stage", 0),
    ("Progress", "string", ".status.progress", 0),
    ("Succeeded", "string", '.status.conditions[?(@.type=="Succeeded")].status', 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Pairs Kept", "integer", ".status.pairsKept", 1),
    ("Last Gain", "string", ".status.lastGain", 1),
    ("Message", "string", ".status.message", 1),
)


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
        "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
        "schema": {"openAPIV3Schema": resource()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _column(name: str, kind: str, path: str, priority: int) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    return {**column, "priority": priority} if priority else column


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
    """Yield the rules on what may change, each naming its field."""
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
        "the run is decided; apply it under a new name, finished stages are reused",
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
    """Return the structural schema of a part: no references, no unions with null."""
    schema = part.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def _structural(given: Schema, parts: Mapping[str, Schema]) -> Schema:
    schema = resolved(given, parts)
    made: Schema = {key: copy.deepcopy(schema[key]) for key in KEPT if key in schema}
    if "const" in schema:  # a choice of one, which a structural schema knows as a list alone
        made["enum"] = [schema["const"]]
    if description := schema.get("description"):
        made["description"] = _text(description)
    for bound in ("Minimum", "Maximum"):
        if (limit := schema.get(f"exclusive{bound}")) is not None:
            made |= {bound.lower(): limit, f"exclusive{bound}": True}
    if made.get("x-kubernetes-int-or-string"):
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "items" in schema:
        made["items"] = _structural(schema["items"], parts)
        made.setdefault("x-kubernetes-list-type", "atomic")
    if "properties" in schema:
        made["properties"] = {
            name: _property(inner, parts, is_required=name in schema.get("required", ()))
            for name, inner in schema["properties"].items()
        }
    elif pairs := map_of(schema):
        made |= _map(schema.get("propertyNames", {}), *pairs, parts)
    return made


def _property(given: Schema, parts: Mapping[str, Schema], *, is_required: bool) -> Schema:
    """Return a property's schema with its default.

    A part gets `{}` where something in it has a default: the API server fills in nothing below
    a parent that is absent. What a profile sets has none, it would be filled before the profile.
    """
    made = _structural(given, parts)
    if (default := given.get("default")) is not None:
        made["default"] = default
    elif not is_required and "$ref" in given and _has_default(made):
        made["default"] = {}
    return made


def _has_default(schema: Schema) -> bool:
    return any("default" in inner for inner in schema["properties"].values())


def _map(keys: Schema, pattern: str, values: Schema, parts: Mapping[str, Schema]) -> Schema:
    """Return the values of a map, with a rule for its keys."""
    rules = [f"size(key) >= {keys['minLength']}"] if "minLength" in keys else []
    rules += [f"size(key) <= {keys['maxLength']}"] if "maxLength" in keys else []
    rules += [f"key.matches('{pattern}')"] if pattern else []
    made: Schema = {"additionalProperties": _structural(values, parts)}
    if rules:
        rule = f"self.all(key, {' && '.join(rules)})"
        message = f"expected keys of the form {pattern}" if pattern else "expected shorter keys"
        made["x-kubernetes-validations"] = [{"rule": rule, "message": message}]
    return made


def _undefaulted(schema: Any) -> Any:
    """Return a schema without defaults: the operator writes the whole status."""
    if isinstance(schema, dict):
        return {key: _undefaulted(value) for key, value in schema.items() if key != "default"}
    return schema


def _text(docstring: str | None) -> str:
    return re.sub(r"\s+", " ", docstring or "").strip()


class _Dumper(yaml.SafeDumper):
    """Writes no anchors: API tools read each schema where it stands."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        """Return that nothing is written as an alias."""
        return True


def text() -> str:
    """Return the file's content, always the same for the same types."""
    # A description folded at 100 columns repeats its deep indentation, 4 KB in all.
    return HEADER + yaml.dump(definition(), Dumper=_Dumper, sort_keys=False, width=10_000)


def main() -> None:
    """Write the repository's file, and the chart's copy where there is a chart."""
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text())
    if CHART_TARGET.parents[1].is_dir():
        CHART_TARGET.parent.mkdir(exist_ok=True)
        CHART_TARGET.write_text(text())


if __name__ == "__main__":
    main()
