"""The CustomResourceDefinition on a real API server: what it takes, fills in and keeps."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfimprove_operator.api import crd
from selfimprove_operator.api.status import Status
from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.recipe.changing import MUTABLE
from selfimprove_pipeline.inputs.run_file import validation
from selfimprove_pipeline.inputs.run_file.document import DocumentError
from support.control_plane import ControlPlane
from support.run_files import BAD, GOOD, RECIPES, Row

RUNS = "/apis/selfimprove.dev/v1alpha1/namespaces/default/selfimproveruns"
MERGE = "application/merge-patch+json"
STRICT = "dryRun=All&fieldValidation=Strict"

pytestmark = pytest.mark.control_plane


def complaint_of_validate(row: Row, folder: Path) -> str | None:
    """Return what `validate --cluster` says, None when the file is good."""
    path = folder / "run.yaml"
    path.write_text(row.text)
    try:
        validation.load(path, for_cluster=True)
    except DocumentError as error:
        return str(error)
    return None


def complaint_of_server(row: Row, plane: ControlPlane) -> str | None:
    """Return what the API server says of the file as it is, None when the file is good."""
    reply = plane.send("POST", f"{RUNS}?{STRICT}", row.text, "application/yaml")
    return None if reply.status == HTTPStatus.CREATED else reply.value["message"]


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.name)
def test_a_good_file_is_good_here_and_there(row: Row, served: ControlPlane, tmp_path: Path) -> None:
    """`validate --cluster` and the API server take it."""
    assert complaint_of_validate(row, tmp_path) is None
    assert complaint_of_server(row, served) is None


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_good_here_and_there(path: Path, served: ControlPlane) -> None:
    """`validate --cluster` and kubectl's dry run on the server take the file as it is."""
    assert validation.load(path, for_cluster=True).spec.profile == "lidr-paper"
    answer = served.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", input=path.read_text()
    )
    assert answer.rc == 0, answer.stderr


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.name)
def test_a_bad_file_is_bad_here_and_there(row: Row, served: ControlPlane, tmp_path: Path) -> None:
    """Both refuse it and name the same place."""
    here, there = complaint_of_validate(row, tmp_path), complaint_of_server(row, served)

    assert row.bad is not None
    assert row.bad in (here or "good here")
    assert (row.server or row.bad) in (there or "good there")


TYPED_BY_KUBECTL = (
    "5e-7 is a number",
    "2.0 is a whole number",
    "1e1 is a whole number",
    "an octal number",
    "no is a boolean",
    "y is a boolean",
    "a field that a profile sets is null",
    "an empty object",
    "a number too large to be one is text",
    "a boolean for a number",
    "Norwegian without quotes",
    "an unknown field",
    "infinity",
    "an anchor in itself",
)


@pytest.mark.parametrize(
    "row", [row for row in GOOD + BAD if row.name in TYPED_BY_KUBECTL], ids=lambda row: row.name
)
def test_kubectl_types_yaml_as_we_do(row: Row, served: ControlPlane) -> None:
    """A file is as good or bad when kubectl has converted it."""
    answer = served.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", input=row.text
    )
    assert (answer.rc == 0) == (row.bad is None), answer.stderr
    assert (row.server or row.bad or "") in answer.stderr


def test_every_row_for_kubectl_is_in_the_table() -> None:
    """A row that was renamed is not left out."""
    assert set(TYPED_BY_KUBECTL) <= {row.name for row in GOOD + BAD}
    assert len(GOOD) + len(BAD) >= 80


def test_the_server_finds_nothing_to_complain_of(served: ControlPlane) -> None:
    """It serves the definition, under its accepted names, and calls it structural."""
    name = crd.definition()["metadata"]["name"]
    found = served.kubectl("get", "crd", name, "-o", "json").value()

    conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_the_servers_defaults_are_those_of_the_recipe(served: ControlPlane) -> None:
    """Pydantic and the API server make the same spec of the smallest file."""
    made = served.send("POST", f"{RUNS}?{STRICT}", Row("").text, "application/yaml").value
    run = recipe.Run.model_validate_json(json.dumps(yaml.safe_load(Row("").text)))

    given = run.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert _without_empty(made["spec"]) == _without_empty(given)


