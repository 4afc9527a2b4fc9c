"""Model folders: what of them is the model, their digest, and a folder that a library opens.

A model is any Hugging Face folder, of this pipeline or not. On this machine it is used where
it lies. From a bucket it is fetched once into a cache that the processes of a machine share:
`blobs/<sha256>` hold the files and `models/<digest>/` name them, so a tokenizer that several
models share is fetched and kept once.
"""

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock

from selfimprove_pipeline.contract.errors import ArtifactError, InputError
from selfimprove_pipeline.contract.manifests import (
    MANIFEST,
    TOKENIZER_FILES,
    File,
    digest,
    digest_of,
    payload_digest,
)
from selfimprove_pipeline.store import Entry, Store
from selfimprove_pipeline.store.digests import Digests, identity
from selfimprove_pipeline.store.files import (
    PARTIAL,
    explained,
    in_parallel,
    is_hidden,
    remove_abandoned,
    sha256_of,
)
from selfimprove_pipeline.store.uris import folder_uri

_WEIGHTS = ("*.safetensors", "*.bin")

_PAYLOAD = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    *TOKENIZER_FILES,
)

_OF_TRAINERS = frozenset({"training_args.bin", "optimizer.bin", "scheduler.bin"})
"""Left beside the weights by trainers; they hold times and paths and are no part of a model."""

WORK = ("parts/", "checkpoints/", "attempts/")
"""Folders of an unfinished artifact."""


def is_model_payload(name: str) -> bool:
    """Return whether a file of a model folder determines what the model does.

    Weights with their index, configuration, tokenizer and chat template do; a README, metrics,
    a manifest, what trainers leave behind and subfolders do not.
    """
    folder, _, base = name.rpartition("/")
    if folder not in {"", "additional_chat_templates"} or base in _OF_TRAINERS:
        return False
    return any(fnmatchcase(base, pattern) for pattern in _PAYLOAD)


class Models:
    """The model folders of a store, with a cache on this machine."""

    def __init__(self, store: Store, *, cache: Path) -> None:
        self._store = store
        self._cache = cache
        self._digests = Digests(cache / "digests.json")
        for folder in (cache, cache / "incoming", cache / "models"):
            remove_abandoned(folder)

    def digest(self, uri_prefix: str) -> tuple[str, tuple[File, ...]]:
        """Return the digest of a folder's payload and the payload files.

        It equals the digest of an artifact with the same files. What was hashed before costs
        one listing.
        """
        entries = {
            name: entry
            for name, entry in self.entries(uri_prefix).items()
            if is_model_payload(name)
        }
        if not any(fnmatchcase(name, weights) for name in entries for weights in _WEIGHTS):
            message = (
                f"expected a model folder at {uri_prefix}, found no weights there;"
                f" add {' or '.join(_WEIGHTS)}, or correct the URI"
            )
            raise InputError(message)
        files = self._described(entries)
        return payload_digest(files), files

    def fetch(self, uri_prefix: str, *, files: Sequence[File] | None) -> Path:
        """Return a folder on this machine with the model's files, equal to `files` if given.

        A folder that lies here is returned as it is. A file with other content than expected is
        an `ArtifactError`, an absent folder an `InputError`.
        """
        folder = self._store.local(uri_prefix)
        if folder is None:
            return self._fetched(uri_prefix, files)
        entries = self.entries(uri_prefix)
        if files is not None:
            wanted = {file.name: entries[file.name] for file in files if file.name in entries}
            found = {file.name: file for file in self._described(wanted)}
            for file in files:
                _check(folder_uri(uri_prefix) + file.name, file, found.get(file.name))
        return folder

    def entries(self, uri_prefix: str) -> dict[str, Entry]:
        """Return a folder's visible objects by name, without those of an unfinished artifact.

        An absent folder is an `InputError`.
        """
        prefix = folder_uri(uri_prefix)
        named = {entry.uri.removeprefix(prefix): entry for entry in self._store.entries(prefix)}
        entries = {
            name: entry
            for name, entry in named.items()
            if not (is_hidden(name) or name == MANIFEST or name.startswith(WORK))
        }
        if not entries:
            message = f"expected a model folder at {uri_prefix}, found no file there"
            raise InputError(message)
        return entries

    def _described(self, entries: Mapping[str, Entry]) -> tuple[File, ...]:
        """Return the files with their sha256, computed only for objects not met before."""
        names = {identity(self._location(entry), entry): entry for entry in entries.values()}
        known = self._digests.known()
        unknown = [name for name in names if name not in known]
        if unknown:
            hashes = in_parallel(lambda name: self._hash(names[name]), unknown)
            new = dict(zip(unknown, hashes, strict=True))
            self._digests.add(new)
            known |= new
        return tuple(
            File(
                name=name,
                size=entry.size,
                sha256=known[identity(self._location(entry), entry)],
                is_payload=is_model_payload(name),
            )
            for name, entry in sorted(entries.items())
        )

    def _location(self, entry: Entry) -> str:
        return str(self._store.local(entry.uri) or entry.uri)

    def _hash(self, entry: Entry) -> str:
        path = self._store.local(entry.uri)
        return sha256_of(path) if path else self._incoming(entry.uri, entry.version)

    def _fetched(self, uri_prefix: str, files: Sequence[File] | None) -> Path:
        """Return the cache's folder, filled by one process while the others wait."""
        lock = self._cache / "locks" / digest(folder_uri(uri_prefix))
        with explained(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                wanted = files or self._described(self.entries(uri_prefix))
                shas = {file.name: file.sha256 for file in wanted}
                folder = self._cache / "models" / digest_of(shas)
                if not all((folder / name).is_file() for name in shas):
                    uri = folder_uri(uri_prefix)
                    in_parallel(lambda file: self._blob(uri + file.name, file), wanted)
                    self._name(folder, shas)
                return folder

    def _blob(self, uri: str, file: File) -> None:
        path = self._blob_path(file.sha256)
        if path.is_file() and path.stat().st_size == file.size:
            return
        found = self._incoming(uri, file.sha256)
        if found != file.sha256:
            self._blob_path(found).unlink()
            raise _altered(uri, file.sha256, found)

    def _incoming(self, uri: str, version: str) -> str:
        """Fetch an object into the cache and return its sha256, under which it then lies."""
        incoming = self._cache / "incoming" / digest(f"{uri} {version}")
        if not incoming.is_file():
            self._store.fetch(uri, incoming)
        sha256 = sha256_of(incoming)
        path = self._blob_path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        incoming.replace(path)
        return sha256

    def _blob_path(self, sha256: str) -> Path:
        return self._cache / "blobs" / sha256

    def _name(self, folder: Path, shas: Mapping[str, str]) -> None:
        """Make a folder of links into the blobs; it appears with all of them."""
        partial = folder.with_name(PARTIAL + secrets.token_hex(8))
        for name, sha256 in shas.items():
            link = partial / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(self._blob_path(sha256), link.parent))
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)


def _check(uri: str, expected: File, found: File | None) -> None:
    if found is None or found.sha256 != expected.sha256:
        raise _altered(uri, expected.sha256, found.sha256 if found else "no file")


def _altered(uri: str, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        f"expected {uri} with sha256 {expected}, found {found}: it is damaged or was changed;"
        " restore it, or delete its folder if a run made it, and run again"
    )
