"""Checkpoints of a training, beside the artifact that it will become.

`<artifact>/checkpoints/<step>/` counts when its `manifest.json`, written last, exists. A
training pod that was killed takes up the latest; `Repository` deletes them with the commit.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from selfimprove_pipeline.artifacts import MANIFEST, File, Row
from selfimprove_pipeline.errors import ArtifactError
from selfimprove_pipeline.store import Store
from selfimprove_pipeline.store.files import files_in, in_parallel, sha256_of


class Checkpoint(Row):
    """What a checkpoint holds."""

    step: int
    label: str
    """label is what the training wants to know before it fetches, such as its world size."""
    files: tuple[File, ...]


def save(store: Store, prefix: str, *, step: int, folder: Path, label: str) -> None:
    """Upload a folder as the checkpoint of a step, then delete the older ones.

    `prefix` is that of all checkpoints and ends in a slash.
    """
    uri = f"{prefix}{step}/"
    # Saved again, the step must not count while its files are replaced.
    store.delete([uri + MANIFEST])
    paths = files_in(folder)

    def upload(name: str) -> File:
        path = paths[name]
        store.upload(path, uri + name)
        return File(name=name, size=path.stat().st_size, sha256=sha256_of(path))

    files = tuple(in_parallel(upload, paths))
    store.write(uri + MANIFEST, Checkpoint(step=step, label=label, files=files).line())
    steps = ((entry.uri, _step(entry.uri, prefix)) for entry in store.entries(prefix))
    store.delete(uri for uri, other in steps if other is not None and other < step)


def latest(store: Store, prefix: str) -> tuple[int, str, Callable[[Path], None]] | None:
    """Return step, label and how to fetch it of the last whole checkpoint; None without one."""
    steps = (
        _step(entry.uri, prefix)
        for entry in store.entries(prefix)
        if entry.uri.endswith(f"/{MANIFEST}") and entry.uri.count("/") == prefix.count("/") + 1
    )
    step = max((step for step in steps if step is not None), default=None)
    if step is None:
        return None
    uri = f"{prefix}{step}/"
    content = store.read(uri + MANIFEST)
    try:
        checkpoint = Checkpoint.of_line(content or b"")
    except ValueError as error:
        message = f"{uri}{MANIFEST} is truncated or altered; delete {uri} and run again"
        raise ArtifactError(message) from error
    return step, checkpoint.label, partial(_fetch, store, uri, checkpoint)


def _fetch(store: Store, uri: str, checkpoint: Checkpoint, folder: Path) -> None:
    def fetch(file: File) -> None:
        path = folder / file.name
        store.fetch(uri + file.name, path)
        if sha256_of(path) != file.sha256:
            message = f"{uri}{file.name} is truncated or altered; delete {uri} and run again"
            raise ArtifactError(message)

    in_parallel(fetch, checkpoint.files)


def _step(uri: str, prefix: str) -> int | None:
    step = uri.removeprefix(prefix).partition("/")[0]
    return int(step) if step.isdecimal() else None