def _without_empty(value: Any) -> Any:
    """Return a value without empty maps, which say the same as none."""
    if not isinstance(value, dict):
        return value
    inner = {key: _without_empty(one) for key, one in value.items()}
    return {key: one for key, one in inner.items() if one != {}}


def made(plane: ControlPlane, name: str, status: dict[str, Any] | None = None) -> str:
    """Make a run with a status and return its path."""
    text = Row("", metadata=f"{{name: {name}}}").text
    assert plane.send("POST", RUNS, text, "application/yaml").status == HTTPStatus.CREATED
    if status is not None:
        body = json.dumps({"status": status})
        reply = plane.send("PATCH", f"{RUNS}/{name}/status", body, MERGE)
        assert reply.status == HTTPStatus.OK, reply
    return f"{RUNS}/{name}"


def complaint_of_change(plane: ControlPlane, run: str, change: dict[str, Any]) -> str | None:
    """Return what the server says of a change of the spec, None when it takes it."""
    reply = plane.send("PATCH", f"{run}?{STRICT}", json.dumps({"spec": change}), MERGE)
    return None if reply.status == HTTPStatus.OK else str(reply.value["message"])


IMMUTABLE: dict[str, dict[str, Any] | str] = {
    "model": {"revision": "main"},
    "languages": {"others": ["de", "es"]},
    "prompts": {"perIteration": 3},
    "profile": "lidr-paper",
    "chat": {"systemPrompt": "Be brief."},
    "generation": {"seed": 7},
    "translation": {"retries": 2},
    "inference": {"dtype": "float16"},
    "pairing": {"filters": {"empty": False}},
    "training": {"lora": {"r": 4}},
    "evaluation": {"suites": [{"name": "offTarget", "uri": "s3://eval/set"}]},
    "gates": {"minimumGain": 0.1},
    "storage": {"secretRef": {"name": "other"}},
    "stagePods": "Separate",
    "scheduling": {"queueName": "gpu"},
}
STARTED = {"startTime": "2026-01-01T00:00:00Z"}
DECIDED = {**STARTED, "completionTime": "2026-01-02T00:00:00Z"}


def test_what_cannot_change_after_the_start_can_before(served: ControlPlane) -> None:
    """Every field of the recipe is held from `status.startTime` on, and says so at its place."""
    open_run, started_run = made(served, "open"), made(served, "started", STARTED)
    fields = {str(info.alias) for info in recipe.Spec.model_fields.values()}
    assert set(IMMUTABLE) == fields - MUTABLE - {"managedBy"}

    for field, value in IMMUTABLE.items():
        assert complaint_of_change(served, open_run, {field: value}) is None
        said = complaint_of_change(served, started_run, {field: value})
        assert f"spec.{field}: Invalid value" in (said or "accepted")
        assert f"{field} cannot be changed after the start" in (said or "")


def test_what_was_unset_or_set_stays_so(served: ControlPlane) -> None:
    """Neither adding nor removing an optional part of the recipe is a way around the rule."""
    run = made(served, "with-secret")
    with_secret = {"model": {"secretRef": {"name": "hub"}}}
    served.send("PATCH", run, json.dumps({"spec": with_secret}), MERGE)
    served.send("PATCH", f"{run}/status", json.dumps({"status": STARTED}), MERGE)

    assert complaint_of_change(served, run, {"model": {"secretRef": None}}) is not None
    assert complaint_of_change(served, run, {"scheduling": {"queueName": "gpu"}}) is not None
    assert complaint_of_change(served, run, with_secret) is None


CHANGES: dict[str, dict[str, Any] | bool | str] = {
    "suspend": True,
    "deadlines": {"runSeconds": 60},
    "retries": {"limit": 9},
    "ttlSecondsAfterFinished": {"failed": 60},
    "deletionPolicy": "Delete",
    "pods": {"training": {"image": "registry/image:2"}},
}


@pytest.mark.parametrize(("name", "status"), [("mutable", STARTED), ("mutable-end", DECIDED)])
def test_what_may_change_may_change_until_the_end(
    name: str, status: dict[str, Any], served: ControlPlane
) -> None:
    """Fields that no artifact depends on are open in a started and in a finished run."""
    run = made(served, name, status)
    assert set(CHANGES) == MUTABLE - {"iterations"}

    for field, value in CHANGES.items():
        assert complaint_of_change(served, run, {field: value}) is None


