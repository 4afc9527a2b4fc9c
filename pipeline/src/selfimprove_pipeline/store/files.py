"""Files on this machine: written whole or not at all, listed, hashed, several at a time.

`folder` stores with it and `s3` fetches with it, so both promise the same: a file under its
own name is complete, and a killed process leaves the old one.
"""

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from selfimprove_pipeline.contract.errors import InputError, TryAgainError

PARTIAL = ".partial-"
"""Begins the name of a file that is still being written; no listing shows one."""

ABANDONED = 24 * 3600
"""Seconds without a write after which a partial file is that of a killed process."""

WORKERS = 4
"""Files that are moved or hashed at once; a large one is itself moved in parallel parts."""

T = TypeVar("T")
R = TypeVar("R")

_REFUSED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EOPNOTSUPP,
}
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an `InputError`, and a full disk into `TryAgainError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _REFUSED:
            message = f"expected to use {path}, found: {error.strerror}; check path and permissions"
            raise InputError(message) from error
        if error.errno in _PASSING:
            message = f"{path}: {error.strerror}; make room or wait, then run the same again"
            raise TryAgainError(message) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give an empty file beside `path` that takes its place when the block ends well.

    The mode is 0644 under the umask. The content is on the disk before the name is.
    """
    with _beside(path) as partial:
        yield partial
        _sync(partial)
        partial.replace(path)


def create(path: Path, content: bytes) -> None:
    """Write a file unless there is one; of several writers one succeeds, and the file is whole."""
    with _beside(path) as partial:
        partial.write_bytes(content)
        _sync(partial)
        with suppress(FileExistsError):
            path.hardlink_to(partial)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder, not below it, a day ago."""
    limit = time.time() - ABANDONED
    with explained(folder):
        for path in folder.glob(f"{PARTIAL}*"):
            with suppress(FileNotFoundError):  # another process removes it too
                if path.stat().st_mtime < limit:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files under a folder by relative name, sorted; hidden ones are left out."""
    if not folder.is_dir():
        message = f"expected a folder at {folder}, found none"
        raise InputError(message)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in names.items() if not is_hidden(name)}


def is_hidden(name: str) -> bool:
    """Return whether a relative name has a segment that begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return a function's results in the order of the items; the first error ends it."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(function, items))


def remove_empty(folder: Path) -> None:
    """Remove a folder and those below it, as far as they hold nothing."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give an empty file beside `path`, which is gone after the block."""
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
