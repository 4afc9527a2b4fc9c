"""What a run is for a worker: the resolved recipe, its inputs and where they lie."""

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.contract.environment import MODEL_FOLDER, MODEL_MOUNT
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import (
    SFT,
    TASKS,
    Iteration,
    Toolchain,
    baselines_beside,
    is_gated,
    suite_part,
)
from selfimprove_pipeline.contract.manifests import File, Index, Manifest
from selfimprove_pipeline.contract.recipe import Run, Spec, Stage, Suite
from selfimprove_pipeline.contract.rows import Difficulties, Prompt
from selfimprove_pipeline.inputs import prompts, suites
from selfimprove_pipeline.inputs.prompts import Parallel
from selfimprove_pipeline.inputs.suites import alpaca
from selfimprove_pipeline.run.shards import WHOLE, Share
from selfimprove_pipeline.store import Store, hub
from selfimprove_pipeline.store.repository import Repository

T = TypeVar("T")

CLAIM: Final = "pvc://"


@dataclass(frozen=True)
class Model:
    """M_t: where its folder lies and what it is."""

    uri: str
    digest: str
    files: tuple[File, ...]
    """files with their digests, which are checked when the folder is fetched."""


def model_of(repository: Repository, uri: str, revision: str | None = None) -> Model:
    """Return the model at a URI; one of the hub is downloaded for its digest."""
    if uri.startswith("hf://"):
        uri = f"file://{hub.download(uri, revision)}"  # literal, not quoted
    digest, files = repository.model_digest(uri)
    return Model(uri, digest, files)


