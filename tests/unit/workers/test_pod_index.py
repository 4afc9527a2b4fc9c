"""What a pod takes from the run's index, because its image cannot tell, and what it notes there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract.environment import COMPLETION_INDEX
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import Toolchain
from selfimprove_pipeline.contract.manifests import Index
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.stages import Worker
from selfimprove_pipeline.run import ledger
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import manifest_of, survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers import pod
from support.runs import run

SECTIONS = ("inference", "light", "training", "translation")
BEFORE: tuple[Stage, ...] = ("generate", "translate", "pair")


def image(name: str) -> Toolchain:
    """Return what an image tells of itself in every section, right or wrong."""
    return Toolchain(**{section: {"image": name} for section in SECTIONS})


def setting(folder: Path, toolchain: Toolchain, **values: Any) -> Setting:
    """Return a run on a folder that has its model and prompts."""
    model, prompts = folder / "models" / "m0", folder / "prompts" / "set"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    prompts.mkdir(parents=True, exist_ok=True)
    for language in ("en", "es", "de"):
        rows = [{"id": f"p{n}", "prompt": f"{language} {n}"} for n in range(4)]
        (prompts / f"{language}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    store = FolderStore(folder)
    repository = Repository(store, bucket="runs", prefix="", cache=folder / "cache")
    return Setting(run(**values), store, repository, toolchain, "vllm", folder / "cache")


def commit(one: Setting, index: int, model: Model, stages: tuple[Stage, ...]) -> None:
    """Finish some stages of an iteration."""
    for name in stages:
        for target in survey(one.iteration(index, model), one.repository.manifest)[name].missing:
            content = f"{name} {target.part} {index}".encode()
            one.repository.commit(manifest_of(target), {"rows.jsonl": content})


def index_of(one: Setting) -> Index:
    found = one.read_index()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        pytest.param(
            "inference",
            {"inference": "own", "translation": "own", "light": "own", "training": "noted"},
            id="inference",
        ),
        pytest.param(
            "light",
            {"inference": "noted", "translation": "noted", "light": "own", "training": "noted"},
            id="light",
        ),
        pytest.param(
            "training",
            {"inference": "noted", "translation": "noted", "light": "noted", "training": "own"},
            id="training",
        ),
        pytest.param(
            "rank",
            {"inference": "noted", "translation": "noted", "light": "noted", "training": "own"},
            id="rank",
        ),
    ],
)
def test_each_pod_knows_what_its_image_has(
    tmp_path: Path, worker: Worker, expected: Mapping[str, str]
) -> None:
    """The rest is what the pods before it have noted for the same iteration."""
    noted = setting(tmp_path, image("noted"))
    pod.note(noted, 0, noted.base)
    own = setting(tmp_path, image("own"))
    found = pod.equipped(own, worker, 0).toolchain
    assert {name: getattr(found, name)["image"] for name in SECTIONS} == expected


def test_what_nobody_has_noted_is_open_and_no_key(tmp_path: Path) -> None:
    """Another iteration may have run on other devices, so its notes do not count."""
    noted = setting(tmp_path, image("noted"))
    pod.note(noted, 1, noted.base)
    own = pod.equipped(setting(tmp_path, image("own")), "inference", 0)
    assert own.toolchain.training is None
    commit(own, 0, own.base, BEFORE)
    found = pod.note(own, 0, own.base)
    assert found["pair"].is_finished
    assert (found["train"].targets, found["train"].is_finished) == (None, False)
    (entry,) = [entry for entry in index_of(own).iterations if entry.index == 0]
    assert set(entry.toolchain) == {"inference", "light", "translation"}


def test_pods_of_all_images_come_to_the_same_keys(tmp_path: Path) -> None:
    """The light image finds the answers, the training image the pairs."""
    inference = pod.equipped(setting(tmp_path, image("inference")), "inference", 0)
    commit(inference, 0, inference.base, ("generate", "translate"))
    pod.note(inference, 0, inference.base)
    light = pod.equipped(setting(tmp_path, image("light")), "light", 0)
    model = ledger.noted_model(light, 0)
    assert model is not None
    assert (model.digest, model.files) == (inference.base.digest, ())
    found = survey(light.iteration(0, model), light.repository.manifest)
    assert found["translate"].is_finished
    commit(light, 0, model, ("pair",))
    pod.note(light, 0, model)
    training = pod.equipped(setting(tmp_path, image("training")), "training", 0)
    found = survey(training.iteration(0, training.base), training.repository.manifest)
    assert found["pair"].manifests[""].versions == {"image": "light"}
    assert found["train"].missing[0].versions == {"image": "training"}


def test_a_model_is_what_the_index_names(tmp_path: Path) -> None:
    """Other pods trained it elsewhere: here its key could not be computed."""
    there = setting(tmp_path, image("there"))
    commit(there, 0, there.base, (*BEFORE, "train"))
    pod.note(there, 0, there.base)
    here = setting(tmp_path, image("here"))
    model = ledger.model_at(here, 1)
    train = index_of(there).iterations[0].keys["train"][""]
    assert model.uri == there.repository.uri("train", train)
    assert [file.name for file in model.files] == ["rows.jsonl"]


def test_without_an_index_earlier_iterations_are_surveyed(tmp_path: Path) -> None:
    """As `selfimprove worker` of an earlier version, or by hand, has left them."""
    one = setting(tmp_path, image("one"))
    commit(one, 0, one.base, (*BEFORE, "train"))
    assert ledger.model_at(one, 1).digest != one.base.digest


def test_a_run_that_begins_forgets_an_earlier_one_of_its_name(tmp_path: Path) -> None:
    """Its model may have been another at the same URI; stages that fit are found again."""
    first = setting(tmp_path, image("one"))
    commit(first, 0, first.base, ("generate",))
    pod.note(first, 0, first.base)
    assert index_of(first).iterations[0].computed == ()
    pod.begin(first, None)
    assert index_of(first).iterations == ()
    commit(first, 0, first.base, ("translate",))
    pod.note(first, 0, first.base)
    entry = index_of(first).iterations[0]
    assert {"generate", "translate"} <= set(entry.finished)
    assert set(entry.computed) == set(entry.keys["translate"].values())


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        pytest.param({"deadlines__runSeconds": 60}, True, id="a deadline"),
        pytest.param({"iterations": 3}, True, id="more iterations"),
        pytest.param({"pods__light__image": "other:1"}, True, id="an image"),
        pytest.param({"suspend": True}, True, id="suspend"),
        pytest.param({"training__beta": 0.3}, False, id="another recipe"),
    ],
)
def test_an_index_of_another_recipe_is_none(
    tmp_path: Path, change: dict[str, Any], is_kept: bool
) -> None:
    """What may change while a run goes on makes no other models."""
    before = setting(tmp_path, image("one"))
    pod.note(before, 0, before.base)
    after = setting(tmp_path, image("one"), **change)
    assert (ledger.entry_of(after, 0) is not None) is is_kept


def test_one_pod_of_several_writes_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers of one object would take each other's notes away."""
    one = setting(tmp_path, image("one"))
    monkeypatch.setenv(COMPLETION_INDEX, "1")
    pod.note(one, 0, one.base)
    assert one.read_index() is None
    monkeypatch.setenv(COMPLETION_INDEX, "0")
    pod.note(one, 0, one.base)
    assert one.read_index() is not None


def test_wrong_input_is_noted_and_the_end_as_well(tmp_path: Path) -> None:
    """`show` tells people where the run stands without a cluster."""
    one = setting(tmp_path, image("one"))
    pod.note_failure(one, InputError("too early"))
    assert one.read_index() is None
    pod.note(one, 0, one.base)
    pod.note_failure(one, InputError("no\npairs"))
    assert (index_of(one).outcome, index_of(one).message) == ("Failed", "no pairs")
    assert pod.end(one).outcome == "Succeeded"
    assert len(index_of(one).iterations) == 1


def test_what_is_begun_is_noted_for_a_deletion(tmp_path: Path) -> None:
    """Rows and checkpoints of an unfinished artifact lie under its key, and so do references."""
    one = setting(tmp_path, image("one"))
    pod.note(one, 0, one.base)
    assert set(index_of(one).iterations[0].begun) == {"generate", "translate"}
    commit(one, 0, one.base, BEFORE)
    pod.note(one, 0, one.base)
    assert set(index_of(one).iterations[0].begun) == {"train", "reference"}
    commit(one, 0, one.base, ("train",))
    pod.note(one, 0, one.base)
    assert set(index_of(one).iterations[0].begun) == {"reference"}
