"""The CustomResourceDefinition as a text: complete, bounded, portable, never stale."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from selfimprove_operator.api import crd, status
from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.recipe.base import Part
from selfimprove_pipeline.contract.recipe.changing import MUTABLE

Path_ = tuple[str, ...]


def schemas(schema: dict[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Yield every schema inside a schema with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas(inner, (*path, name))
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from schemas(schema[key], (*path, key))


ALL = list(schemas(crd.resource()))
SPEC = [(path, schema) for path, schema in ALL if path[:1] == ("spec",)]


@pytest.mark.parametrize("target", [crd.TARGET, crd.CHART_TARGET], ids=["crds", "chart"])
def test_the_files_are_what_the_types_give(target: Any) -> None:
    """`make crds` has been run since a type or a docstring last changed."""
    assert target.read_text() == crd.text()


def test_the_file_is_small_enough_for_kubectl_apply() -> None:
    """Kubectl keeps a copy as JSON in an annotation, and annotations have 256 KiB together."""
    copy = json.dumps(crd.definition(), separators=(",", ":"))
    assert len(copy.encode()) < 200 * 1024


def test_everything_is_bounded() -> None:
    """No string, list or map can fill the API server's store."""
    bounds = {"string": ("maxLength", "enum"), "array": ("maxItems",), "object": ("maxProperties",)}
    known_to_kubernetes = {("apiVersion",), ("kind",), ("metadata",)}
    unbounded = [
        path
        for path, schema in ALL
        if path not in known_to_kubernetes
        and "properties" not in schema
        and not any(
            bound in schema for bound in bounds.get(schema.get("type", ""), ("type", *KEYS))
        )
    ]
    assert unbounded == []


KEYS = ("x-kubernetes-int-or-string",)


def test_nothing_unknown_is_kept() -> None:
    """Every part of a run has a type; none is left to whoever writes it."""
    assert "preserve-unknown-fields" not in crd.text()
    assert [path for path, schema in ALL if "type" not in schema and KEYS[0] not in schema] == []


def test_patterns_mean_the_same_in_rust_and_go() -> None:
    """Named classes are Unicode in one and ASCII in the other, and Go has no look-around."""
    patterns = {schema["pattern"] for _, schema in ALL if "pattern" in schema}
    portable = {pattern.replace("\\.", "") for pattern in patterns}

    assert [pattern for pattern in portable if "\\" in pattern or "(?" in pattern] == []
    assert [pattern for pattern in portable if pattern[0] != "^" or pattern[-1] != "$"] == []


def parts(part: type[Part]) -> set[type[Part]]:
    """Return every part that a JSON schema of a part has a definition of, itself included."""
    every = {one.__name__: one for one in _all_parts(Part)}
    return {part} | {every[name] for name in part.model_json_schema().get("$defs", {})}


def _all_parts(part: type[Part]) -> Iterator[type[Part]]:
    for one in part.__subclasses__():
        yield one
        yield from _all_parts(one)


@pytest.mark.parametrize("part", sorted(parts(recipe.Spec), key=str), ids=lambda p: p.__name__)
def test_conditions_over_several_fields_are_rules(part: type[Part]) -> None:
    """A validator of a part's own would be unknown to the API server."""
    validators = part.__pydantic_decorators__.model_validators
    assert validators.keys() == Part.__pydantic_decorators__.model_validators.keys()


def test_what_a_profile_sets_has_no_default() -> None:
    """The API server would fill it before the profile could."""
    set_by_profiles = {
        path
        for profile in recipe.profiles.PROFILES.values()
        for path, _ in _leaves(profile, ("spec",))
    }
    found = dict(SPEC)
    assert [path for path in set_by_profiles if "default" in found[path]] == []


UNSET = ("zeroStage", "layout", "gradientCheckpointing", "checkpointSteps")


@pytest.mark.parametrize("profile", recipe.profiles.PROFILES)
def test_each_profile_sets_all_that_has_no_default_and_nothing_else(
    profile: recipe.Profile,
) -> None:
    """A field may be unset by design: its type says so, as that of `training.layout` does."""
    open_ = {path: info for path, info in recipe.fields() if info.default is None}
    unset = {path for path, info in open_.items() if type(None) in get_args(info.annotation)}
    found = {".".join(path) for path, _ in _leaves(recipe.profiles.PROFILES[profile], ())}

    assert found == open_.keys() - unset
    assert {f"training.{name}" for name in UNSET} <= unset


