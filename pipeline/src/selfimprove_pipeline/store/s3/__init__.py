"""A bucket on an S3 server, and the only importer of the MinIO SDK.

The SDK uploads a large file in parallel parts; it has no parallel download, so a fetch here
reads ranges of 16 MiB at once. `connection` makes the client, `failures` says what its errors
mean.
"""

import io
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from minio import Minio
from minio.commonconfig import ComposeSource, CopySource
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.helpers import DictType
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError
from urllib3.response import BaseHTTPResponse

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.recipe import Storage
from selfimprove_pipeline.store import Entry
from selfimprove_pipeline.store.files import replacing
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.s3.connection import client
from selfimprove_pipeline.store.s3.failures import explained, refusal
from selfimprove_pipeline.store.uris import bucket_and_key, is_local

RANGE = 16 << 20
"""Bytes of one range or part."""

COPY_RANGE = 32 << 20
"""Bytes that a server copies for one request, well within the patience for its answer."""

MAX_PARTS = 10_000
"""Parts that an object may have by the S3 protocol."""

_PAUSES = (0.25, 0.5, 1.0, 2.0)
_CHANGED = {"PreconditionFailed", "InvalidRange", "NoSuchKey"}
_PARTIAL_CONTENT = 206

T = TypeVar("T")


def connect(storage: Storage, environment: Mapping[str, str]) -> "S3Store":
    """Return the store of a recipe; nothing is sent before it is first used."""
    minio, endpoint = client(storage, environment)
    return S3Store(minio, endpoint=endpoint)


