"""What an artifact promises: whole or not there, checked when read, the first one kept."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from typing_extensions import override

from selfimprove_pipeline.contract.errors import ArtifactError, InputError
from selfimprove_pipeline.contract.manifests import Index, Manifest, payload_digest
from selfimprove_pipeline.contract.rows import Answer, Drop, Prompt, lines
from selfimprove_pipeline.store import Entry, Store
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository, is_model_payload

PROMPTS = tuple(Prompt(id=str(number), prompt=f"Größe {number}?\u2028") for number in range(5))
DROPS = (Drop(id="1", language="de", partner="en", reason="empty"),)


@pytest.fixture
def repository(store: Store, bucket: str, tmp_path: Path) -> Repository:
    """Give the repository of a bucket, under a prefix."""
    return Repository(store, bucket=bucket, prefix="team/runs", cache=tmp_path / "cache")


def manifest(key: str = "k1", stage: str = "generate", created: str = "") -> Manifest:
    """Return a manifest as a stage gives it: without files and digest."""
    return Manifest(stage=stage, key=key, digest="", files=(), created=created)


def commit(repository: Repository, rows: Iterable[Prompt] = PROMPTS, created: str = "") -> Manifest:
    """Commit rows under one key."""
    return repository.commit(
        manifest(created=created),
        {"prompts.jsonl": lines(rows)},
        side_files={"drops.jsonl": lines(DROPS)},
    )


def save(repository: Repository, step: int, folder: Path, label: str, stage: str = "train") -> None:
    """Keep a checkpoint as the only machine of a training does."""
    kept = repository.checkpoints(stage, "k1")
    kept.drop(step)
    kept.finish(step, label, kept.upload(step, folder))


def names(repository: Repository, stage: str = "generate", key: str = "k1") -> list[str]:
    """Return the names of what lies in an artifact's folder."""
    uri = repository.uri(stage, key)
    return [entry.uri.removeprefix(uri) for entry in repository.store.entries(uri)]


def folder_of(path: Path, **contents: str) -> Path:
    """Return a folder with files, `__` in a name standing for a dot."""
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


def test_rows_come_back_as_they_were_committed(repository: Repository) -> None:
    """The manifest names size, sha256 and digest; rows keep their order and every character."""
    committed = commit(repository, created="2026-01-01T00:00:00Z")
    assert repository.manifest("generate", "k1") == committed
    assert committed.digest == payload_digest(committed.files)
    assert [file.name for file in committed.files if file.is_payload] == ["prompts.jsonl"]
    assert repository.rows(committed, Prompt) == PROMPTS
    assert repository.rows(committed, Drop, "drops.jsonl") == DROPS
    assert names(repository) == ["drops.jsonl", "manifest.json", "prompts.jsonl"]


def test_side_files_and_times_do_not_change_the_digest(repository: Repository) -> None:
    """Equal rows have equal digests, whatever was measured on the way."""
    first = repository.commit(manifest("a"), {"x.jsonl": b"1\n"}, side_files={"log": b"fast"})
    second = repository.commit(manifest("b", created="later"), {"x.jsonl": b"1\n"})
    other = repository.commit(manifest("c"), {"x.jsonl": b"2\n"})
    assert first.digest == second.digest != other.digest


def test_an_absent_artifact_is_none(repository: Repository) -> None:
    """Without a manifest there is no artifact, whatever else lies there."""
    assert repository.manifest("generate", "k1") is None
    repository.store.write(repository.uri("generate", "k1") + "prompts.jsonl", b"{}\n")
    assert repository.manifest("generate", "k1") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: content.index(b"\n") + 1],
        lambda content: content.replace(b"0", b"9", 1),
        lambda content: content + content,
        lambda _: b"",
    ],
    ids=["last byte", "last rows", "one letter", "twice", "empty"],
)
def test_a_truncated_or_altered_file_is_an_error(
    repository: Repository, damage: Callable[[bytes], bytes]
) -> None:
    """Whatever is not what the manifest says is named, with what to do."""
    committed = commit(repository)
    uri = repository.uri("generate", "k1") + "prompts.jsonl"
    repository.store.write(uri, damage(repository.store.read(uri) or b""))
    with pytest.raises(ArtifactError, match=rf"{uri} is truncated or altered; delete .*/k1/ and"):
        repository.rows(committed, Prompt)


