"""The README's run files: what a reader copies is good as it stands."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from selfimprove_operator.api import settings
from selfimprove_operator.api.status import Launch, UnitName
from selfimprove_operator.launches import jobs, snapshot, units
from selfimprove_operator.launches.blueprint import Blueprint
from selfimprove_operator.launches.snapshot import Owner
from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.recipe import Run
from selfimprove_pipeline.inputs.run_file import validation
from support import manifests

README: Final = (Path(__file__).resolve().parents[2] / "README.md").read_text()
RUN, ON_A_CLUSTER = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def loaded(file: dict[str, Any], folder: Path) -> Run:
    """Return a run as `validate --cluster` judges it."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(file))
    return recipe.resolve(validation.load(path, for_cluster=True))


def on_a_cluster(folder: Path) -> Run:
    """Return the first run in a namespace, with the fields that the second block gives it."""
    file, more = yaml.safe_load(RUN), yaml.safe_load(ON_A_CLUSTER)
    file["metadata"]["namespace"] = "team"
    return loaded({**file, "spec": file["spec"] | more["spec"]}, folder)


def test_the_run_file_is_good(tmp_path: Path) -> None:
    """As written, and with what a cluster needs, it is the same run."""
    plain, there = loaded(yaml.safe_load(RUN), tmp_path).spec, on_a_cluster(tmp_path).spec
    differs = {
        name for name in type(plain).model_fields if getattr(plain, name) != getattr(there, name)
    }

    assert differs == {"storage", "pods"}
    assert there.storage.model_copy(update={"secret_ref": None}) == plain.storage


@pytest.mark.parametrize("name", ["inference", "training"])
def test_models_and_compiled_code_outlive_the_pods(name: UnitName, tmp_path: Path) -> None:
    """Pods with a GPU have the claim at /cache, where an empty folder would be otherwise."""
    run, owner = on_a_cluster(tmp_path), Owner("team", "llama3-europe", manifests.UID)
    given = settings.load(manifests.FOLDER / "settings.yaml")
    taken = snapshot.take(run, given, "IndexedJob")
    launch, unit = Launch(unit=name, iteration=0), units.unit(name, run.spec, 0)
    *_, job = jobs.manifests(Blueprint(launch, unit, owner, taken, run.spec))
    (template,) = manifests.templates(job)
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    mounts = template["spec"]["containers"][0]["volumeMounts"]

    assert volumes["cache"] == {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}
    assert [mount["mountPath"] for mount in mounts if mount["name"] == "cache"] == ["/cache"]
