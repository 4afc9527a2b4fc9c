"""Reads everything that a run has so far into a `Story`.

Through the run's index come the manifests, through these the rows; what the index or the
store does not have yet is left out of the story. The gold answers of the samples alone come
from the suites themselves. Stands between `store.repository` and the pages.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import yaml

from selfimprove_pipeline import artifacts, stages, suites
from selfimprove_pipeline.artifacts import Index, IterationIndex, Manifest, Row, Score, Verdict
from selfimprove_pipeline.errors import InputError
from selfimprove_pipeline.recipe import Spec, Suite
from selfimprove_pipeline.report import evaluation, judgements
from selfimprove_pipeline.report.evaluation import Answers
from selfimprove_pipeline.report.judgements import Ruling
from selfimprove_pipeline.report.making import (
    Agreement,
    Artifact,
    Pairs,
    Step,
    Training,
    Work,
)
from selfimprove_pipeline.report.story import Model, Story, SuiteStory
from selfimprove_pipeline.statistics import Rate
from selfimprove_pipeline.store import Store

RowT = TypeVar("RowT", bound=Row)

METRICS = "metrics.jsonl"


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


@dataclass(frozen=True)
class _Run:
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

    def of(self, stage: str) -> Iterator[tuple[int, str, Manifest]]:
        """Yield iteration, part and manifest of a stage's artifacts."""
        for (iteration, found, part), manifest in self.manifests.items():
            if found == stage:
                yield iteration, part, manifest


def gather(reader: Reader, *, namespace: str | None, name: str) -> Story:
    """Return the story of a run, finished or not; an `InputError` when it was never started."""
    index = reader.read_index(namespace, name)
    if index is None:
        msg = (
            f"expected a run {namespace or 'local'}.{name} in the store, found none; "
            "start it with `selfimprove run`, or check storage and --store"
        )
        raise InputError(msg)
    spec = Spec.model_validate_json(json.dumps(index.recipe))
    run = _Run(reader, index, spec, _manifests(reader, index))
    answers = _answers(run)
    gold, notes = _gold(run)
    return Story(
        name=index.name,
        outcome=index.outcome,
        message=index.message,
        dominant=spec.languages.dominant,
        others=spec.languages.others,
        iterations=spec.iterations,
        models=tuple(_model(iteration) for iteration in _ordered(index)),
        suites=tuple(
            evaluation.with_baselines(_suite(run, suite, answers), suite, spec, answers)
            for suite in spec.evaluation.suites
        ),
        pairs=tuple(_pairs(run)),
        training=tuple(_training(run)),
        agreements=tuple(_agreements(run)),
        work=tuple(_work(run)),
        artifacts=tuple(
            Artifact(
                iteration=iteration,
                stage=stage,
                part=part,
                key=manifest.key,
                digest=manifest.digest,
            )
            for (iteration, stage, part), manifest in run.manifests.items()
        ),
        samples=evaluation.samples(spec, answers, gold),
        versions=_versions(run),
        recipe=yaml.safe_dump(index.recipe, allow_unicode=True, sort_keys=False),
        notes=(*_overlaps(index), *notes),
    )


def _suite(run: _Run, suite: Suite, answers: Answers) -> SuiteStory:
    """Return what a suite amounts to, with the verdicts on it."""
    rulings = {}
    for iteration, part, manifest in run.of("judge"):
        judged = evaluation.judged(iteration, part, manifest)
        if judged.suite == suite.name:
            rows = run.reader.rows(manifest, Verdict)
            rulings[iteration, judged.language] = Ruling(judged, rows)
    languages = run.spec.languages
    story = evaluation.suite_story(suite, languages, answers)
    return judgements.with_verdicts(story, suite, languages, rulings)


def _overlaps(index: Index) -> Iterator[str]:
    """Yield a note for each suite and language with prompts that were trained on."""
    for warning in index.overlaps.warnings if index.overlaps else ():
        yield f"How much of a score is memory: {warning}"


def _ordered(index: Index) -> list[IterationIndex]:
    return sorted(index.iterations, key=lambda iteration: iteration.index)


def _model(iteration: IterationIndex) -> Model:
    return Model(index=iteration.index, uri=iteration.model_uri, digest=iteration.model_digest)


