"""Artifacts on a store: files first, manifest last, and nothing read that does not match it.

A stage asks it for the rows of earlier stages and commits its own; a model comes and goes as
a folder. `commits` lays an artifact down, `models` and `checkpoints` do their share behind it.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from selfimprove_pipeline.contract.errors import ArtifactError, InputError
from selfimprove_pipeline.contract.manifests import (
    CONTRACT,
    INDEX,
    MANIFEST,
    File,
    Index,
    Manifest,
    artifact_prefix,
    index_uri,
    payload_digest,
    run_prefix,
    runs_prefix,
)
from selfimprove_pipeline.contract.rows import Row, RowT, lines, rows
from selfimprove_pipeline.store import Entry, Store
from selfimprove_pipeline.store.checkpoints import Checkpoints
from selfimprove_pipeline.store.commits import Commit
from selfimprove_pipeline.store.files import (
    files_in,
    in_parallel,
    is_hidden,
    remove_empty,
    sha256_of,
)
from selfimprove_pipeline.store.models import WORK, Models, is_model_payload
from selfimprove_pipeline.store.uris import folder_uri

__all__ = ["Repository", "is_model_payload"]

COUNTER: Final = 6
"""Digits that begin the name of a part."""


class Repository:
    """The artifacts and indexes of one bucket and prefix, and the models that they start from."""

    def __init__(self, store: Store, *, bucket: str, prefix: str, cache: Path) -> None:
        self.store = store
        self._bucket = bucket
        self._prefix = prefix
        self._models = Models(store, cache=cache)
        self._token = secrets.token_hex(4)
        self._counters: dict[str, int] = {}

    def uri(self, stage: str, key: str) -> str:
        """Return the URI of an artifact's folder, with a slash at its end."""
        return artifact_prefix(self._bucket, self._prefix, stage, key)

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """Return an artifact's manifest, None when there is no finished artifact.

        One that cannot be read, or is of another contract, stage or key, is an `ArtifactError`.
        """
        content = self.store.read(self.uri(stage, key) + MANIFEST)
        if content is None:
            return None
        try:
            manifest = Manifest.of_line(content)
        except ValueError as error:
            raise self._damaged(stage, key, MANIFEST, "truncated or altered") from error
        found = (manifest.contract, manifest.stage, manifest.key)
        if found != (CONTRACT, stage, key):
            what = f"of contract {found[0]}, stage {found[1]} and key {found[2]}"
            raise self._damaged(stage, key, MANIFEST, what)
        return manifest

    def rows(
        self, manifest: Manifest, kind: type[RowT], name: str | None = None
    ) -> tuple[RowT, ...]:
        """Return the rows of an artifact's JSONL file; without a name of its only payload file.

        A file that is absent or does not match the manifest is an `ArtifactError`.
        """
        file = _file(manifest, name)
        content = self.content(manifest, file.name)
        return self._parsed(manifest.stage, manifest.key, file.name, kind, content)

    def content(self, manifest: Manifest, name: str) -> bytes:
        """Return the content of one file of an artifact, checked as by `rows`."""
        file = _file(manifest, name)
        stage, key = manifest.stage, manifest.key
        content = self.store.read(self.uri(stage, key) + file.name)
        if content is None:
            raise self._damaged(stage, key, file.name, "missing")
        if len(content) != file.size or hashlib.sha256(content).hexdigest() != file.sha256:
            raise self._damaged(stage, key, file.name, "truncated or altered")
        return content

    def commit(
        self,
        manifest: Manifest,
        files: Mapping[str, bytes],
        *,
        side_files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Manifest:
        """Write a small artifact and return its manifest, with `files` and `digest` filled in.

        `side_files` do not count for the digest. If the artifact exists it stays as it is, and
        its manifest is returned.
        """
        contents = {**files, **side_files}
        described = tuple(
            File(
                name=name,
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                is_payload=name in files,
            )
            for name, content in sorted(contents.items())
        )
        return self._committed(
            manifest, described, lambda name, uri: self.store.write(uri, contents[name])
        )

    def commit_folder(
        self, manifest: Manifest, folder: Path, *, is_payload: Callable[[str], bool]
    ) -> Manifest:
        """Upload a folder as an artifact, like `commit`; hidden files are left out."""
        paths = {
            name: path
            for name, path in files_in(folder).items()
            if name != MANIFEST and not name.startswith(WORK)
        }
        described = in_parallel(
            lambda name: File(
                name=name,
                size=paths[name].stat().st_size,
                sha256=sha256_of(paths[name]),
                is_payload=is_payload(name),
            ),
            paths,
        )
        return self._committed(
            manifest, tuple(described), lambda name, uri: self.store.upload(paths[name], uri)
        )

    def append_part(self, stage: str, key: str, part_name: str, rows: Sequence[Row]) -> None:
        """Keep rows of an unfinished artifact, after those that were there at the first time.

        Several repositories may append at once: each has a token in the names of its parts.
        """
        if not rows:
            return
        folder = f"{self.uri(stage, key)}parts/{part_name}/"
        if folder not in self._counters:
            names = [uri.rpartition("/")[2] for uri in self.part_uris(stage, key, part_name)]
            self._counters[folder] = max((int(name[:COUNTER]) for name in names), default=0)
        self._counters[folder] += 1
        name = f"{self._counters[folder]:0{COUNTER}d}-{self._token}.jsonl"
        self.store.write(folder + name, lines(rows))

    def part_uris(self, stage: str, key: str, part_name: str) -> tuple[str, ...]:
        """Return where the rows kept so far lie; what is there never changes."""
        prefix = f"{self.uri(stage, key)}parts/{part_name}/"
        return tuple(entry.uri for entry in self.store.entries(prefix))

    def parts(
        self,
        stage: str,
        key: str,
        part_name: str,
        kind: type[RowT],
        uris: Sequence[str] | None = None,
    ) -> tuple[RowT, ...]:
        """Return the rows kept so far, or at some URIs alone, in the order they were appended."""
        if uris is None:
            uris = self.part_uris(stage, key, part_name)
        contents = in_parallel(self.store.read, uris)
        found: list[RowT] = []
        for uri, content in zip(uris, contents, strict=True):
            name = uri.removeprefix(self.uri(stage, key))
            if content is None:  # gone since it was listed: the artifact is finished
                continue
            if not content.endswith(b"\n"):
                raise self._damaged(stage, key, name, "truncated")
            found.extend(self._parsed(stage, key, name, kind, content))
        return tuple(found)

    def clean(self, stage: str, key: str) -> None:
        """Delete what served the making of a finished artifact."""
        Commit(self.store, self.uri(stage, key), lambda: self.manifest(stage, key)).clean()

    def discard(self, stage: str, key: str) -> None:
        """Delete what was kept of an artifact that will not be made."""
        folder = self.uri(stage, key)
        self.store.delete([entry.uri for entry in self.store.entries(folder)])
        local = self.store.local(folder)
        if local is not None:
            remove_empty(local)

    def checkpoints(self, stage: str, key: str) -> Checkpoints:
        """Return the checkpoints of a training that has not ended yet."""
        return Checkpoints(self.store, f"{self.uri(stage, key)}checkpoints/")

    def fetch_model(self, uri_prefix: str, *, files: Sequence[File] | None) -> Path:
        """Return a folder on this machine with the model's files (`Models.fetch`)."""
        return self._models.fetch(uri_prefix, files=files)

    def model_digest(self, uri_prefix: str) -> tuple[str, tuple[File, ...]]:
        """Return the digest of a model folder and its payload files (`Models.digest`)."""
        return self._models.digest(uri_prefix)

    def model_entries(self, uri_prefix: str) -> Mapping[str, Entry]:
        """Return the files of a model folder by name, without reading any (`Models.entries`)."""
        return self._models.entries(uri_prefix)

    def run_uri(self, namespace: str | None, name: str) -> str:
        """Return the URI of a run's own folder, with a slash at its end."""
        return run_prefix(self._bucket, self._prefix, namespace, name)

    def indexes(self) -> dict[str, Index]:
        """Return the indexes of all runs by the URI of the run's folder."""
        runs = runs_prefix(self._bucket, self._prefix)
        uris = [
            entry.uri
            for entry in self.store.entries(runs)
            if entry.uri.removeprefix(runs).partition("/")[2] == INDEX
        ]
        found = {uri: self._index(uri) for uri in uris}
        return {uri.removesuffix(INDEX): index for uri, index in found.items() if index}

    def read_index(self, namespace: str | None, name: str) -> Index | None:
        """Return a run's index, None when it has none."""
        return self._index(index_uri(self._bucket, self._prefix, namespace, name))

    def write_index(self, index: Index, namespace: str | None) -> None:
        """Write or replace a run's index."""
        uri = index_uri(self._bucket, self._prefix, namespace, index.name)
        self.store.write(uri, index.line())

    def upload_folder(self, folder: Path, uri_prefix: str) -> int:
        """Upload a folder's files, without hidden ones, and return their number."""
        paths = files_in(folder)
        prefix = folder_uri(uri_prefix)
        in_parallel(lambda name: self.store.upload(paths[name], prefix + name), paths)
        return len(paths)

    def download_folder(self, uri_prefix: str, folder: Path) -> int:
        """Fetch all visible objects under a prefix and return their number."""
        prefix = folder_uri(uri_prefix)
        names = [entry.uri.removeprefix(prefix) for entry in self.store.entries(prefix)]
        visible = [name for name in names if not is_hidden(name)]
        if not visible:
            message = f"expected files under {prefix}, found none"
            raise InputError(message)
        in_parallel(lambda name: self.store.fetch(prefix + name, folder / name), visible)
        return len(visible)

    def _committed(
        self, manifest: Manifest, files: tuple[File, ...], put: Callable[[str, str], None]
    ) -> Manifest:
        """Return the manifest of the artifact; `put` writes a file of a name to a URI."""
        stage, key = manifest.stage, manifest.key
        _check_names(files)
        commit = Commit(self.store, self.uri(stage, key), lambda: self.manifest(stage, key))
        present = self.manifest(stage, key)
        if present is None:
            complete = {"files": files, "digest": payload_digest(files)}
            present = commit.made(manifest.model_copy(update=complete), put)
        commit.clean()
        return present

    def _index(self, uri: str) -> Index | None:
        content = self.store.read(uri)
        try:
            return None if content is None else Index.of_line(content)
        except ValueError as error:
            message = f"{uri} is truncated or altered; delete it and run again"
            raise ArtifactError(message) from error

    def _parsed(
        self, stage: str, key: str, name: str, kind: type[RowT], content: bytes
    ) -> tuple[RowT, ...]:
        try:
            return rows(kind, content)
        except ValueError as error:
            what = f"no {kind.__name__} rows"
            raise self._damaged(stage, key, name, what) from error

    def _damaged(self, stage: str, key: str, name: str, what: str) -> ArtifactError:
        uri = self.uri(stage, key)
        return ArtifactError(f"{uri}{name} is {what}; delete {uri} and run again")


def _file(manifest: Manifest, name: str | None) -> File:
    found = [
        file for file in manifest.files if (file.is_payload if name is None else file.name == name)
    ]
    if len(found) != 1:
        message = f"{len(found)} files named {name or 'nothing'} in {manifest.stage}/{manifest.key}"
        raise ValueError(message)
    return found[0]


def _check_names(files: Iterable[File]) -> None:
    if any(file.name == MANIFEST or file.name.startswith(WORK) for file in files):
        message = f"{MANIFEST} and {' '.join(WORK)} belong to the repository"
        raise ValueError(message)
