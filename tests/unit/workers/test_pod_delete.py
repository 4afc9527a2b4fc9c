"""A deletion takes what is this run's alone, and can be interrupted anywhere."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from typing_extensions import override

from selfimprove_pipeline.contract.errors import ArtifactError
from selfimprove_pipeline.contract.manifests import Index, IterationIndex, Manifest
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers import delete

MINE = {"generate": {"en": "shared", "es": "mine"}, "train": {"": "model"}}


class Crash(Exception):  # noqa: N818  it is no error, it is a kill
    """The process was killed."""


class Crashing(FolderStore):
    """A folder whose process is killed at its n-th deletion."""

    def __init__(self, root: Path, deletions: int) -> None:
        super().__init__(root)
        self._left = deletions

    @override
    def delete(self, uris: Iterable[str]) -> None:
        found = list(uris)
        if found:
            self._left -= 1
            if self._left < 0:
                raise Crash
        super().delete(found)


def repository(folder: Path, prefix: str = "team", deletions: int = 1000) -> Repository:
    store = Crashing(folder / "store", deletions)
    return Repository(store, bucket="runs", prefix=prefix, cache=folder / "cache")


def run_of(
    one: Repository,
    name: str,
    keys: dict[str, dict[str, str]],
    begun: dict[str, dict[str, str]] | None = None,
    model: str = "s3://models/m0",
) -> None:
    """Write a run's index, and every artifact that it names."""
    for stage, by_part in keys.items():
        for key in by_part.values():
            made = Manifest(stage=stage, key=key, digest="", files=())
            one.commit(made, {"rows.jsonl": b"rows"})
    entry = IterationIndex(index=0, model_uri=model, model_digest="m", keys=keys, begun=begun or {})
    recipe = {"model": {"uri": model}}
    index = Index(name=name, outcome="Succeeded", recipe=recipe, iterations=(entry,))
    one.write_index(index, "team")
    one.store.write(f"{one.run_uri('team', name)}report/{name}.md", b"report")


def delete_run(one: Repository, name: str = "mine") -> delete.Removed:
    return delete.work(one, "team", name, lambda *_: None)


def files(folder: Path) -> set[str]:
    """Return what lies in the bucket, without the file's own names."""
    root = folder / "store" / "runs" / "team"
    paths = (path.parent.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {str(path) for path in paths}


def test_what_another_run_names_stays(tmp_path: Path) -> None:
    """Shared answers, and what another one has begun or started from, are kept and counted."""
    one = repository(tmp_path)
    begun = {"reference": {"": "logps"}, "pair": {"": "half"}}
    run_of(one, "mine", MINE, {**begun, "translate": {"es_en": "begun"}})
    one.store.write(one.uri("pair", "half") + "parts/rows/000001.jsonl", b"{}\n")
    one.store.write(one.uri("translate", "begun") + "parts/rows/000001.jsonl", b"{}\n")
    one.commit(Manifest(stage="reference", key="logps", digest="", files=()), {"l": b"logps"})
    run_of(one, "other", {"generate": {"en": "shared"}}, {"translate": {"es_en": "begun"}})
    run_of(one, "child", {}, model=one.uri("train", "model").rstrip("/"))

    removed = delete_run(one)
    assert removed.keys == (("generate", "mine"), ("pair", "half"), ("reference", "logps"))
    assert removed.kept == (("generate", "shared"), ("train", "model"), ("translate", "begun"))
    assert files(tmp_path) == {
        "artifacts/generate/shared",
        "artifacts/train/model",
        "artifacts/translate/begun/parts/rows",
        "runs/team.child",
        "runs/team.child/report",
        "runs/team.other",
        "runs/team.other/report",
    }


@pytest.mark.parametrize("deletions", range(8))
def test_an_interrupted_deletion_is_done_to_its_end(tmp_path: Path, deletions: int) -> None:
    """Until all artifacts are gone the index says which they are."""
    run_of(repository(tmp_path), "mine", MINE)
    with pytest.raises(Crash):
        delete_run(repository(tmp_path, deletions=deletions % 7))
    delete_run(repository(tmp_path))
    assert files(tmp_path) == set()


def test_a_run_that_never_began_is_deleted_as_well(tmp_path: Path) -> None:
    """Its finalizer would stay for ever otherwise."""
    assert delete_run(repository(tmp_path)) == delete.Removed((), (), 0)


def test_a_run_of_another_name_that_begins_alike_is_left_alone(tmp_path: Path) -> None:
    """`mine` and `mine-2` are two runs."""
    one = repository(tmp_path)
    run_of(one, "mine", {})
    run_of(one, "mine-2", {"generate": {"en": "other"}})
    delete_run(one)
    assert files(tmp_path) == {
        "artifacts/generate/other",
        "runs/team.mine-2",
        "runs/team.mine-2/report",
    }


def test_nothing_goes_while_another_index_cannot_be_read(tmp_path: Path) -> None:
    """What it names is not known."""
    one = repository(tmp_path)
    run_of(one, "mine", MINE)
    one.store.write(one.run_uri("team", "other") + "index.json", b"{")
    before = files(tmp_path)
    with pytest.raises(ArtifactError, match=r"team\.other/index\.json is truncated"):
        delete_run(one)
    assert files(tmp_path) == before