def _manifests(reader: Reader, index: Index) -> dict[tuple[int, str, str], Manifest]:
    """Return the manifests of the finished artifacts, stages in the order of the table."""
    order: dict[str, int] = {info.name: place for place, info in enumerate(stages.TABLE)}
    found = {}
    for iteration in _ordered(index):
        for stage in sorted(iteration.keys, key=lambda name: (order.get(name, len(order)), name)):
            for part, key in iteration.keys[stage].items():
                manifest = reader.manifest(stage, key)
                if manifest is not None:
                    found[iteration.index, stage, part] = manifest
    return found


def _answers(run: _Run) -> Answers:
    """Return the evaluated rows by suite, model and language."""
    found: Answers = {}
    for iteration, part, manifest in run.of("evaluate"):
        suite, language = part.split(".", 1)
        rows = run.reader.rows(manifest, artifacts.Evaluated)
        found[suite, iteration, language] = {row.id: row for row in rows}
    return found


def _gold(run: _Run) -> tuple[Mapping[str, Mapping[str, str]], tuple[str, ...]]:
    """Return the first suite's gold answers by language and id, or a note why there are none."""
    gold: dict[str, dict[str, str]] = {}
    for suite in run.spec.evaluation.suites[:1]:
        try:
            parallel = suites.read(
                suite, suite.languages_in(run.spec.languages), run.reader.store.read
            )
        except InputError as error:
            return {}, (f"Gold answers could not be read for the samples: {error}",)
        for language, rows in parallel.items():
            gold[language] = {row.id: row.answer for row in rows if row.answer is not None}
    return gold, ()


def _pairs(run: _Run) -> Iterator[Pairs]:
    for iteration, _, manifest in run.of("pair"):
        trained = run.manifests.get((iteration, "train", ""))
        for language in run.languages:
            untrained = trained.drops.get(language, {}) if trained else {}
            yield Pairs(
                iteration=iteration,
                language=language,
                kept=manifest.counts.get(f"pairs.{language}", 0),
                drops=dict(sorted(manifest.drops.get(language, {}).items())),
                untrained=sum(untrained.values()),
            )


def _training(run: _Run) -> Iterator[Training]:
    for iteration, part, manifest in run.of("train"):
        if any(file.name == METRICS for file in manifest.files):
            steps = run.reader.rows(manifest, Step, METRICS)
            yield Training(iteration=iteration, steps=steps, is_baseline=part == stages.SFT)


def _agreements(run: _Run) -> Iterator[Agreement]:
    for iteration, _, manifest in run.of("score"):
        by_language: dict[str, list[Score]] = defaultdict(list)
        for row in run.reader.rows(manifest, Score):
            by_language[row.language].append(row)
        for language in run.languages:
            if by_language[language]:
                yield _agreement(iteration, language, by_language[language])


def _agreement(iteration: int, language: str, rows: list[Score]) -> Agreement:
    decided = [row for row in rows if row.chosen != row.rejected]
    right = sum(row.chosen > row.rejected for row in decided)
    return Agreement(
        iteration=iteration,
        language=language,
        accuracy=Rate(right, len(decided)),
        ties=len(rows) - len(decided),
    )


def _work(run: _Run) -> Iterator[Work]:
    by_stage: dict[tuple[int, str], list[Manifest]] = defaultdict(list)
    for (iteration, stage, _), manifest in run.manifests.items():
        by_stage[iteration, stage].append(manifest)
    computed = {iteration.index: set(iteration.computed) for iteration in run.index.iterations}
    for (iteration, stage), made in by_stage.items():
        yield Work(
            iteration=iteration,
            stage=stage,
            wall=sum(manifest.seconds.get("wall", 0.0) for manifest in made),
            engine_start=sum(manifest.seconds.get("engineStart", 0.0) for manifest in made),
            artifacts=len(made),
            computed=sum(manifest.key in computed[iteration] for manifest in made),
            prompt_tokens=sum(manifest.counts.get("promptTokens", 0) for manifest in made),
            completion_tokens=sum(manifest.counts.get("completionTokens", 0) for manifest in made),
        )


def _versions(run: _Run) -> dict[str, dict[str, str]]:
    """Return the versions by stage; artifacts of several toolchains show each version they had."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for (_, stage, _), manifest in run.manifests.items():
        for package, version in manifest.versions.items():
            found[stage][package].add(version)
    return {
        stage: {package: ", ".join(sorted(all_)) for package, all_ in sorted(packages.items())}
        for stage, packages in found.items()
    }
