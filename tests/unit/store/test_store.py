"""What every store promises, shown on a folder and on a real S3 server alike."""

import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Storage
from selfimprove_pipeline.store import Store, open_store
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.s3 import S3Store
from support.s3 import Server


def test_read_returns_what_was_written_last(store: Store, bucket: str) -> None:
    """An object is None before it is written, and replaced whole afterwards."""
    uri = f"s3://{bucket}/folder/na me-ü+&.jsonl"
    assert store.read(uri) is None
    store.write(uri, b"one")
    store.write(uri, b"")
    assert store.read(uri) == b""
    store.write(uri, b"three\n")
    assert store.read(uri) == b"three\n"


def test_create_keeps_the_object_that_is_there(store: Store, bucket: str) -> None:
    """The first content stays, even an empty one, until it is deleted."""
    uri = f"s3://{bucket}/folder/choice"
    store.create(uri, b"")
    store.create(uri, b"second")
    assert store.read(uri) == b""
    store.delete([uri])
    store.create(uri, b"third")
    assert store.read(uri) == b"third"
    assert [entry.uri for entry in store.entries(f"s3://{bucket}/")] == [uri]


def test_a_copy_is_another_object(store: Store, bucket: str) -> None:
    """It replaces what was there, and stays when its source changes or goes."""
    source, target = f"s3://{bucket}/a/na me-ü+&", f"s3://{bucket}/b/copy"
    store.write(target, b"old")
    store.write(source, b"one")
    store.copy(source, target)
    store.copy(source, target)
    store.write(source, b"two")
    assert store.read(target) == b"one"
    store.delete([source])
    assert store.read(target) == b"one"
    with pytest.raises(InputError, match=re.escape(f"{source}, found none")):
        store.copy(source, target)
    assert store.read(target) == b"one"
    assert [entry.uri for entry in store.entries(f"s3://{bucket}/")] == [target]