def test_a_missing_file_is_an_error(repository: Repository) -> None:
    """A manifest without its file is named."""
    committed = commit(repository)
    repository.store.delete([repository.uri("generate", "k1") + "prompts.jsonl"])
    with pytest.raises(ArtifactError, match=r"prompts\.jsonl is missing"):
        repository.rows(committed, Prompt)


def test_rows_of_another_kind_are_an_error(repository: Repository) -> None:
    """Rows that do not parse name the kind that was expected."""
    committed = commit(repository)
    with pytest.raises(ArtifactError, match="no Answer rows"):
        repository.rows(committed, Answer)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda content: content[:-20],
        lambda content: content.replace(b'"contract":"1"', b'"contract":"0"'),
        lambda content: content.replace(b'"key":"k1"', b'"key":"k2"'),
        lambda content: content.replace(b'"generate"', b'"translate"'),
        lambda content: json.dumps({**json.loads(content), "unknown": 1}).encode(),
    ],
    ids=["empty", "truncated", "contract", "key", "stage", "unknown field"],
)
def test_a_manifest_of_something_else_is_an_error(
    repository: Repository, change: Callable[[bytes], bytes]
) -> None:
    """A manifest that cannot be read, or speaks of another artifact, is named."""
    commit(repository)
    uri = repository.uri("generate", "k1") + "manifest.json"
    repository.store.write(uri, change(repository.store.read(uri) or b""))
    with pytest.raises(ArtifactError, match=uri):
        repository.manifest("generate", "k1")


def test_the_first_of_two_commits_is_kept(repository: Repository) -> None:
    """A key is computed once: a later commit, equal or not, returns the artifact that is there."""
    first = commit(repository, created="first")
    assert commit(repository, created="second") == first
    assert commit(repository, PROMPTS[:2]) == first
    assert repository.rows(first, Prompt) == PROMPTS


class Crash(BaseException):
    """Stands for a SIGKILL: nothing of the program runs after it."""


