"""A folder in the place of a bucket: `s3://bucket/key` is `root/bucket/key`.

It is what a run on one machine stores in, and the way to `file://` URIs for every store.
Several processes may use one folder: each file is replaced whole (`files.replacing`).
"""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.store import Entry
from selfimprove_pipeline.store.files import PARTIAL, create, explained, replacing
from selfimprove_pipeline.store.uris import path_under


class FolderStore:
    """A `Store` in a folder. Without a root it holds `file://` URIs alone."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def read(self, uri: str) -> bytes | None:
        """Return an object's content, None when there is none."""
        path = path_under(self._root, uri)
        with explained(path):
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def write(self, uri: str, content: bytes) -> None:
        """Write or replace an object."""
        with replacing(path_under(self._root, uri)) as partial:
            partial.write_bytes(content)

    def create(self, uri: str, content: bytes) -> None:
        """Write an object unless there is one."""
        create(path_under(self._root, uri), content)

    def copy(self, source: str, target: str) -> None:
        """Write or replace an object with the content of another, by a hard link."""
        origin = path_under(self._root, source)
        with replacing(path_under(self._root, target)) as partial:
            partial.unlink()
            try:
                partial.hardlink_to(origin)
            except FileNotFoundError as error:
                message = f"expected an object at {source}, found none"
                raise InputError(message) from error

    def upload(self, path: Path, uri: str) -> None:
        """Write or replace an object from a file of any size."""
        with replacing(path_under(self._root, uri)) as partial:
            _copy(path, partial)

    def fetch(self, uri: str, path: Path) -> None:
        """Write an object of any size to a file, which appears whole or not at all."""
        source = path_under(self._root, uri)
        if not source.is_file():
            message = f"expected an object at {uri}, found none"
            raise InputError(message)
        with replacing(path) as partial:
            _copy(source, partial)

    def entries(self, prefix: str) -> tuple[Entry, ...]:
        """Return all objects whose URI begins with a prefix, sorted by URI."""
        path_under(self._root, prefix, is_prefix=True)
        base = prefix[: prefix.rfind("/", prefix.index("://") + 3) + 1] or f"{prefix}/"
        top = path_under(self._root, base, is_prefix=True)
        with explained(top):
            found = (
                _entry(base + path.relative_to(top).as_posix(), path)
                for path in _walk(top, prefix.removeprefix(base))
            )
            matching = (entry for entry in found if entry and entry.uri.startswith(prefix))
            return tuple(sorted(matching, key=lambda entry: entry.uri))

    def delete(self, uris: Iterable[str]) -> None:
        """Delete objects; one that is absent is no error."""
        for uri in uris:
            path = path_under(self._root, uri)
            with explained(path), suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()

    def local(self, prefix: str) -> Path | None:
        """Return the folder that a prefix is."""
        return path_under(self._root, prefix, is_prefix=True)


def _walk(top: Path, beginning: str) -> Iterator[Path]:
    """Give the files under `top` whose first segment begins so; an absent folder has none."""
    for folder, folders, names in os.walk(top, onerror=_raise_unless_absent):
        if Path(folder) == top:
            folders[:] = [name for name in folders if name.startswith(beginning)]
        yield from (Path(folder, name) for name in names if not name.startswith(PARTIAL))


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _entry(uri: str, path: Path) -> Entry | None:
    """Return a regular file's entry; None for one that another process has just deleted."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Entry(uri=uri, size=status.st_size, version=f"{status.st_size}-{status.st_mtime_ns}")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
