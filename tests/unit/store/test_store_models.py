"""What a model folder promises: one digest wherever it lies, fetched once, checked."""

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfimprove_pipeline.contract.errors import ArtifactError, InputError
from selfimprove_pipeline.contract.manifests import File, Manifest
from selfimprove_pipeline.store import Entry, Store
from selfimprove_pipeline.store.repository import Repository, is_model_payload

MODEL = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"one" * 1000,
    "model-00002-of-00002.safetensors": b"two" * 1000,
    "model.safetensors.index.json": b'{"weight_map":{}}',
    "tokenizer.json": b"[]",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
}
BESIDE = {"README.md": b"# M0", "metrics.json": b"{}", "adapter/adapter_model.safetensors": b"a"}


class CountingStore:
    """A store that counts how often content is read and listed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fetched: list[str] = []
        self.listed = 0

    def read(self, uri: str) -> bytes | None:
        """Do as `Store` says."""
        self.fetched.append(uri)
        return self._store.read(uri)

    def write(self, uri: str, content: bytes) -> None:
        """Do as `Store` says."""
        self._store.write(uri, content)

    def create(self, uri: str, content: bytes) -> None:
        """Do as `Store` says."""
        self._store.create(uri, content)

    def copy(self, source: str, target: str) -> None:
        """Do as `Store` says."""
        self._store.copy(source, target)

    def upload(self, path: Path, uri: str) -> None:
        """Do as `Store` says."""
        self._store.upload(path, uri)

    def fetch(self, uri: str, path: Path) -> None:
        """Do as `Store` says."""
        self.fetched.append(uri)
        self._store.fetch(uri, path)

    def entries(self, prefix: str) -> tuple[Entry, ...]:
        """Do as `Store` says."""
        self.listed += 1
        return self._store.entries(prefix)

    def delete(self, uris: Iterable[str]) -> None:
        """Do as `Store` says."""
        self._store.delete(uris)

    def local(self, prefix: str) -> Path | None:
        """Do as `Store` says."""
        return self._store.local(prefix)


@pytest.fixture
def counting(store: Store) -> CountingStore:
    """Give the store with its counters."""
    return CountingStore(store)


@pytest.fixture
def repository(counting: CountingStore, bucket: str, tmp_path: Path) -> Repository:
    """Give the repository of a bucket whose cache is still empty."""
    return Repository(counting, bucket=bucket, prefix="", cache=tmp_path / "cache")


@pytest.fixture
def uri(store: Store, bucket: str) -> str:
    """Give the URI of a model folder in the bucket."""
    for name, content in (MODEL | BESIDE).items():
        store.write(f"s3://{bucket}/models/m0/{name}", content)
    return f"s3://{bucket}/models/m0"


def contents(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, by name."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("name", "is_payload"),
    [
        *((name, True) for name in MODEL),
        *((name, False) for name in BESIDE),
        ("pytorch_model.bin", True),
        ("generation_config.json", True),
        ("vocab.json", True),
        ("merges.txt", True),
        ("special_tokens_map.json", True),
        ("added_tokens.json", True),
        ("tokenizer.model", True),
        ("qwen.tiktoken", True),
        ("additional_chat_templates/tool_use.jinja", True),
        ("training_args.bin", False),
        ("manifest.json", False),
        ("checkpoint-5/model.safetensors", False),
        ("original/tokenizer.model", False),
        ("trainer_state.json", False),
    ],
)
def test_the_payload_is_what_determines_the_model(name: str, is_payload: bool) -> None:
    """Weights, configuration, tokenizer and template; no reports and no leftovers of trainers."""
    assert is_model_payload(name) == is_payload


def test_a_folder_has_the_digest_that_its_artifact_has(
    repository: Repository, uri: str, tmp_path: Path
) -> None:
    """The same files give the same digest, in a bucket, in a folder and as an artifact."""
    source = tmp_path / "source"
    repository.download_folder(uri, source)
    digest, files = repository.model_digest(uri)
    manifest = Manifest(stage="train", key="k", digest="", files=())
    committed = repository.commit_folder(manifest, source, is_payload=is_model_payload)
    assert committed.digest == digest
    assert {file.name for file in files} == set(MODEL)
    assert tuple(file for file in committed.files if file.is_payload) == files
    assert repository.model_digest(f"file://{source}") == (digest, files)
    assert repository.model_digest(repository.uri("train", "k")) == (digest, files)


def test_the_digest_changes_with_the_payload_alone(
    repository: Repository, store: Store, uri: str
) -> None:
    """Another README is the same model, another chat template is not."""
    before, _ = repository.model_digest(uri)
    store.write(f"{uri}/README.md", b"another")
    assert repository.model_digest(uri)[0] == before
    store.write(f"{uri}/chat_template.jinja", b"{{ MESSAGES }}")
    assert repository.model_digest(uri)[0] != before


def test_a_second_digest_costs_one_listing(
    repository: Repository, counting: CountingStore, uri: str, tmp_path: Path
) -> None:
    """Hashes are remembered by version, for this process and the next; a broken memory is none."""
    first = repository.model_digest(uri)
    counting.fetched.clear()
    counting.listed = 0
    again = Repository(counting, bucket="unused", prefix="", cache=tmp_path / "cache")
    assert again.model_digest(uri) == first
    assert (counting.fetched, counting.listed) == ([], 1)
    for broken in (b"", b"[]", b'{"a": 1}', b"\xff", b'{"cut'):
        (tmp_path / "cache" / "digests.json").write_bytes(broken)
        assert again.model_digest(uri) == first
    (tmp_path / "cache" / "digests.json").unlink()
    assert again.model_digest(uri) == first


def test_a_remembered_hash_is_really_used(
    repository: Repository, store: Store, uri: str, tmp_path: Path
) -> None:
    """What the memory says about an unchanged object stands, so that nothing large is read."""
    repository.model_digest(uri)
    memory = tmp_path / "cache" / "digests.json"
    text = memory.read_text()
    (entry,) = store.entries(f"{uri}/tokenizer.json")
    (line,) = [line for line in text.splitlines() if f"tokenizer.json {entry.size} " in line]
    sha256 = line.rstrip(",").rpartition(" ")[2].strip('"')
    memory.write_text(text.replace(sha256, "0" * 64))
    _, files = repository.model_digest(uri)
    assert "0" * 64 in {file.sha256 for file in files}


@pytest.mark.parametrize("with_files", [True, False])
def test_a_model_is_fetched_once(
    repository: Repository, counting: CountingStore, uri: str, with_files: bool
) -> None:
    """A bucket's files come once into a folder that a library opens; a local folder is used."""
    files = repository.model_digest(uri)[1] if with_files else None
    folder = repository.fetch_model(uri, files=files)
    found = contents(folder)
    assert MODEL.items() <= found.items()
    assert all((folder / name).stat().st_mode & 0o777 == 0o644 for name in found)
    if counting.local(uri) is None:
        assert found == (MODEL if with_files else MODEL | BESIDE)
        assert len(counting.fetched) == len(set(counting.fetched)) == len(found)
    else:
        assert folder == counting.local(uri)
        assert counting.fetched == []
    counting.fetched.clear()
    assert repository.fetch_model(f"{uri}/", files=files) == folder
    assert counting.fetched == []


