"""Reads everything that a run has so far into a `Story`.

What the index or the store does not have yet is left out of the story. The gold answers of the
samples alone come from the suites themselves. Stands between `store.repository` and the pages.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import yaml

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Index, IterationIndex
from selfimprove_pipeline.contract.recipe import Suite
from selfimprove_pipeline.contract.rows import Evaluated, Grade, Verdict
from selfimprove_pipeline.inputs import suites
from selfimprove_pipeline.report.story import evaluation, judgements, reading
from selfimprove_pipeline.report.story.evaluation import Answers
from selfimprove_pipeline.report.story.judgements import Ruling
from selfimprove_pipeline.report.story.making import Artifact
from selfimprove_pipeline.report.story.source import Reader, Source, source_of
from selfimprove_pipeline.report.story.story import Entry, Model, Story, SuiteStory


def gather(reader: Reader, *, namespace: str | None, name: str) -> Story:
    """Return the story of a run, finished or not; an `InputError` when it was never started."""
    run = source_of(reader, namespace=namespace, name=name)
    index, spec = run.index, run.spec
    answers = _answers(run)
    gold, notes = _gold(run)
    return Story(
        name=index.name,
        outcome=index.outcome,
        message=index.message,
        final=index.stop.final if index.stop else None,
        dominant=spec.languages.dominant,
        others=spec.languages.others,
        iterations=index.stop.iteration if index.stop else spec.iterations,
        models=tuple(_model(iteration) for iteration in run.iterations),
        suites=tuple(
            evaluation.with_baselines(_suite(run, suite, answers), suite, spec, answers)
            for suite in spec.evaluation.suites
        ),
        pairs=tuple(reading.pairs(run)),
        training=tuple(reading.training(run)),
        agreements=tuple(reading.agreements(run)),
        promotions=tuple(reading.promotions(run)),
        work=tuple(reading.work(run)),
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
        versions=reading.versions(run),
        recipe=yaml.safe_dump(index.recipe, allow_unicode=True, sort_keys=False),
        notes=(*_overlaps(index), *notes),
        handouts=_handouts(run),
    )


def _suite(run: Source, suite: Suite, answers: Answers) -> SuiteStory:
    """Return what a suite amounts to, with the verdicts on it."""
    rulings: dict[tuple[Entry, str], Ruling] = {}
    for iteration, part, manifest in run.of("judge"):
        judged = evaluation.judged(iteration, part, manifest)
        name, _, baseline = judged.suite.partition("+")
        if name == suite.name:
            entry = baseline or iteration
            if suite.has_turns:
                found = Ruling(judged, grades=run.reader.rows(manifest, Grade))
            else:
                found = Ruling(judged, run.reader.rows(manifest, Verdict))
            rulings[entry, judged.language] = found
    languages = run.spec.languages
    story = evaluation.suite_story(suite, languages, answers)
    story = replace(story, results=evaluation.results(suite.name, run.of("evaluate")))
    return judgements.with_verdicts(story, suite, languages, rulings)


def _handouts(run: Source) -> dict[str, str]:
    """Return lm-eval's own results by the ending of their file's name."""
    return {
        f"{part.partition('.')[0]}.M{iteration}.lm-eval.json": content.decode()
        for iteration, part, manifest in run.of("evaluate")
        if part.partition(".")[2] == keys.TASKS
        for content in [run.reader.content(manifest, keys.RESULTS)]
    }


def _overlaps(index: Index) -> Iterator[str]:
    """Yield a note for each suite and language with prompts that were trained on."""
    for warning in index.overlaps.warnings if index.overlaps else ():
        yield f"How much of a score is memory: {warning}"


def _model(iteration: IterationIndex) -> Model:
    return Model(index=iteration.index, uri=iteration.model_uri, digest=iteration.model_digest)


def _answers(run: Source) -> Answers:
    """Return the evaluated rows by suite, model and language."""
    found: Answers = {}
    for iteration, part, manifest in run.of("evaluate"):
        suite, language = part.split(".", 1)
        rows = run.reader.rows(manifest, Evaluated)
        for tag, by_id in evaluation.by_language(language, rows):
            found[suite, iteration, tag] = by_id
    return found


def _gold(run: Source) -> tuple[Mapping[str, Mapping[str, str]], tuple[str, ...]]:
    """Return the first suite's gold answers by language and id, or a note why there are none."""
    gold: dict[str, dict[str, str]] = {}
    for suite in run.spec.evaluation.suites[:1]:
        if suite.has_tasks:
            continue
        try:
            parallel = suites.read(
                suite, suite.languages_in(run.spec.languages), run.reader.store.read
            )
        except InputError as error:
            return {}, (f"Gold answers could not be read for the samples: {error}",)
        for language, rows in parallel.items():
            gold[language] = {row.id: row.answer for row in rows if row.answer is not None}
    return gold, ()
