"""The parts of the recipe that only a cluster reads: pods, life cycle, Kubernetes' own types."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.recipe import Chat, Inference, Pods, PodSettings, merged_pods


def settings(**values: Any) -> PodSettings:
    """Return pod settings from JSON, as a file gives them."""
    return PodSettings.model_validate_json(json.dumps(values))


def given(made: PodSettings) -> dict[str, Any]:
    """Return what is set, as JSON."""
    value: dict[str, Any] = json.loads(made.model_dump_json(by_alias=True, exclude_none=True))
    return value


def test_nothing_is_set_unless_the_file_says_so() -> None:
    """The chart's defaults count for all that is None."""
    assert given(Pods().training) == {}
    assert recipe.Deadlines().run_seconds is None
    assert recipe.Deadlines().node_lost_seconds == 900
    assert (recipe.Retries().limit, recipe.Retries().disruption_limit) == (6, 20)
    assert recipe.TtlSecondsAfterFinished().failed is None


MERGES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "an unset field is the chart's": ({"image": "a"}, {}, {"image": "a"}),
    "a value of the run wins": ({"image": "a"}, {"image": "b"}, {"image": "b"}),
    "variables merge by name, in the chart's order": (
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
        {"env": [{"name": "C"}, {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
        {
            "env": [
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
                {"name": "B", "value": "1"},
                {"name": "C"},
            ]
        },
    ),
    "a volume is replaced by one with its name": (
        {"volumes": [{"name": "cache", "emptyDir": {}}]},
        {"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}]},
        {"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}]},
    ),
    "mounts merge by path": (
        {"volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}]},
        {"volumeMounts": [{"name": "b", "mountPath": "/a"}]},
        {"volumeMounts": [{"name": "b", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}]},
    ),
    "pull secrets are added": (
        {"imagePullSecrets": [{"name": "a"}]},
        {"imagePullSecrets": [{"name": "b"}]},
        {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
    ),
    "maps merge by key": (
        {"nodeSelector": {"a": "1", "b": "1"}, "labels": {"a": "1"}, "annotations": {"a": "1"}},
        {"nodeSelector": {"b": "2"}, "labels": {"b": "2"}, "annotations": {"a": "2"}},
        {
            "nodeSelector": {"a": "1", "b": "2"},
            "labels": {"a": "1", "b": "2"},
            "annotations": {"a": "2"},
        },
    ),
    "resources merge by their name": (
        {"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}},
        {"resources": {"limits": {"cpu": 2}, "requests": {"cpu": 1}}},
        {"resources": {"limits": {"cpu": 2, "memory": "1Gi"}, "requests": {"cpu": 1}}},
    ),
    "tolerations have no name and are replaced": (
        {"tolerations": [{"key": "a"}], "envFrom": [{"secretRef": {"name": "a"}}]},
        {"tolerations": [{"key": "b"}], "envFrom": []},
        {"tolerations": [{"key": "b"}], "envFrom": []},
    ),
    "capabilities are replaced": (
        {"capabilities": ["IPC_LOCK"]},
        {"capabilities": []},
        {"capabilities": []},
    ),
    "an affinity is replaced": (
        {"affinity": {"nodeAffinity": {}}},
        {"affinity": {"podAffinity": {}}},
        {"affinity": {"podAffinity": {}}},
    ),
}


@pytest.mark.parametrize("name", MERGES)
def test_the_runs_settings_lie_on_top_of_the_charts(name: str) -> None:
    """Named things and maps merge, else the run's value wins."""
    defaults, run, merged = MERGES[name]

    assert given(merged_pods(settings(**defaults), settings(**run))) == merged


PLACES: dict[str, tuple[dict[str, Any], tuple[str | int, ...]]] = {
    "an unknown field": ({"tolerations": [{"kee": "a"}]}, ("tolerations", 0, "kee")),
    "a value that is none": ({"tolerations": [{"effect": "x"}]}, ("tolerations", 0, "effect")),
    "a missing field": ({"volumes": [{"emptyDir": {}}]}, ("volumes", 0, "name")),
    "a number for text": ({"env": [{"name": "A", "value": 1}]}, ("env", 0, "value")),
    "text for a boolean": (
        {"volumeMounts": [{"name": "a", "mountPath": "/a", "readOnly": "yes"}]},
        ("volumeMounts", 0, "readOnly"),
    ),
    "a fraction for a whole number": (
        {"tolerations": [{"tolerationSeconds": 0.5}]},
        ("tolerations", 0, "tolerationSeconds"),
    ),
    "a quantity without unit": (
        {"resources": {"limits": {"memory": "16GB"}}},
        ("resources", "limits", "memory"),
    ),
    "text for a list": ({"envFrom": "a"}, ("envFrom",)),
    "a list for an object": ({"affinity": []}, ("affinity",)),
    "text that is too long": (
        {"env": [{"name": "A", "value": "a" * 32_769}]},
        ("env", 0, "value"),
    ),
    "a capability that a container may not have": (
        {"capabilities": ["IPC_LOCK", "SYS_ADMIN"]},
        ("capabilities", 1),
    ),
    "a name twice": ({"env": [{"name": "A"}, {"name": "A"}]}, ("env",)),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_mistake_in_a_type_of_kubernetes_has_one_place(name: str) -> None:
    """The error names the field inside, not only the field of ours that holds it."""
    values, place = PLACES[name]
    with pytest.raises(ValidationError) as caught:
        settings(**values)

    assert [error["loc"] for error in caught.value.errors()] == [place]


ARGUMENTS: dict[str, tuple[Any, Any]] = {
    "a boolean": (False, False),
    "a boolean as text": ("false", False),
    "a fraction": (0.5, 0.5),
    "a fraction as text": ("0.5", 0.5),
    "a number with an exponent as text": ("1e-3", 0.001),
    "a whole number": (8, 8),
    "a whole number as text is text": ("8", "8"),
    "text": ("fp8", "fp8"),
    "another word for true is text": ("yes", "yes"),
    "a number too large to be one is text": ("1e400", "1e400"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_is_read_the_same_as_text(name: str) -> None:
    """A CRD has no type for a boolean or a fraction here, so text may stand for them."""
    written, read = ARGUMENTS[name]
    chat = Chat.model_validate_json(json.dumps({"templateKwargs": {"a": written}}))

    found = chat.template_kwargs["a"]
    assert (found, type(found)) == (read, type(read))
    assert Chat.model_validate_json(chat.model_dump_json(by_alias=True)) == chat


@pytest.mark.parametrize("value", [None, [], {}, 2**63, "a" * 4097])
def test_what_is_no_argument_is_refused_at_its_place(value: Any) -> None:
    """One error, with the name of the argument."""
    with pytest.raises(ValidationError) as caught:
        Inference.model_validate_json(json.dumps({"extraArgs": {"a": value}}))

    assert [error["loc"] for error in caught.value.errors()] == [("extraArgs", "a")]