class CrashingStore:
    """A store whose process dies before its n-th change."""

    def __init__(self, store: Store, changes: int) -> None:
        self._store = store
        self._left = changes

    def _change(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Crash

    def read(self, uri: str) -> bytes | None:
        """Do as `Store` says."""
        return self._store.read(uri)

    def write(self, uri: str, content: bytes) -> None:
        """Do as `Store` says."""
        self._change()
        self._store.write(uri, content)

    def create(self, uri: str, content: bytes) -> None:
        """Do as `Store` says."""
        self._change()
        self._store.create(uri, content)

    def copy(self, source: str, target: str) -> None:
        """Do as `Store` says."""
        self._change()
        self._store.copy(source, target)

    def upload(self, path: Path, uri: str) -> None:
        """Do as `Store` says."""
        self._change()
        self._store.upload(path, uri)

    def fetch(self, uri: str, path: Path) -> None:
        """Do as `Store` says."""
        self._store.fetch(uri, path)

    def entries(self, prefix: str) -> tuple[Entry, ...]:
        """Do as `Store` says."""
        return self._store.entries(prefix)

    def delete(self, uris: Iterable[str]) -> None:
        """Do as `Store` says."""
        self._change()
        self._store.delete(uris)

    def local(self, prefix: str) -> Path | None:
        """Do as `Store` says."""
        return self._store.local(prefix)


@pytest.mark.parametrize("changes", range(12))
def test_a_crash_at_any_point_leaves_no_artifact_or_a_whole_one(
    repository: Repository, bucket: str, tmp_path: Path, changes: int
) -> None:
    """Killed before any change of a commit, it is invisible or whole, and a rerun completes it."""
    model = folder_of(tmp_path / "m", config__json="{}", model__safetensors="w", README__md="r")
    repository.append_part("train", "k1", "rows", PROMPTS)
    repository.store.write(repository.uri("train", "k1") + "of-an-earlier-attempt.bin", b"x")
    crashing = Repository(
        CrashingStore(repository.store, changes),
        bucket=bucket,
        prefix="team/runs",
        cache=tmp_path / "cache",
    )
    whole = ["README.md", "config.json", "manifest.json", "model.safetensors"]
    try:
        crashing.commit_folder(manifest(stage="train"), model, is_payload=is_model_payload)
    except Crash:
        found = repository.manifest("train", "k1")
        assert (found is None) == (changes < 9), "files first, manifest last"
        if found is None:
            assert repository.parts("train", "k1", "rows", Prompt) == PROMPTS
    else:
        assert changes >= 10
    done = repository.commit_folder(manifest(stage="train"), model, is_payload=is_model_payload)
    assert repository.manifest("train", "k1") == done
    assert names(repository, "train") == whole
    assert done.digest == repository.model_digest(repository.uri("train", "k1"))[0]


def test_concurrent_writers_of_one_key_leave_a_whole_artifact(repository: Repository) -> None:
    """Several processes that finish the same stage at once all get a manifest that checks out."""
    with ThreadPoolExecutor(8) as pool:
        commits = list(pool.map(lambda n: commit(repository, created=str(n)), range(8)))
    (digest,) = {committed.digest for committed in commits}
    found = repository.manifest("generate", "k1")
    assert found is not None
    assert found.digest == digest
    assert repository.rows(found, Prompt) == PROMPTS


class HaltedStore(CrashingStore):
    """A store whose process does something else before its n-th change, and then goes on."""

    def __init__(self, store: Store, changes: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(store, changes)
        self._meanwhile = meanwhile

    @override
    def _change(self) -> None:
        self._left -= 1
        if self._left == -1:
            self._meanwhile()


NUM_CHANGES = 8
"""Two files written and copied, a choice, strays deleted, a manifest, a cleaning."""


class Meeting:
    """Two writers of one key: the second one comes, and halts, while the first one halts."""

    def __init__(self, open_with: Callable[[Store], Repository], store: Store) -> None:
        self._open = open_with
        self._store = store
        self._has_halted = threading.Event()
        self._may_go_on = threading.Event()
        self.returned: list[Manifest] = []

    def hold(self, of_first: int, of_second: int, *, is_killed: bool) -> None:
        """Halt each before a change, and kill the second where it halts."""

        def halt() -> None:
            self._has_halted.set()
            self._may_go_on.wait()
            if is_killed:
                raise Crash

        second = self._open(HaltedStore(self._store, of_second, halt))
        thread = threading.Thread(target=self._second, args=[second])

        def overtake() -> None:
            thread.start()
            self._has_halted.wait()

        first = self._open(HaltedStore(self._store, of_first, overtake))
        try:
            self.returned.append(commit(first, created="first"))
        finally:
            self._may_go_on.set()
            thread.join()

    def _second(self, repository: Repository) -> None:
        with suppress(Crash):
            self.returned.append(commit(repository, PROMPTS[:2], created="second"))
        self._has_halted.set()


@pytest.mark.parametrize("is_killed", [False, True], ids=["late", "killed"])
@pytest.mark.parametrize("of_first", range(NUM_CHANGES))
def test_two_writers_leave_no_mixture_wherever_they_halt(
    store: Store, bucket: str, tmp_path: Path, of_first: int, is_killed: bool
) -> None:
    """The second writer comes at any change of the first, halts at any of its own, and goes on.

    It goes on, or is killed, after the first has returned its manifest. What lies there then is
    the artifact of one of them, and it is the one that was returned.
    """
    for of_second in range(NUM_CHANGES):
        opened = partial(Repository, bucket=bucket, prefix=str(of_second), cache=tmp_path / "cache")
        meeting = Meeting(opened, store)
        meeting.hold(of_first, of_second, is_killed=is_killed)
        repository = opened(store)
        found = repository.manifest("generate", "k1")
        assert found is not None
        assert {returned.line() for returned in meeting.returned} == {found.line()}
        expected = PROMPTS if found.created == "first" else PROMPTS[:2]
        assert repository.rows(found, Prompt) == expected
        if not is_killed:
            assert names(repository) == ["drops.jsonl", "manifest.json", "prompts.jsonl"]


def test_a_choice_that_cannot_be_read_is_an_error(repository: Repository) -> None:
    """Who was chosen is not guessed; the message says what to delete."""
    uri = repository.uri("generate", "k1")
    repository.store.write(f"{uri}attempts/chosen.json", b"{")
    with pytest.raises(ArtifactError, match=rf"chosen\.json is truncated.*delete {uri} and run"):
        commit(repository)


def test_a_commit_removes_what_killed_processes_left_half_written(tmp_path: Path) -> None:
    """After a day, in the artifact's folder alone; a younger one may still be written."""
    store = FolderStore(tmp_path / "store")
    repository = Repository(store, bucket="runs", prefix="", cache=tmp_path / "cache")
    folder = tmp_path / "store" / "runs" / "artifacts" / "generate" / "k1"
    assert store.local(repository.uri("generate", "k1")) == folder
    beside = folder.with_name("k2")
    yesterday = time.time() - 25 * 3600
    for path in (folder, folder / "attempts", beside):
        path.mkdir(parents=True)
        for name in (".partial-old", ".partial-young", "old"):
            (path / name).write_text("half")
            if name != ".partial-young":
                os.utime(path / name, (yesterday, yesterday))
    commit(repository)
    left = sorted(path.name for path in folder.iterdir())
    assert left == [
        ".partial-young",
        "attempts",
        "drops.jsonl",
        "manifest.json",
        "prompts.jsonl",
    ]
    assert [path.name for path in (folder / "attempts").iterdir()] == [".partial-young"]
    assert len(list(beside.iterdir())) == 3


def test_names_of_the_repository_are_refused(repository: Repository) -> None:
    """A file cannot take the place of the manifest or lie among the parts."""
    for name in ("manifest.json", "parts/x.jsonl", "checkpoints/x", "attempts/x"):
        with pytest.raises(ValueError, match="belong to the repository"):
            repository.commit(manifest(), {name: b""})


def test_parts_continue_where_they_ended(repository: Repository) -> None:
    """Rows appended by one process and its successor come back in order, by part."""
    assert repository.parts("generate", "k1", "answers", Prompt) == ()
    for start in range(0, 24, 2):
        rows = [Prompt(id=str(number), prompt="p") for number in (start, start + 1)]
        repository.append_part("generate", "k1", "answers", rows)
    repository.append_part("generate", "k1", "answers", [])
    repository.append_part("generate", "k1", "answers-2", DROPS)
    found = repository.parts("generate", "k1", "answers", Prompt)
    assert [row.id for row in found] == [str(number) for number in range(24)]
    assert repository.parts("generate", "k1", "answers-2", Drop) == DROPS
    assert repository.manifest("generate", "k1") is None


@pytest.mark.parametrize("content", [b"", b'{"id":"1","prompt":"p"}', b'{"id":"1"\n', b"\xff\n"])
def test_a_truncated_part_is_an_error(repository: Repository, content: bytes) -> None:
    """A part that lost its end is named and not taken for fewer rows."""
    repository.append_part("generate", "k1", "answers", PROMPTS)
    uri = repository.uri("generate", "k1") + "parts/answers/000002.jsonl"
    repository.store.write(uri, content)
    with pytest.raises(ArtifactError, match=uri):
        repository.parts("generate", "k1", "answers", Prompt)


def test_a_commit_ends_parts_and_checkpoints(repository: Repository, tmp_path: Path) -> None:
    """What was kept for a restart goes when the artifact is there."""
    repository.append_part("generate", "k1", "answers", PROMPTS)
    state = folder_of(tmp_path / "state", optimizer__pt="m")
    save(repository, 10, state, "label", stage="generate")
    commit(repository)
    assert names(repository) == ["drops.jsonl", "manifest.json", "prompts.jsonl"]


def test_the_latest_whole_checkpoint_is_found(repository: Repository, tmp_path: Path) -> None:
    """By number and not by name; older ones are gone, and one without a manifest does not count."""
    kept = repository.checkpoints("train", "k1")
    assert kept.latest() is None
    for step in (5, 20, 100):
        state = folder_of(tmp_path / str(step), optimizer__pt=f"m{step}", rng="r")
        (state / "rank0").mkdir()
        (state / "rank0" / "shard.pt").write_text(f"s{step}")
        save(repository, step, state, f"world-{step}")
    prefix = "checkpoints/100/"
    expected = ["manifest.json", "optimizer.pt", "rank0/shard.pt", "rng"]
    assert names(repository, "train") == [prefix + name for name in expected]
    uri = repository.uri("train", "k1") + "checkpoints/"
    repository.store.write(f"{uri}200/optimizer.pt", b"half")
    left = repository.store.read(f"{uri}100/manifest.json") or b""
    repository.store.write(f"{uri}20/manifest.json", left.replace(b"100", b"20"))
    found = kept.latest()
    assert found is not None
    assert (found.step, found.label) == (100, "world-100")
    kept.fetch(100, tmp_path / "restored")
    assert (tmp_path / "restored" / "optimizer.pt").read_text() == "m100"
    assert (tmp_path / "restored" / "rank0" / "shard.pt").read_text() == "s100"
    assert not (tmp_path / "restored" / "manifest.json").exists()


@pytest.mark.parametrize("changes", range(6))
def test_a_crash_while_saving_leaves_a_checkpoint(
    repository: Repository, bucket: str, tmp_path: Path, changes: int
) -> None:
    """Killed at any point of saving step 2, step 1 or step 2 can be restored, whole."""
    for step in (1, 2):
        folder_of(tmp_path / str(step), a=f"a{step}", b=f"b{step}")
    save(repository, 1, tmp_path / "1", "one")
    crashing = Repository(
        CrashingStore(repository.store, changes),
        bucket=bucket,
        prefix="team/runs",
        cache=tmp_path / "cache",
    )
    try:
        save(crashing, 2, tmp_path / "2", "two")
    except Crash:
        assert changes < 5
    else:
        assert changes >= 5
    found = repository.checkpoints("train", "k1").latest()
    assert found is not None
    step = found.step
    assert step == (2 if changes >= 4 else 1)
    repository.checkpoints("train", "k1").fetch(step, tmp_path / "restored")
    assert (tmp_path / "restored" / "a").read_text() == f"a{step}"
    assert (tmp_path / "restored" / "b").read_text() == f"b{step}"


def test_an_altered_checkpoint_is_an_error(repository: Repository, tmp_path: Path) -> None:
    """A damaged file or manifest of a checkpoint is named and not trained on."""
    state = folder_of(tmp_path / "state", optimizer__pt="momentum")
    save(repository, 3, state, "label")
    kept = repository.checkpoints("train", "k1")
    uri = repository.uri("train", "k1") + "checkpoints/3/"
    repository.store.write(f"{uri}optimizer.pt", b"momentun")
    with pytest.raises(ArtifactError, match=rf"{uri}optimizer\.pt"):
        kept.fetch(3, tmp_path / "restored")
    repository.store.write(f"{uri}manifest.json", b"{")
    with pytest.raises(ArtifactError, match=rf"{uri}manifest\.json"):
        kept.latest()


def test_an_index_is_kept_by_namespace_and_name(repository: Repository) -> None:
    """Runs of one name in two namespaces do not meet; the last write wins."""
    index = Index(name="run", outcome="Running", recipe={"a": 1})
    assert repository.read_index("team", "run") is None
    repository.write_index(index, "team")
    done = index.model_copy(update={"outcome": "Succeeded"})
    repository.write_index(done, "team")
    repository.write_index(index, None)
    assert repository.read_index("team", "run") == done
    assert repository.read_index(None, "run") == index


def test_an_index_that_cannot_be_read_is_an_error(repository: Repository, bucket: str) -> None:
    """A damaged index is named."""
    uri = f"s3://{bucket}/team/runs/runs/team.run/index.json"
    repository.store.write(uri, b"{")
    with pytest.raises(ArtifactError, match=uri):
        repository.read_index("team", "run")


def test_a_folder_goes_up_and_comes_down(
    repository: Repository, bucket: str, tmp_path: Path
) -> None:
    """Subfolders keep their place, hidden files stay behind, and the numbers say how many."""
    source = folder_of(tmp_path / "source", en__jsonl="1", __hidden="x")
    (source / "sub").mkdir()
    (source / "sub" / "de.jsonl").write_text("2")
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text("x")
    assert repository.upload_folder(source, f"s3://{bucket}/data/") == 2
    assert repository.download_folder(f"s3://{bucket}/data", tmp_path / "target") == 2
    found = sorted(path.name for path in (tmp_path / "target").rglob("*"))
    assert found == ["de.jsonl", "en.jsonl", "sub"]
    assert (tmp_path / "target" / "sub" / "de.jsonl").read_text() == "2"
    with pytest.raises(InputError, match=f"s3://{bucket}/absent/"):
        repository.download_folder(f"s3://{bucket}/absent", tmp_path / "target")
    with pytest.raises(InputError, match="expected a folder"):
        repository.upload_folder(tmp_path / "absent", f"s3://{bucket}/data")


def test_a_file_that_a_manifest_names_above_its_folder_is_refused(tmp_path: Path) -> None:
    """A name from a forged manifest never leads out of the artifact."""
    repository = Repository(FolderStore(tmp_path), bucket="b-b", prefix="", cache=tmp_path)
    with pytest.raises(InputError, match="segments"):
        repository.commit(manifest(), {"../escaped": b"x"})