class S3Store:
    """A `Store` on an S3 server. `file://` URIs lie on this machine, as for every store."""

    def __init__(self, minio: Minio, *, endpoint: str) -> None:
        self._minio = minio
        self._endpoint = endpoint
        self._files = FolderStore(None)
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="range")

    def read(self, uri: str) -> bytes | None:
        """Return an object's content, None when there is none."""
        if is_local(uri):
            return self._files.read(uri)
        bucket, key = bucket_and_key(uri)
        with explained(self._endpoint, uri):
            try:
                return _patiently(lambda: self._content(bucket, key))
            except S3Error as error:
                if error.code == "NoSuchKey":
                    return None
                raise

    def write(self, uri: str, content: bytes) -> None:
        """Write or replace an object."""
        if is_local(uri):
            return self._files.write(uri, content)
        bucket, key = bucket_and_key(uri)
        with explained(self._endpoint, uri):
            self._minio.put_object(bucket, key, io.BytesIO(content), len(content))
        return None

    def create(self, uri: str, content: bytes) -> None:
        """Write an object unless there is one, by a conditional request of the S3 protocol."""
        if is_local(uri):
            return self._files.create(uri, content)
        bucket, key = bucket_and_key(uri)
        condition: DictType = {"If-None-Match": "*"}
        with explained(self._endpoint, uri):
            try:
                # The SDK's public call takes no headers.
                self._minio._put_object(bucket, key, content, condition)  # noqa: SLF001
            except S3Error as error:
                if error.code != "PreconditionFailed":
                    raise
        return None

    def copy(self, source: str, target: str) -> None:
        """Write or replace an object with the content of another, inside the server."""
        if is_local(source):
            return self._files.copy(source, target)
        bucket, key = bucket_and_key(target)
        origin = bucket_and_key(source)
        with explained(self._endpoint, source):
            size = self._stat(source).size or 0
            if size <= COPY_RANGE:
                self._minio.copy_object(bucket, key, CopySource(*origin))
                return None
            step = max(COPY_RANGE, size // MAX_PARTS + 1)
            ranges = [
                ComposeSource(*origin, offset=start, length=min(step, size - start))
                for start in range(0, size, step)
            ]
            self._minio.compose_object(bucket, key, ranges)
        return None

    def upload(self, path: Path, uri: str) -> None:
        """Write or replace an object from a file of any size, in parallel parts."""
        if is_local(uri):
            return self._files.upload(path, uri)
        bucket, key = bucket_and_key(uri)
        part_size = max(RANGE, path.stat().st_size // MAX_PARTS + 1)
        with explained(self._endpoint, uri):
            result = self._minio.fput_object(
                bucket, key, str(path), part_size=part_size, num_parallel_uploads=4
            )
        if not result.etag:
            # A server may answer 200 to the last request of a multipart upload and yet fail.
            message = f"{self._endpoint} did not finish {uri}; run the same again"
            raise TryAgainError(message)
        return None

    def fetch(self, uri: str, path: Path) -> None:
        """Write an object of any size to a file, which appears whole or not at all."""
        if is_local(uri):
            return self._files.fetch(uri, path)
        with explained(self._endpoint, uri):
            found = self._stat(uri)
            size, etag = found.size or 0, found.etag or ""
            with replacing(path) as partial, partial.open("r+b", buffering=0) as file:
                file.truncate(size)
                source = _Source(self._minio, uri, etag, file.fileno())
                _gather(
                    [
                        self._pool.submit(source.copy, start, min(RANGE, size - start))
                        for start in range(0, size, RANGE)
                    ]
                )
        return None

    def entries(self, prefix: str) -> tuple[Entry, ...]:
        """Return all objects whose URI begins with a prefix, sorted by URI.

        A key that ends in a slash is how a console shows an empty folder, and no object of ours.
        """
        if is_local(prefix):
            return self._files.entries(prefix)
        bucket, key = bucket_and_key(prefix, is_prefix=True)
        with explained(self._endpoint, prefix):
            found = tuple(self._minio.list_objects(bucket, prefix=key, recursive=True))
        entries = (
            Entry(uri=f"s3://{bucket}/{name}", size=item.size or 0, version=item.etag or "")
            for item in found
            if (name := item.object_name) and not name.endswith("/")
        )
        return tuple(sorted(entries, key=lambda entry: entry.uri))

    def delete(self, uris: Iterable[str]) -> None:
        """Delete objects; one that is absent is no error."""
        everything = sorted(uris)
        self._files.delete(filter(is_local, everything))
        parts = [bucket_and_key(uri) for uri in everything if not is_local(uri)]
        for bucket, group in groupby(parts, key=lambda part: part[0]):
            with explained(self._endpoint, f"s3://{bucket}"):
                names = [DeleteObject(key) for _, key in group]
                for error in self._minio.remove_objects(bucket, names):
                    if error.code != "NoSuchKey":
                        raise refusal(error.code, self._endpoint, f"s3://{bucket}/{error.name}")

    def local(self, prefix: str) -> Path | None:
        """Return the folder that a `file://` prefix is; `s3://` must be fetched."""
        return self._files.local(prefix) if is_local(prefix) else None

    def _content(self, bucket: str, key: str) -> bytes:
        response = self._minio.get_object(bucket, key)
        try:
            return response.read(decode_content=False)
        finally:
            _release(response)

    def _stat(self, uri: str) -> Object:
        try:
            return self._minio.stat_object(*bucket_and_key(uri))
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            message = f"expected an object at {uri}, found none"
            raise InputError(message) from error


class _Source:
    """One version of an object on its way into an open file."""

    def __init__(self, minio: Minio, uri: str, etag: str, descriptor: int) -> None:
        self._minio = minio
        self._uri = uri
        self._etag = etag
        self._descriptor = descriptor

    def copy(self, start: int, size: int) -> None:
        """Copy a range; one that is cut off is taken up where it ended."""
        position = start
        end = start + size

        def rest() -> None:
            nonlocal position
            response = self._open(position, end - position)
            try:
                for chunk in response.stream(1 << 20, decode_content=False):
                    _write_at(self._descriptor, chunk, position)
                    position += len(chunk)
            finally:
                _release(response)
            if position < end:
                message = f"{end - position} bytes are missing"
                raise ProtocolError(message)

        _patiently(rest)

    def _open(self, start: int, size: int) -> BaseHTTPResponse:
        condition: DictType = {"If-Match": f'"{self._etag}"'}
        try:
            response = self._minio.get_object(
                *bucket_and_key(self._uri), start, size, request_headers=condition
            )
        except S3Error as error:
            if error.code not in _CHANGED:
                raise
            raise self._changed() from error
        etag = response.headers.get("etag", "").strip('"')
        if response.status == _PARTIAL_CONTENT and etag == self._etag:
            return response
        _release(response)
        raise self._changed()

    def _changed(self) -> TryAgainError:
        return TryAgainError(f"{self._uri} changed while it was fetched; run the same again")


def _patiently(action: Callable[[], T]) -> T:
    """Return an action's result; repeat it when the connection breaks off in an answer.

    The connection itself retries only until the answer's first byte.
    """
    for pause in _PAUSES:
        try:
            return action()
        except MaxRetryError:
            raise
        except HTTPError:
            time.sleep(pause)
    return action()


def _gather(tasks: list[Future[None]]) -> None:
    """Wait for all tasks; after the first error none is left at work on the file."""
    try:
        for task in as_completed(tasks):
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        wait(tasks)


def _write_at(descriptor: int, content: bytes, position: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, position)
        rest, position = rest[written:], position + written


def _release(response: BaseHTTPResponse) -> None:
    response.close()
    response.release_conn()
