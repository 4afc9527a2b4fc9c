"""A run as the store has it: its index, and the manifests of everything that is finished.

Through the run's index come the manifests, through these the rows. `gather` and `reading` read
from it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from selfimprove_pipeline.contract import stages
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Index, IterationIndex, Manifest
from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.contract.rows import Row
from selfimprove_pipeline.store import Store

RowT = TypeVar("RowT", bound=Row)


class Reader(Protocol):
    """What the report needs of `store.repository.Repository`."""

    @property
    def store(self) -> Store:
        """The store behind the artifacts, for the suites' files."""

    def read_index(self, namespace: str | None, name: str) -> Index | None:
        """Return what a run has, None before it started."""

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """Return a finished artifact's manifest, else None."""

    def rows(
        self, manifest: Manifest, kind: type[RowT], name: str | None = None
    ) -> tuple[RowT, ...]:
        """Return the rows of an artifact's file."""

    def content(self, manifest: Manifest, name: str) -> bytes:
        """Return the content of an artifact's file."""


@dataclass(frozen=True)
class Source:
    """A run's index and its finished artifacts."""

    reader: Reader
    index: Index
    spec: Spec
    manifests: Mapping[tuple[int, str, str], Manifest]
    """manifests by iteration, stage and part."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in the order of the report: those to improve, then the dominant one."""
        return (*self.spec.languages.others, self.spec.languages.dominant)

    @property
    def iterations(self) -> list[IterationIndex]:
        """The iterations in order."""
        return ordered(self.index)

    def of(self, stage: str) -> Iterator[tuple[int, str, Manifest]]:
        """Yield iteration, part and manifest of a stage's artifacts."""
        for (iteration, found, part), manifest in self.manifests.items():
            if found == stage:
                yield iteration, part, manifest


def source_of(reader: Reader, *, namespace: str | None, name: str) -> Source:
    """Return a run, finished or not; an `InputError` when it was never started."""
    index = reader.read_index(namespace, name)
    if index is None:
        msg = (
            f"expected a run {namespace or 'local'}.{name} in the store, found none; "
            "start it with `selfimprove run`, or check storage and --store"
        )
        raise InputError(msg)
    spec = Spec.model_validate_json(json.dumps(index.recipe))
    return Source(reader, index, spec, _manifests(reader, index))


def ordered(index: Index) -> list[IterationIndex]:
    """Return the iterations of an index in order."""
    return sorted(index.iterations, key=lambda iteration: iteration.index)


def _manifests(reader: Reader, index: Index) -> dict[tuple[int, str, str], Manifest]:
    """Return the manifests of the finished artifacts, stages in the order of the table."""
    order: dict[str, int] = {info.name: place for place, info in enumerate(stages.TABLE)}
    found = {}
    for iteration in ordered(index):
        for stage in sorted(iteration.keys, key=lambda name: (order.get(name, len(order)), name)):
            for part, key in iteration.keys[stage].items():
                manifest = reader.manifest(stage, key)
                if manifest is not None:
                    found[iteration.index, stage, part] = manifest
    return found
