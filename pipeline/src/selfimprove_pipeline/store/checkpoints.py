"""Checkpoints of a training, beside the artifact that it will become.

`<artifact>/checkpoints/<step>/` counts when its `manifest.json`, written last, exists. A
training pod that was killed takes up the latest; `Repository` deletes them with the commit.
"""

from pathlib import Path

from selfimprove_pipeline.contract.errors import ArtifactError
from selfimprove_pipeline.contract.manifests import MANIFEST, File
from selfimprove_pipeline.contract.rows import Row
from selfimprove_pipeline.store import Store
from selfimprove_pipeline.store.files import files_in, in_parallel, sha256_of


class Checkpoint(Row):
    """What a checkpoint holds."""

    step: int
    label: str
    """label is what the training wants to know before it fetches, such as its world size."""
    files: tuple[File, ...]


class Checkpoints:
    """The checkpoints of one training; `prefix` is that of all of them and ends in a slash.

    Several machines may upload their files of one step. One of them drops what lay there
    before any does, and finishes the step when all have.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def drop(self, step: int) -> None:
        """Make a step count no longer: saved again, its files are about to be replaced."""
        self._store.delete([self._uri(step) + MANIFEST])

    def upload(self, step: int, folder: Path) -> tuple[File, ...]:
        """Upload a folder's files for a step that does not count yet."""
        paths = files_in(folder)

        def upload(name: str) -> File:
            path = paths[name]
            self._store.upload(path, self._uri(step) + name)
            return File(name=name, size=path.stat().st_size, sha256=sha256_of(path))

        return tuple(in_parallel(upload, paths))

    def finish(self, step: int, label: str, files: tuple[File, ...]) -> None:
        """Make a step count, with the files of all machines, then delete the older ones."""
        checkpoint = Checkpoint(step=step, label=label, files=files)
        self._store.write(self._uri(step) + MANIFEST, checkpoint.line())
        prefix = self._prefix
        steps = ((entry.uri, _step(entry.uri, prefix)) for entry in self._store.entries(prefix))
        self._store.delete(uri for uri, other in steps if other is not None and other < step)

    def latest(self) -> Checkpoint | None:
        """Return the last whole checkpoint, None when there is none."""
        prefix = self._prefix
        steps = (
            _step(entry.uri, prefix)
            for entry in self._store.entries(prefix)
            if entry.uri.endswith(f"/{MANIFEST}") and entry.uri.count("/") == prefix.count("/") + 1
        )
        step = max((step for step in steps if step is not None), default=None)
        return None if step is None else self._read(step)

    def fetch(self, step: int, folder: Path) -> None:
        """Write a step's files to a folder, digests checked."""
        uri = self._uri(step)

        def fetch(file: File) -> None:
            path = folder / file.name
            self._store.fetch(uri + file.name, path)
            if sha256_of(path) != file.sha256:
                message = f"{uri}{file.name} is truncated or altered; delete {uri} and run again"
                raise ArtifactError(message)

        in_parallel(fetch, self._read(step).files)

    def _read(self, step: int) -> Checkpoint:
        uri = self._uri(step)
        content = self._store.read(uri + MANIFEST)
        try:
            return Checkpoint.of_line(content or b"")
        except ValueError as error:
            message = f"{uri}{MANIFEST} is truncated or altered; delete {uri} and run again"
            raise ArtifactError(message) from error

    def _uri(self, step: int) -> str:
        return f"{self._prefix}{step}/"


def _step(uri: str, prefix: str) -> int | None:
    step = uri.removeprefix(prefix).partition("/")[0]
    return int(step) if step.isdecimal() else None