def test_a_large_copy_keeps_every_byte(store: Store, bucket: str, tmp_path: Path) -> None:
    """A server copies a large object in ranges, of which the last is short."""
    (tmp_path / "source").write_bytes(secrets.token_bytes(65 << 20))
    store.upload(tmp_path / "source", f"s3://{bucket}/large")
    store.copy(f"s3://{bucket}/large", f"s3://{bucket}/copy")
    store.fetch(f"s3://{bucket}/copy", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_reading_a_folder_finds_no_object(store: Store, bucket: str) -> None:
    """A prefix of other keys is no object, nor is a key below an object."""
    store.write(f"s3://{bucket}/a/b", b"x")
    assert store.read(f"s3://{bucket}/a") is None
    assert store.read(f"s3://{bucket}/absent/b") is None


@pytest.mark.parametrize("size", [0, 1, 40 << 20])
def test_upload_and_fetch_keep_every_byte(
    store: Store, bucket: str, tmp_path: Path, size: int
) -> None:
    """A file goes up in parts and comes down in ranges, and is the same, readable by all."""
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(secrets.token_bytes(size))
    store.upload(source, f"s3://{bucket}/large")
    store.fetch(f"s3://{bucket}/large", target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_fetching_an_absent_object_names_it(store: Store, bucket: str, tmp_path: Path) -> None:
    """Nothing to fetch is the user's to correct, and leaves no file."""
    with pytest.raises(InputError, match=rf"s3://{bucket}/absent"):
        store.fetch(f"s3://{bucket}/absent", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_entries_are_sorted_and_match_the_prefix_as_text(store: Store, bucket: str) -> None:
    """A prefix need not end at a folder; entries come sorted by URI with their sizes."""
    names = ["art", "art/x", "artifacts/b", "artifacts/a/2", "artifacts/a/10", "other/a"]
    for name in names[1:]:
        store.write(f"s3://{bucket}/{name}", name.encode())
    found = [(entry.uri, entry.size) for entry in store.entries(f"s3://{bucket}/art")]
    uris = [f"s3://{bucket}/{name}" for name in sorted(names[1:-1])]
    assert [uri for uri, _ in found] == uris
    assert [size for _, size in found] == [len(uri.split("/", 3)[3]) for uri in uris]
    assert len(store.entries(f"s3://{bucket}/artifacts/a/")) == 2
    assert len(store.entries(f"s3://{bucket}/")) == 5
    assert store.entries(f"s3://{bucket}/absent/") == ()


def test_more_entries_than_a_server_lists_at_once(store: Store, bucket: str) -> None:
    """A listing of 1,000 is a page of the S3 protocol, and no end."""
    uris = [f"s3://{bucket}/many/{number:04d}" for number in range(1003)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda uri: store.write(uri, b"x"), uris))
    assert [entry.uri for entry in store.entries(f"s3://{bucket}/many/")] == uris
    store.delete(uris)
    assert store.entries(f"s3://{bucket}/many/") == ()


def test_an_entrys_version_changes_with_the_content(store: Store, bucket: str) -> None:
    """Content of the same size is told apart by its version; unchanged content keeps it."""
    uri = f"s3://{bucket}/object"
    store.write(uri, b"one")
    (first,) = store.entries(uri)
    assert store.entries(uri) == (first,)
    store.write(uri, b"two")
    (second,) = store.entries(uri)
    assert second.version != first.version


def test_deleting_removes_objects_and_forgives_absent_ones(store: Store, bucket: str) -> None:
    """Objects go together, and one that is not there is no error."""
    for name in ("a", "b", "c"):
        store.write(f"s3://{bucket}/{name}", b"x")
    absent = (f"s3://{bucket}/absent", f"s3://{bucket}/a/below")
    store.delete(iter([f"s3://{bucket}/a", *absent, f"s3://{bucket}/b"]))
    assert [entry.uri for entry in store.entries(f"s3://{bucket}/")] == [f"s3://{bucket}/c"]
    store.delete([])


@pytest.mark.parametrize("key", ["../x", "a/../x", "a/..", "./x", "a//x", "/x", "", "a/", "a\0"])
def test_keys_that_mean_other_objects_in_a_folder_are_refused(store: Store, key: str) -> None:
    """What a folder would resolve to another path is no key, for reading and for writing."""
    with pytest.raises(InputError, match="expected"):
        store.write(f"s3://bucket/{key}", b"x")
    with pytest.raises(InputError, match="expected"):
        store.read(f"s3://bucket/{key}")


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3://../key", "http://b/key", "key"])
def test_other_uris_are_refused(store: Store, uri: str) -> None:
    """Only `s3://BUCKET/KEY` and `file:///PATH` name objects."""
    with pytest.raises(InputError, match="expected"):
        store.read(uri)


def test_file_uris_lie_on_this_machine_for_every_store(store: Store, tmp_path: Path) -> None:
    """All operations take `file://`, and `local` gives the folder itself."""
    uri = f"file://{tmp_path}/data/en.jsonl"
    store.write(uri, b"row\n")
    assert (tmp_path / "data" / "en.jsonl").read_bytes() == b"row\n"
    assert store.read(uri) == b"row\n"
    store.fetch(uri, tmp_path / "copy")
    store.upload(tmp_path / "copy", f"file://{tmp_path}/data/de.jsonl")
    names = [entry.uri for entry in store.entries(f"file://{tmp_path}/data/")]
    assert names == [f"file://{tmp_path}/data/de.jsonl", uri]
    assert store.local(f"file://{tmp_path}/data") == tmp_path / "data"
    store.delete(names)
    assert store.entries(f"file://{tmp_path}/data/") == ()
    with pytest.raises(InputError, match="absolute"):
        store.read("file://relative/path")


def test_concurrent_writers_leave_one_whole_object(store: Store, bucket: str) -> None:
    """Readers meet the content of one writer, never parts of two."""
    uri = f"s3://{bucket}/contended"
    contents = [bytes([number]) * 300_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(store.write, uri, content) for content in contents * 4]
        while not all(write.done() for write in writes):
            assert store.read(uri) in (None, *contents)
        for write in writes:
            write.result()
    assert store.read(uri) in contents


def test_open_store_prefers_the_folder(tmp_path: Path, s3_server: Server) -> None:
    """`--store DIR` wins over an endpoint; the recipe's endpoint or the environment's opens S3."""
    environment = s3_server.environment()
    storage = Storage(bucket="runs", endpoint=s3_server.endpoint)
    assert isinstance(open_store(storage, folder=tmp_path, environment=environment), FolderStore)
    assert isinstance(open_store(storage, folder=None, environment=environment), S3Store)
    unset = Storage(bucket="runs")
    assert isinstance(open_store(unset, folder=None, environment=environment), S3Store)


def test_no_store_says_what_to_pass() -> None:
    """Without folder and endpoint the message names all three ways to give one."""
    with pytest.raises(InputError, match=r"--store DIR.*storage\.endpoint.*AWS_ENDPOINT_URL"):
        open_store(Storage(bucket="runs"), folder=None, environment={})
