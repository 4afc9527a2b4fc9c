"""What a folder store promises beside the protocol: atomic files under a plain layout."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.store.folder import FolderStore


def test_a_uri_is_a_path_under_the_root(tmp_path: Path) -> None:
    """`s3://bucket/key` is `root/bucket/key`, so that a person finds it with `ls`."""
    store = FolderStore(tmp_path)
    store.write("s3://bucket/a/b.jsonl", b"x")
    assert (tmp_path / "bucket" / "a" / "b.jsonl").read_bytes() == b"x"
    assert store.local("s3://bucket/a/") == tmp_path / "bucket" / "a"


def test_files_are_readable_by_all_under_the_umask(tmp_path: Path) -> None:
    """A pod of another user reads what this one wrote; a stricter umask is respected."""
    store = FolderStore(tmp_path)
    for umask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            store.write("s3://bucket/object", b"x")
        finally:
            os.umask(before)
        assert (tmp_path / "bucket" / "object").stat().st_mode & 0o777 == mode


def test_without_a_root_only_file_uris_are_taken(tmp_path: Path) -> None:
    """`s3://` without a store says how to give one."""
    store = FolderStore(None)
    store.write(f"file://{tmp_path}/x", b"x")
    assert store.read(f"file://{tmp_path}/x") == b"x"
    with pytest.raises(InputError, match="--store DIR"):
        store.read("s3://bucket/key")


def test_a_killed_writer_leaves_the_old_object(tmp_path: Path) -> None:
    """SIGKILL in the middle of a large write: the old content stays and nothing else is listed."""
    store = FolderStore(tmp_path / "store")
    store.write("s3://bucket/object", b"old")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = (
        "import sys; from pathlib import Path;"
        "from selfimprove_pipeline.store.folder import FolderStore;"
        "FolderStore(Path(sys.argv[1])).upload(Path(sys.argv[2]), 's3://bucket/object')"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "store"), str(pipe)]
    with subprocess.Popen(arguments) as writer, pipe.open("wb") as half:
        # The write returns when the other side has taken all but the pipe's last 64 KiB.
        half.write(b"new" * (2 << 20))
        half.flush()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert writer.returncode == -signal.SIGKILL
    leftover = [path for path in (tmp_path / "store" / "bucket").iterdir() if path.name != "object"]
    assert sum(path.stat().st_size for path in leftover) > 1 << 20, "killed before it wrote"
    assert store.read("s3://bucket/object") == b"old"
    assert [entry.uri for entry in store.entries("s3://bucket/")] == ["s3://bucket/object"]


def test_what_the_system_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    """A file in the place of a folder is the user's to move, and the message names the path."""
    (tmp_path / "bucket").write_text("not a folder")
    with pytest.raises(InputError, match=str(tmp_path / "bucket")):
        FolderStore(tmp_path).write("s3://bucket/key", b"x")


def test_links_of_a_hub_cache_are_files(tmp_path: Path) -> None:
    """Snapshots of the hub's cache link to their files; a broken link is none."""
    (tmp_path / "blob").write_bytes(b"weights")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to("../blob")
    (snapshot / "broken").symlink_to("../absent")
    (entry,) = FolderStore(None).entries(f"file://{snapshot}/")
    assert (entry.uri, entry.size) == (f"file://{snapshot}/model.safetensors", 7)