@dataclass(frozen=True)
class Setting:
    """A resolved run on this machine. Inputs are read once, when they are first needed."""

    run: Run
    store: Store
    repository: Repository
    toolchain: Toolchain
    engine: str
    """engine is `vllm` or `transformers`."""
    cache: Path
    requested_revision: str | None = None
    """requested_revision of the model as the file has it, before it was resolved to a commit."""
    decided: Mapping[str, int | str] = field(default_factory=dict)
    """decided are the values of `training` that the file leaves open, by name."""
    prompts_store: Store | None = None
    """prompts_store is where the prompts are, if they have credentials of their own."""
    share: Share = WHOLE
    """share of the rows that are this process's."""
    only_measures: bool = False
    """only_measures: M0 is evaluated without a run, and no training follows."""

    @property
    def spec(self) -> Spec:
        """The resolved spec."""
        return self.run.spec

    @property
    def last(self) -> int:
        """The index of the last model."""
        return 0 if self.only_measures else self.spec.iterations

    def read_index(self) -> Index | None:
        """Return what the store says of this run, None before its first start."""
        metadata = self.run.metadata
        return self.repository.read_index(metadata.namespace, metadata.name)

    @property
    def base_uri(self) -> str:
        """The URI of M0; of a claim, the folder at which a pod has it."""
        uri = self.spec.model.uri
        if not uri.startswith(CLAIM):
            return uri
        path = uri.removeprefix(CLAIM).partition("/")[2].strip("/")
        mounted = Path(os.environ.get(MODEL_MOUNT, MODEL_FOLDER))
        if not mounted.is_dir():
            message = (
                f"spec.model.uri: expected s3://, hf:// or file:// on one machine, found {uri}"
            )
            raise InputError(message)
        return f"file://{mounted / path}"

    @cached_property
    def base(self) -> Model:
        """M0."""
        return model_of(self.repository, self.base_uri, self.spec.model.revision)

    @cached_property
    def prompts(self) -> Parallel:
        """All parallel prompts."""
        uri = self.spec.prompts.uri
        store = self.prompts_store or self.store
        files = {
            language: store.read(f"{uri.rstrip('/')}/{language}.jsonl")
            for language in self.spec.languages.all()
        }
        return prompts.read(files, uri, needs_answers=self.spec.pairing.filters.wrong_answer)

    def prompts_of(self, index: int) -> Parallel:
        """Return the prompts of one iteration; the last model has none."""
        if index == self.last:
            return {}
        chosen = self.spec.prompts
        return prompts.select(
            self.prompts,
            per_iteration=chosen.per_iteration,
            selection=chosen.selection,
            index=index,
            uri=chosen.uri,
        )

    @cached_property
    def suites(self) -> Mapping[tuple[str, str], tuple[Prompt, ...]]:
        """The rows of each suite in each language."""
        return {
            (suite.name, language): suites.first(rows, suite.limit)
            for suite in self.spec.evaluation.suites
            if not suite.has_tasks
            for language, rows in self._rows(suite).items()
        }

    @cached_property
    def tasks(self) -> Mapping[str, Mapping[str, bytes]]:
        """The files of each suite that has tasks of lm-eval, by their names in its folder."""
        return {
            suite.name: self._files(suite.uri) if suite.uri else {}
            for suite in self.spec.evaluation.suites
            if suite.has_tasks
        }

    @cached_property
    def suite_digests(self) -> Mapping[tuple[str, str], str]:
        """What the keys of each suite's answers depend on, by suite and language."""
        by_name = {suite.name: suite for suite in self.spec.evaluation.suites}
        rows = {place: suites.digest(by_name[place[0]], r) for place, r in self.suites.items()}
        found = {
            name: {file: sha256(content).hexdigest() for file, content in own.items()}
            for name, own in self.tasks.items()
        }
        tasks = {
            (name, TASKS): manifests.digest([by_name[name].limit, files])
            for name, files in found.items()
        }
        return {**rows, **tasks}

    @cached_property
    def references(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        """The outputs that a suite's answers are compared with, by suite and language, then id."""
        return self._beside_references(alpaca.outputs)

    @cached_property
    def difficulties(self) -> Mapping[tuple[str, str], Difficulties]:
        """How hard the instructions of a suite are, by suite and language, where that is given."""
        return self._beside_references(alpaca.difficulties)

    def evaluations(self, number: int, suites: Collection[str]) -> Mapping[str, Manifest]:
        """Return M_number's finished evaluations on some suites, as the run's index names them."""
        return self._noted(number, "evaluate", lambda part: part.partition(".")[0] in suites)

    def sft_beside(self, model: Model) -> Model | None:
        """Return the model of the baseline `sft`, as the run's index names it beside M1."""
        found = self._noted(0, "train", lambda _: True)
        own, sft = found.get(""), found.get(SFT)
        if own is None or sft is None or own.digest != model.digest or own.inputs != sft.inputs:
            return None
        return self.trained(sft)

    def _noted(
        self, number: int, stage: Stage, is_wanted: Callable[[str], bool]
    ) -> Mapping[str, Manifest]:
        """Return the finished artifacts of an iteration by part, as the run's index names them."""
        index = self.read_index()
        entries = [entry for entry in index.iterations if entry.index == number] if index else []
        keys = entries[0].keys.get(stage, {}) if entries else {}
        wanted = {part: key for part, key in keys.items() if is_wanted(part)}
        found = {part: self.repository.manifest(stage, key) for part, key in wanted.items()}
        return {part: manifest for part, manifest in found.items() if manifest is not None}

    def check_inputs(self) -> None:
        """Read every input once, so that a mistake is told before anything is computed."""
        self.check_prompts()
        _ = self.base, self.suite_digests, self.references, self.difficulties

    def check_prompts(self) -> None:
        """Raise where the prompts of an iteration are wrong or too few."""
        for index in range(self.last):
            self.prompts_of(index)

    def iteration(self, index: int, model: Model) -> Iteration:
        """Return everything that the keys of an iteration depend on."""
        rows = self.prompts_of(index)
        has_sft = SFT in baselines_beside(index, self.spec)
        sft = self.sft_beside(model) if has_sft else None
        graded = {suite.name for suite in self.spec.evaluation.suites if suite.has_turns}
        gold = {language: prompts.gold_digest(found) for language, found in rows.items()}
        return Iteration(
            index=index,
            spec=self.spec,
            model=model.digest,
            toolchain=self.toolchain,
            prompts={language: prompts.prompt_digest(found) for language, found in rows.items()},
            gold={} if None in gold.values() else {k: v for k, v in gold.items() if v},
            suites=self.suite_digests,
            sft=sft.digest if sft else None,
            opponents=self._opponents(index),
            difficulties={
                name: manifests.digest(dataclasses.asdict(known))
                for name, known in self.difficulties.items()
            },
            references={
                (name, tag): prompts.reference_digest(found)
                for (name, tag), found in self.suites.items()
                if name in graded
            },
            earlier=self._earlier(index),
        )

    def trained(self, manifest: Manifest) -> Model:
        """Return the model that a train artifact is."""
        uri = self.repository.uri(manifest.stage, manifest.key)
        return Model(uri, manifest.digest, manifest.files)

    def folder(self, model: Model) -> Path:
        """Return a folder on this machine with the model's files, digests checked."""
        return self.repository.fetch_model(model.uri, files=model.files)

    def _beside_references(
        self, read: Callable[[str, Parallel, alpaca.Read], Mapping[str, T]]
    ) -> dict[tuple[str, str], T]:
        """Return what lies in the folders of references, by suite and language."""
        found: dict[tuple[str, str], T] = {}
        for suite in self.spec.evaluation.suites:
            if suite.reference_uri is not None:
                own = {tag: rows for (name, tag), rows in self.suites.items() if name == suite.name}
                read_here = read(suite.reference_uri, own, self.store.read)
                found |= {(suite.name, tag): value for tag, value in read_here.items()}
        return found

    def _opponents(self, index: int) -> dict[tuple[str, str], str | None]:
        """Return the digests of what judged answers are compared with; M0 has no M0 to meet."""
        found: dict[tuple[str, str], str | None] = {
            name: manifests.digest(dict(outputs)) for name, outputs in self.references.items()
        }
        duels = [suite.name for suite in self.spec.evaluation.suites if suite.meets_m0]
        if index == 0 or not duels:
            return found
        met = self._comparable(0, duels)
        for name, tag in self.suites:
            if name in duels:
                found[name, tag] = met.get(suite_part(name, tag))
        return found

    def _earlier(self, index: int) -> Mapping[str, str]:
        """Return the digests of the answers that a gate compares with, where there is one."""
        if not index or not is_gated(self.spec):
            return {}
        return self._comparable(index - 1, [self.spec.evaluation.suites[0].name])

    def _comparable(self, number: int, suites: Collection[str]) -> dict[str, str]:
        """Return the digests of what M_number has answered to some suites as they are now."""
        met = self.evaluations(number, suites)
        found = {}
        for (name, tag), digest in self.suite_digests.items():
            part = suite_part(name, tag)
            manifest = met.get(part)
            if manifest is not None and manifest.inputs["suite"] == digest:
                found[part] = manifest.digest
        return found

    def _files(self, uri: str) -> dict[str, bytes]:
        """Return what lies in a folder, by name."""
        folder = f"{uri.rstrip('/')}/"
        names = sorted(entry.uri.removeprefix(folder) for entry in self.store.entries(folder))
        found = {name: self.store.read(f"{folder}{name}") for name in names}
        if not any(name.endswith(".yaml") for name in found):
            message = f"{uri}: expected lm-eval's task files there (.yaml), found none"
            raise InputError(message)
        return {name: content for name, content in found.items() if content is not None}

    def _rows(self, suite: Suite) -> Parallel:
        return suites.read(suite, suite.languages_in(self.spec.languages), self.store.read)