def test_processes_that_want_one_model_fetch_it_once(
    counting: CountingStore, uri: str, tmp_path: Path
) -> None:
    """The others wait for the lock and find the folder."""
    repositories = [
        Repository(counting, bucket="unused", prefix="", cache=tmp_path / "cache") for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda each: each.fetch_model(uri, files=None), repositories))
    assert len(set(folders)) == 1
    assert MODEL.items() <= contents(folders[0]).items()
    assert len(counting.fetched) == len(set(counting.fetched))


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_damaged_cache_is_fetched_again(repository: Repository, uri: str, tmp_path: Path) -> None:
    """A folder that lost a file, or a file that lost its end, is made whole."""
    _, files = repository.model_digest(uri)
    folder = repository.fetch_model(uri, files=files)
    (folder / "config.json").unlink()
    (blob,) = (
        path for path in (tmp_path / "cache" / "blobs").iterdir() if b"one" in path.read_bytes()
    )
    blob.write_bytes(b"one")
    assert contents(repository.fetch_model(uri, files=files)) == MODEL


def test_an_altered_model_is_an_error(
    repository: Repository, store: Store, uri: str, tmp_path: Path
) -> None:
    """A file of the same size and other content is named, however the model is reached."""
    _, files = repository.model_digest(uri)
    fresh = Repository(store, bucket="unused", prefix="", cache=tmp_path / "other")
    name = "model-00001-of-00002.safetensors"
    store.write(f"{uri}/{name}", MODEL[name].replace(b"one", b"eno"))
    with pytest.raises(ArtifactError, match=rf"{uri}/{name}"):
        fresh.fetch_model(uri, files=files)
    store.write(f"{uri}/{name}", MODEL[name])
    assert MODEL.items() <= contents(fresh.fetch_model(uri, files=files)).items()


