"""What a URI of an object or of a folder may look like, for every store alike.

`s3://bucket/key` lies in the store; `file:///folder/name` lies on this machine, whatever the
store is. Keys are literal: nothing is percent-decoded. A segment that is empty, `.` or `..`
means different objects to a bucket and to a folder, so neither store takes one.
"""

from pathlib import Path, PurePosixPath

from selfimprove_pipeline.contract.errors import InputError

_S3 = "s3://"
_FILE = "file://"


def is_local(uri: str) -> bool:
    """Return whether a URI lies on this machine."""
    return uri.startswith(_FILE)


def folder_uri(prefix: str) -> str:
    """Return a prefix with exactly one slash at its end, so that it means one folder."""
    return prefix.rstrip("/") + "/"


def bucket_and_key(uri: str, *, is_prefix: bool = False) -> tuple[str, str]:
    """Return the two parts of an `s3://` URI; only a prefix may end in a slash or lack a key."""
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    if not uri.startswith(_S3) or bucket in {"", ".", ".."}:
        message = f"expected s3://BUCKET/KEY or file:///PATH, found {uri}"
        raise InputError(message)
    _check(uri, key, is_prefix=is_prefix)
    return bucket, key


def path_under(root: Path | None, uri: str, *, is_prefix: bool = False) -> Path:
    """Return the path that a URI has on this machine, with `s3://` under a root.

    Without a root only `file://` has a path; `s3://` is then an `InputError`.
    """
    if is_local(uri):
        path = PurePosixPath(uri.removeprefix(_FILE))
        if not path.is_absolute():
            message = f"expected file:/// and an absolute path, found {uri}"
            raise InputError(message)
        _check(uri, uri.removeprefix(f"{_FILE}/"), is_prefix=is_prefix)
        return Path(path)
    bucket, key = bucket_and_key(uri, is_prefix=is_prefix)
    if root is None:
        message = f"{uri} needs a store: pass --store DIR, or set storage.endpoint"
        raise InputError(message)
    return root / bucket / key


def _check(uri: str, key: str, *, is_prefix: bool) -> None:
    *folders, name = key.split("/")
    refused = {"", ".", ".."}
    refused_at_end = refused - {""} if is_prefix else refused
    if name in refused_at_end or not refused.isdisjoint(folders) or "\0" in key:
        message = f"expected a key without empty, '.' and '..' segments, found {uri!r}"
        raise InputError(message)