def test_iterations_grow_until_the_outcome_is_decided(served: ControlPlane) -> None:
    """Before the start they are free, then they grow, then a new name is asked for."""
    before, after = made(served, "it-before"), made(served, "it-after", STARTED)
    decided = made(served, "it-decided", DECIDED)

    assert complaint_of_change(served, before, {"iterations": 1}) is None
    assert complaint_of_change(served, after, {"iterations": 3}) is None
    assert "can only grow" in (complaint_of_change(served, after, {"iterations": 1}) or "")
    assert "under a new name" in (complaint_of_change(served, decided, {"iterations": 3}) or "")
    said = complaint_of_change(served, decided, {"iterations": 1}) or ""
    assert "under a new name" in said
    assert "can only grow" not in said


def test_the_controller_of_a_run_never_changes(served: ControlPlane) -> None:
    """Two controllers could otherwise both take it for theirs, started or not."""
    said = complaint_of_change(served, made(served, "theirs"), {"managedBy": "other.dev/operator"})

    assert "spec.managedBy: Invalid value" in (said or "accepted")


def longest_status() -> Status:
    """Return the status of a run of 100 iterations in 30 languages."""
    time, digest = STARTED["startTime"], "a" * 64
    finished = {"startTime": time, "completionTime": time}
    score = {"score": "0.123", "scoreLow": "0.012", "scoreHigh": "0.234"}
    gate = {"gate": "LeftOut", "why": "accuracy 0.300 [0.219, 0.396] n 1000000"}
    numbers = {"pairs": 999_999, "drops": 999_999, **score, **gate}
    languages = [{"language": f"{chr(97 + i)}aa-Latn-419", **numbers} for i in range(26)]
    languages += [{"language": f"{chr(97 + i)}bb-Latn-419", **numbers} for i in range(4)]
    measured = {"modelDigest": digest, "pairs": 999_999, "gain": "+0.123"}
    said = {"status": "Unknown", "reason": "Waiting", "message": "m" * 1024}
    types = ("Accepted", "Suspended", "QuotaReserved", "Progressing", "Succeeded")
    value = {
        **DECIDED,
        "observedGeneration": 1,
        "recipeDigest": digest,
        "runtimeRef": {"name": "run-12345678"},
        "message": "m" * 1024,
        "conditions": [{"type": one, "lastTransitionTime": time, **said} for one in types],
        "stages": [
            {"name": f"stage-{i}", "state": "Running", "digest": digest, **finished}
            for i in range(12)
        ],
        "iterations": [{"index": i, **measured, **finished} for i in range(101)],
        "numbers": [{"index": i, "languages": languages} for i in (99, 100)],
        "images": [
            {"role": role, "imageID": f"registry/image@sha256:{digest}"}
            for role in ("inference", "training", "light")
        ],
    }
    return Status.model_validate_json(json.dumps(value))


def test_the_longest_run_stays_below_100_kib(served: ControlPlane) -> None:
    """100 iterations in 30 languages, with the record of who set what."""
    status = longest_status().model_dump(mode="json", by_alias=True, exclude_none=True)
    run = made(served, "long", status)
    stored = served.kubectl(
        "get", "sir", run.rpartition("/")[2], "-o=json", "--show-managed-fields"
    )

    found = stored.value()
    assert found["status"] == status
    assert found["metadata"]["managedFields"]
    assert len(json.dumps(found, separators=(",", ":"))) < 100 * 1024


def test_explain_tells_what_the_docstrings_tell(served: ControlPlane) -> None:
    """`kubectl explain` shows a field's sentence and its type."""
    said = served.kubectl("explain", "sir.spec.training").stdout

    assert "beta of DPO: the weight of the log-ratio" in " ".join(said.split())
    assert "learningRate" in said


def test_get_shows_the_columns(served: ControlPlane) -> None:
    """The table has what a person wants to know, more of it when wide."""
    made(served, "shown", {"iteration": 1, "stage": "train", "progress": "3/8", "pairsKept": 12})
    header, row = served.kubectl("get", "sir", "shown", "-o", "wide").stdout.splitlines()

    assert " ".join(header.split()) == (
        "NAME ITERATION STAGE PROGRESS SUCCEEDED AGE PAIRS KEPT LAST GAIN MESSAGE"
    )
    assert row.split()[:4] == ["shown", "1", "train", "3/8"]
