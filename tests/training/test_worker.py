"""The training worker's own part: what it refuses early, and its vault in the store."""

from pathlib import Path

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.rows import Prompt, lines
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import manifest_of, survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.train.loop.checkpoints import resumable
from selfimprove_pipeline.workers.training import StoreVault, check
from support.runs import run

MODEL = Model("s3://models/m0", "digest", ())
BEFORE: tuple[Stage, ...] = ("generate", "translate", "pair")


def setting_with(root: Path, *, pairs: int) -> Setting:
    """Return a run whose stages before the training are in the store."""
    store = FolderStore(root / "store")
    repository = Repository(store, bucket="runs", prefix="", cache=root / "cache")
    made = run(prompts__perIteration=1, iterations=1, evaluation={"suites": []})
    toolchain = devices.toolchain("transformers", 0)
    setting = Setting(made, store, repository, toolchain, "transformers", root / "cache")
    for language in setting.spec.languages.all():
        store.write(f"s3://prompts/set/{language}.jsonl", lines([Prompt(id="p", prompt="?")]))
    for stage in BEFORE:
        for target in survey(setting.iteration(0, MODEL), repository.manifest)[stage].missing:
            repository.commit(manifest_of(target, rows=pairs), {"rows.jsonl": b""})
    return setting


def test_a_training_without_pairs_is_refused_before_it_starts(tmp_path: Path) -> None:
    """The manifest of the pairs says so; no model is loaded for it."""
    check(setting_with(tmp_path / "some", pairs=1), 0, MODEL)
    with pytest.raises(InputError, match="expected pairs to train on, found none"):
        check(setting_with(tmp_path / "none", pairs=0), 0, MODEL)


def test_a_checkpoint_of_another_label_is_not_gone_on_from(tmp_path: Path) -> None:
    """The store's manifest has the label: gigabytes that cannot be resumed stay where they are."""
    setting = setting_with(tmp_path, pairs=1)
    (target,) = survey(setting.iteration(0, MODEL), setting.repository.manifest)["train"].missing
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("some")
    vault = StoreVault(setting.repository, target, target, tmp_path / "scratch")
    assert vault.latest_checkpoint() is None
    vault.drop_checkpoint(3)
    vault.finish_checkpoint(3, "world=1", vault.upload_checkpoint(3, tmp_path / "made"))
    assert resumable(vault, "world=2") is None
    assert not (tmp_path / "scratch").exists()
    assert resumable(vault, "world=1") == 3
    assert (vault.fetch_checkpoint(3) / "weights").read_text() == "some"