def test_a_file_that_the_model_lacks_is_an_error(repository: Repository, uri: str) -> None:
    """A manifest that names more than there is names what is missing."""
    more = File(name="more.safetensors", size=1, sha256="0" * 64)
    with pytest.raises((ArtifactError, InputError), match=rf"{uri}/more\.safetensors"):
        repository.fetch_model(uri, files=(more,))


def test_an_absent_model_is_for_the_user_to_correct(repository: Repository, bucket: str) -> None:
    """A URI without a model names itself."""
    for action in (
        lambda uri: repository.fetch_model(uri, files=None),
        repository.model_digest,
    ):
        with pytest.raises(InputError, match=f"s3://{bucket}/absent"):
            action(f"s3://{bucket}/absent")


@pytest.mark.parametrize("others", [["training_args.bin", "optimizer.bin"], ["README.md"], []])
def test_a_folder_without_weights_is_no_model(
    repository: Repository, store: Store, bucket: str, others: list[str]
) -> None:
    """Configuration and tokenizer alone are refused before anything is started with them."""
    uri = f"s3://{bucket}/models/half"
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json", *others):
        store.write(f"{uri}/{name}", b"{}")
    with pytest.raises(InputError, match=rf"{uri}, found no weights there; add \*\.safetensors"):
        repository.model_digest(uri)
    store.write(f"{uri}/pytorch_model.bin", b"weights")
    assert "pytorch_model.bin" in {file.name for file in repository.model_digest(uri)[1]}


def test_opening_a_cache_removes_what_killed_processes_left(store: Store, tmp_path: Path) -> None:
    """Files and folders that nobody has written to for a day go; younger ones stay."""
    cache = tmp_path / "cache"
    yesterday = time.time() - 25 * 3600
    for folder in (cache, cache / "incoming", cache / "models"):
        folder.mkdir(exist_ok=True)
        for name in (".partial-young", ".partial-old", "whole"):
            (folder / name).write_text("half")
    (cache / "models" / ".partial-links").mkdir()
    (cache / "models" / ".partial-links" / "config.json").symlink_to("../../absent")
    for path in [*cache.rglob(".partial-old"), *cache.rglob("whole"), *cache.rglob("*-links")]:
        os.utime(path, (yesterday, yesterday))
    Repository(store, bucket="unused", prefix="", cache=cache)
    found = sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*"))
    assert found == sorted(
        [
            *("incoming", "incoming/.partial-young", "incoming/whole"),
            *("models", "models/.partial-young", "models/whole"),
            *(".partial-young", "whole"),
        ]
    )
