"""Delete what a run has left in the bucket and no other run there uses.

An artifact may be shared: equal keys are computed once for all runs of a bucket and prefix. So
the indexes of the others are read first, and what one of them names stays.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.contract.manifests import MANIFEST, Index
from selfimprove_pipeline.store.files import remove_empty
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.store.uris import folder_uri

Key = tuple[str, str]
"""Stage and key of an artifact."""


@dataclass(frozen=True)
class Removed:
    """What a deletion has removed, and what it kept for others."""

    keys: tuple[Key, ...]
    kept: tuple[Key, ...]
    objects: int

    @property
    def digest(self) -> str:
        """A digest of the keys that are gone."""
        return manifests.digest([list(key) for key in self.keys])


def work(
    repository: Repository,
    namespace: str | None,
    name: str,
    on_removed: Callable[[str, str, int], None],
) -> Removed:
    """Delete a run's artifacts and, last, its own folder; `on_removed` hears of each artifact.

    The folder has the index: a deletion that was killed is done to its end by another one.
    """
    own = repository.run_uri(namespace, name)
    indexes = repository.indexes()
    mine = _named([indexes[own]]) if own in indexes else set()
    others = [index for uri, index in indexes.items() if uri != own]
    used = _named(others) | _started_from(repository, mine, others)
    objects = 0
    removed = tuple(sorted(mine - used))
    for stage, key in removed:
        count = _remove(repository, repository.uri(stage, key))
        on_removed(stage, key, count)
        objects += count
    objects += _remove(repository, own)
    return Removed(removed, tuple(sorted(mine & used)), objects)


def _named(indexes: Iterable[Index]) -> set[Key]:
    """Return every artifact that indexes name."""
    return {
        (stage, key)
        for index in indexes
        for entry in index.iterations
        for keys in (entry.keys, entry.begun)
        for stage, by_part in keys.items()
        for key in by_part.values()
    }


def _started_from(
    repository: Repository, keys: Iterable[Key], indexes: Iterable[Index]
) -> set[Key]:
    """Return the artifacts that are the first model of another run."""
    uris = {folder_uri(index.recipe["model"]["uri"]) for index in indexes}
    return {(stage, key) for stage, key in keys if repository.uri(stage, key) in uris}


def _remove(repository: Repository, folder: str) -> int:
    """Delete all objects of a folder, a manifest first, and return their number.

    Nobody takes what is left for an artifact.
    """
    uris = [entry.uri for entry in repository.store.entries(folder)]
    manifest = folder + MANIFEST
    repository.store.delete([uri for uri in uris if uri == manifest])
    repository.store.delete([uri for uri in uris if uri != manifest])
    local = repository.store.local(folder)
    if local is not None:
        remove_empty(local)
    return len(uris)
