"""Snapshots: what a run uses is fixed, complete, of bounded size, and has one digest."""

import json
from typing import Any

import pytest

from selfimprove_operator.api import settings
from selfimprove_operator.api.settings import Settings
from selfimprove_operator.launches import snapshot
from selfimprove_operator.launches.snapshot import Snapshot
from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import PodSettings, Run
from selfimprove_pipeline.contract.recipe.changing import MUTABLE
from support import manifests, runs

CHANGEABLE: dict[str, Any] = {
    "suspend": True,
    "iterations": 7,
    "deadlines": {"runSeconds": 60},
    "retries": {"limit": 1},
    "ttlSecondsAfterFinished": {"failed": 1},
    "deletionPolicy": "Delete",
    "pods": {"light": {"image": "other"}},
}
FIXED: dict[str, Any] = {
    "profile": "lidr-paper",
    "training__beta": 0.2,
    "training__nodes": 2,
    "stagePods": "Separate",
    "scheduling__queueName": "gpu",
    "storage__prefix": "other",
    "storage__endpoint": "http://elsewhere:9000",
}


def chart(**storage: Any) -> Settings:
    """Return settings with some storage defaults."""
    given = settings.load(manifests.FOLDER / "settings.yaml")
    found = settings.StorageDefaults.model_validate_json(json.dumps(storage))
    return given.model_copy(update={"storage": found})


def take(*, defaults: Settings | None = None, **values: Any) -> Snapshot:
    """Return the snapshot of a run with some spec values."""
    run = runs.run(**values)
    placed = run.model_copy(
        update={"metadata": run.metadata.model_copy(update={"namespace": "research"})}
    )
    return snapshot.take(placed, defaults or chart(), "IndexedJob")


def test_the_run_file_is_a_run_that_needs_no_profile_any_more() -> None:
    """The file that a pod reads is resolved already, with the iterations that count now."""
    file = json.loads(snapshot.run_file(take(), iterations=5))

    run = Run.model_validate_json(json.dumps(file))

    assert recipe.resolve(run) == run
    assert run.spec.training.beta == 0.5
    assert run.spec.iterations == 5
    assert run.metadata.namespace == "research"


def test_the_run_file_tells_what_the_pods_that_train_may_take() -> None:
    """A worker judges the model's size by it; what else the pods have is the operator's."""
    limits = {"nvidia.com/gpu": "8", "memory": "512Gi", "cpu": "64"}
    settings = PodSettings(image="training:1", resources={"limits": limits})

    file = json.loads(snapshot.run_file(take(), iterations=2, training=settings))

    told = {"nvidia.com/gpu": "8", "memory": "512Gi"}
    assert file["spec"]["pods"] == {"training": {"resources": {"limits": told}}}
    assert Run.model_validate_json(json.dumps(file)).spec.pods.training.image is None


@pytest.mark.parametrize(
    ("given", "defaults", "expected"),
    [
        ({}, {"endpoint": "http://a:9000", "region": "eu"}, ("http://a:9000", "eu", None)),
        (
            {},
            {"endpoint": "https://a", "caRef": {"name": "ca"}},
            ("https://a", None, "ca"),
        ),
        (
            {"storage__endpoint": "https://b", "storage__region": "us"},
            {"endpoint": "https://a", "region": "eu", "caRef": {"name": "ca"}},
            ("https://b", "us", None),
        ),
        (
            {"storage__endpoint": "https://b"},
            {"caRef": {"name": "ca"}},
            ("https://b", None, "ca"),
        ),
        (
            {"storage__caRef": {"name": "own"}},
            {"endpoint": "https://a", "caRef": {"name": "ca"}},
            ("https://a", None, "own"),
        ),
    ],
    ids=[
        "the chart fills endpoint and region",
        "the chart's CA goes with its endpoint",
        "the chart's CA is of no use elsewhere",
        "a CA without an endpoint is for all of them",
        "the run's own CA wins",
    ],
)
def test_the_chart_fills_what_storage_leaves_open(
    given: dict[str, Any],
    defaults: dict[str, Any],
    expected: tuple[str | None, str | None, str | None],
) -> None:
    """A run's storage lies over the chart's."""
    storage = take(defaults=chart(**defaults), **given).spec.storage

    ca = storage.ca_ref.name if storage.ca_ref else None
    assert (storage.endpoint, storage.region, ca) == expected


@pytest.mark.parametrize("field", CHANGEABLE)
def test_what_may_change_is_not_in_the_digest(field: str) -> None:
    """A run whose mutable fields change has the recipe that it was accepted with."""
    assert snapshot.digest(take(**{field: CHANGEABLE[field]})) == snapshot.digest(take())


@pytest.mark.parametrize("field", FIXED)
def test_what_may_not_change_is_in_the_digest(field: str) -> None:
    """Two recipes that differ have two digests."""
    assert snapshot.digest(take(**{field: FIXED[field]})) != snapshot.digest(take())


def test_every_field_of_the_spec_is_either_fixed_or_may_change() -> None:
    """The mutable fields are fields of the spec: a renamed one does not become immutable."""
    names = {str(info.alias) for info in recipe.Spec.model_fields.values()}

    assert set(MUTABLE) == set(CHANGEABLE)
    assert set(MUTABLE) <= names


def test_a_snapshot_comes_back_from_its_revision() -> None:
    """What the API server keeps is the whole snapshot."""
    owner = snapshot.Owner("research", "test", manifests.UID)
    taken = take(pods={"light": {"env": [{"name": "A", "value": "b"}]}})

    manifest = json.loads(json.dumps(snapshot.revision(taken, owner)))

    assert snapshot.of_revision(manifest) == taken
    assert manifest["metadata"]["name"] == "test-2f6b0a51"


def test_a_recipe_beyond_the_limit_is_refused_and_its_largest_field_named() -> None:
    """What does not fit into a pod's annotations is refused before anything is created."""
    ids = ["x" * 200] * 1000

    with pytest.raises(InputError) as caught:
        take(pairing__translationPromptIds=ids, chat__template="x" * 60_000)

    assert "spec.pairing.translationPromptIds" in str(caught.value)
    assert "204800" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_at_the_limit_is_accepted() -> None:
    """The limit counts bytes of UTF-8, and what is just below it is good."""
    size = len(snapshot.run_file(take(chat__template="x"), iterations=100).encode())
    room = snapshot.RUN_FILE_LIMIT - size + 1
    ids = ["é" * 200] * ((room - 65_536) // 403)

    taken = take(chat__template="x" * 65_536, pairing__translationPromptIds=ids)

    found = len(snapshot.run_file(taken, iterations=100).encode())
    assert snapshot.RUN_FILE_LIMIT - 1000 < found <= snapshot.RUN_FILE_LIMIT
    with pytest.raises(InputError):
        take(chat__template="x" * 65_536, pairing__translationPromptIds=[*ids, *ids[:3]])
