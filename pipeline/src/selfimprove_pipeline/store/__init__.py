"""Where artifacts, prompts and models lie: one protocol, a bucket and a folder behind it.

`folder` maps `s3://bucket/key` to `DIR/bucket/key`; `s3` is the only importer of the MinIO
SDK. `repository` writes artifacts on top of either: files first, manifest last. Both stores
take `file:///PATH` too, which lies on this machine. `open_store` chooses between them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Storage


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One stored object."""

    uri: str
    size: int
    version: str
    """version changes whenever the content does: an ETag, or size and time of a file."""


class Store(Protocol):
    """Objects under URIs. An object is there whole or not at all.

    An endpoint that cannot be reached is a `TryAgainError`; refused credentials, a missing
    bucket and the like are an `InputError`. Both name the URI.
    """

    def read(self, uri: str) -> bytes | None:
        """Return an object's content, None when there is none."""

    def write(self, uri: str, content: bytes) -> None:
        """Write or replace an object."""

    def create(self, uri: str, content: bytes) -> None:
        """Write an object unless there is one; reading it tells whose it is.

        It returns nothing, because an answer may be lost: a writer that asks again would take
        its own object for another's.
        """

    def copy(self, source: str, target: str) -> None:
        """Write or replace an object with the content of another of the same bucket.

        An absent source is an `InputError`.
        """

    def upload(self, path: Path, uri: str) -> None:
        """Write or replace an object from a file of any size."""

    def fetch(self, uri: str, path: Path) -> None:
        """Write an object of any size to a file, which appears whole or not at all."""

    def entries(self, prefix: str) -> tuple[Entry, ...]:
        """Return all objects whose URI begins with a prefix, sorted by URI."""

    def delete(self, uris: Iterable[str]) -> None:
        """Delete objects; one that is absent is no error."""

    def local(self, prefix: str) -> Path | None:
        """Return the folder on this machine that a prefix is, None when it must be fetched."""


def open_store(storage: Storage, *, folder: Path | None, environment: Mapping[str, str]) -> Store:
    """Return the store in a folder if one is given, else the S3 server that the recipe names.

    Where the recipe names none, AWS_ENDPOINT_URL does; without any it is an `InputError`.
    """
    if folder is not None:
        from selfimprove_pipeline.store.folder import FolderStore  # noqa: PLC0415 - as below

        return FolderStore(folder)
    if not (storage.endpoint or environment.get("AWS_ENDPOINT_URL")):
        message = (
            "expected a store, found none:"
            " pass --store DIR, or set storage.endpoint or AWS_ENDPOINT_URL"
        )
        raise InputError(message)
    # The protocol is imported everywhere and stays light; the SDK is loaded where it is used.
    from selfimprove_pipeline.store.s3 import connect  # noqa: PLC0415

    return connect(storage, environment)