def _leaves(value: Any, path: Path_) -> Iterator[tuple[Path_, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def test_defaults_are_reached() -> None:
    """A default below an optional part counts only when the part itself has one."""
    found = dict(SPEC)
    optional = {
        ("spec", "storage", "caRef"),
        ("spec", "translation", "external"),
        ("spec", "evaluation", "judge"),
    }
    unreached = [
        path
        for path, schema in SPEC
        if "default" in schema
        and len(path) > 2
        and path[:-1] not in optional
        and path[-2] not in found[path[:-2]].get("required", ())
        and "default" not in found[path[:-1]]
    ]
    assert unreached == []


def test_the_status_has_no_defaults() -> None:
    """What the API server filled in there nobody would have observed."""
    assert [p for p, schema in ALL if p[:1] == ("status",) and "default" in schema] == []


def test_every_field_of_ours_is_explained() -> None:
    """`kubectl explain` has a sentence for it; Kubernetes' own types are explained elsewhere."""
    ours = {
        str(info.alias)
        for part in parts(recipe.Spec) | parts(status.Status)
        for info in part.model_fields.values()
    }
    kubernetes = {"affinity", "tolerations", "resources", "env", "envFrom", "volumes"}
    kubernetes |= {"volumeMounts", "imagePullSecrets"}
    silent = [
        path
        for path, schema in ALL
        if path
        and path[-1] in ours
        and not kubernetes & set(path[:-1])
        and "items" not in path[-1:]
        and path[0] in {"spec", "status"}
        and "description" not in schema
    ]
    assert silent == []


@pytest.mark.parametrize(
    "part", sorted(parts(recipe.Spec) | parts(status.Status), key=str), ids=lambda p: p.__name__
)
def test_each_field_is_explained_under_its_own_name(part: type[Part]) -> None:
    """A description begins with the field's name as users write it, in camelCase."""
    strange = [
        info.alias
        for info in part.model_fields.values()
        if re.match(r"\w*", info.description or "", re.ASCII).group() != info.alias  # type: ignore[union-attr]
    ]
    assert strange == []


DEFAULT = re.compile(r"Default: (\S+?)(?: \(lidr-paper: (\S+)\))?\.(?: |$)")


def test_defaults_are_explained_as_they_are() -> None:
    """What a description names as the default is that of the type, or of the profiles."""
    paper, safe = (
        dict(_leaves(recipe.profiles.PROFILES[name], ("spec",)))
        for name in recipe.profiles.PROFILES
    )
    assert recipe.Spec.model_fields["profile"].default == "lidr-safe"
    wrong: list[tuple[Path_, str]] = []
    checked = 0
    for path, schema in SPEC:
        found = DEFAULT.search(schema.get("description", ""))
        default = schema.get("default", safe.get(path))
        if found is None or default is None:
            continue
        checked += 1
        expected = [default, schema.get("default", paper.get(path))]
        if [_value(found[1]), _value(found[2] or found[1])] != expected:
            wrong.append((path, schema["description"]))

    assert wrong == []
    assert checked > 50


def _value(text: str) -> Any:
    """Return a value as a description names it: JSON, or a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_lists_of_named_things_are_merged_by_name() -> None:
    """Server-side apply needs the keys, and refuses a name that stands twice."""
    keyed = {
        path[-1]: schema["x-kubernetes-list-map-keys"]
        for path, schema in ALL
        if schema.get("x-kubernetes-list-type") == "map"
    }
    assert keyed == {
        "env": ["name"],
        "imagePullSecrets": ["name"],
        "volumes": ["name"],
        "volumeMounts": ["mountPath"],
        "conditions": ["type"],
        "stages": ["name"],
        "images": ["role"],
    }


def test_each_field_of_the_spec_is_held_or_may_change() -> None:
    """A new field is immutable unless it is named in MUTABLE."""
    held = {
        rule["fieldPath"].removeprefix(".spec.")
        for rule in crd.resource()["x-kubernetes-validations"]
    }
    fields = {str(info.alias) for info in recipe.Spec.model_fields.values()}
    assert held == fields - MUTABLE | {"iterations"}


def test_kubernetes_volumes_are_those_that_restricted_pods_may_use() -> None:
    """No folder of the node and nothing of a cloud's own."""
    volumes = dict(SPEC)["spec", "pods", "training", "volumes", "items"]
    kinds = {
        "configMap",
        "csi",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "secret",
    }

    assert volumes["properties"].keys() == {"name", *kinds}
