"""From the evaluated answers to rates, changes and samples: the arithmetic of `gather`.

Pure: rows in, parts of the story out. A change is measured on the same prompts for both
models, so the interval is the paired one of `intervals`.
"""

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe import Languages, Spec, Suite
from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.measuring.differences import (
    are_identified,
    contrast,
    corrected,
    mean_of,
    measure_of,
    of_means,
    values_of,
)
from selfimprove_pipeline.measuring.intervals import Rate
from selfimprove_pipeline.report.story.story import (
    BaselineStory,
    Change,
    Entry,
    Judged,
    Measured,
    Sample,
    SuiteStory,
)

SAMPLES = 3
"""Samples of each language."""
SEED = 42

Answers = dict[tuple[str, int, str], dict[str, Evaluated]]
"""Evaluated rows by suite, model and language, then by id."""

Values = Mapping[tuple[int, str], Mapping[str, float]]
"""What a measure says of each id, by model and language."""


def by_language(
    language: str, rows: Sequence[Evaluated]
) -> Iterator[tuple[str, dict[str, Evaluated]]]:
    """Yield the rows of a part of `evaluate` by id: of one language, or of each task of lm-eval."""
    tags = dict.fromkeys(row.language for row in rows) if language == keys.TASKS else [language]
    for tag in tags:
        own = (row for row in rows if language != keys.TASKS or row.language == tag)
        yield tag, {row.id: row for row in own}


def suite_story(suite: Suite, languages: Languages, answers: Answers) -> SuiteStory:
    """Return what the answers to one suite amount to, for all models that have some."""
    rows = {
        (model, language): by_id
        for (name, model, language), by_id in answers.items()
        if name == suite.name
    }
    measure = measure_of(
        (row for by_id in rows.values() for row in by_id.values()),
        counts_languages=suite.counts_languages,
    )
    tags = suite.languages_in(languages)
    if suite.has_tasks:
        measure, tags = "score", tuple(dict.fromkeys(tag for _, tag in rows))
    values = {place: values_of(by_id, measure) for place, by_id in rows.items()}
    models = sorted({model for model, _ in rows})
    return SuiteStory(
        name=suite.name,
        kind=suite.kind,
        measure=measure,
        languages=tags if suite.has_tasks or suite.languages else None,
        measured={place: measured(by_id.values()) for place, by_id in rows.items()},
        means={
            model: mean_of([values[model, language] for language in languages.others])
            for model in models
            if are_in(values, model, languages.others)
        },
        changes=tuple(changes_of(values, models, languages, tags)),
    )


def results(
    name: str, parts: Iterable[tuple[int, str, Manifest]]
) -> dict[tuple[Entry, str], dict[str, float]]:
    """Return all that lm-eval tells of the tasks of a suite, nothing of another suite."""
    found: dict[tuple[Entry, str], dict[str, float]] = {}
    for iteration, part, manifest in parts:
        suite, _, language = part.partition(".")
        if language == keys.TASKS and suite.partition("+")[0] == name:
            entry = keys.baseline_of(part) or iteration
            for task, told in keys.by_task(manifest.measures).items():
                found[entry, task] = told
    return found


def with_baselines(story: SuiteStory, suite: Suite, spec: Spec, answers: Answers) -> SuiteStory:
    """Return what a suite amounts to with those baselines that are measured on it."""
    made = (_baseline(name, suite, spec, answers) for name in spec.evaluation.baselines)
    return replace(story, baselines=tuple(one for one in made if one.measured))


def _baseline(name: str, suite: Suite, spec: Spec, answers: Answers) -> BaselineStory:
    """Compare a baseline with the last model as one model with the next."""
    own = f"{suite.name}+{name}"
    last = max((model for found, model, _ in answers if found == suite.name), default=0)
    rows = {
        (suite.name, int(found == suite.name), language): by_id
        for (found, model, language), by_id in answers.items()
        if found == own or (found == suite.name and model == last > 0)
    }
    both = suite_story(suite, spec.languages, rows)
    return BaselineStory(
        name=name,
        measured={tag: found for (place, tag), found in both.measured.items() if place == 0},
        mean=both.means.get(0),
        changes=tuple(replace(change, after=last) for change in both.changes),
    )


def measured(rows: Collection[Evaluated]) -> Measured:
    """Return the rates of one model in one language of a suite."""

    def share(has: Callable[[Evaluated], bool]) -> Rate:
        return Rate(sum(map(has, rows)), len(rows))

    scores = [row.score for row in rows if row.score is not None]
    lengths = [len(row.completion) for row in rows]
    return Measured(
        score=Rate(math.fsum(scores), len(scores)) if scores else None,
        off_target=share(lambda row: row.is_off_target) if are_identified(rows) else None,
        evasive=share(lambda row: row.is_evasive),
        empty=share(lambda row: row.is_empty),
        truncated=share(lambda row: row.finish_reason == "length"),
        mean_length=sum(lengths) / len(lengths) if lengths else 0.0,
    )


def judged(iteration: int, part: str, manifest: Manifest) -> Judged:
    """Return what the verdicts on one suite in one language came to."""
    suite, language = part.split(".", 1)
    return Judged(
        suite=suite,
        iteration=iteration,
        language=language,
        measures=manifest.measures,
        decided=manifest.counts.get("conversations", manifest.counts["judged"]),
        malformed=manifest.counts["malformed"],
    )


def samples(
    spec: Spec, answers: Answers, gold: Mapping[str, Mapping[str, str]]
) -> tuple[Sample, ...]:
    """Return prompts of the first suite, drawn without looking at the answers.

    The seed is fixed and the ids are sorted, so languages with the same ids show the same
    prompts, and a report of the same rows always shows the same ones.
    """
    found: list[Sample] = []
    for suite in spec.evaluation.suites[:1]:
        for language in (*spec.languages.others, spec.languages.dominant):
            models = {
                model: by_id
                for (name, model, tag), by_id in sorted(answers.items())
                if (name, tag) == (suite.name, language)
            }
            found += _samples(suite.name, language, models, gold.get(language, {}))
    return tuple(found)


def _samples(
    suite: str,
    language: str,
    models: Mapping[int, Mapping[str, Evaluated]],
    gold: Mapping[str, str],
) -> Iterator[Sample]:
    if not models:
        return
    ids = sorted(set.intersection(*(set(by_id) for by_id in models.values())))
    generator = random.Random(SEED)  # noqa: S311 - reproducible, nothing is secret
    for identifier in generator.sample(ids, min(SAMPLES, len(ids))):
        shown = {model: by_id[identifier] for model, by_id in models.items()}
        yield Sample(
            suite=suite,
            language=language,
            id=identifier,
            prompt=next(iter(shown.values())).prompt,
            gold=gold.get(identifier),
            answers=shown,
        )


def changes_of(
    values: Values,
    models: Sequence[int],
    languages: Languages,
    evaluated: Sequence[str],
    *,
    steps: int = 1,
) -> Iterator[Change]:
    """Yield the change from each model to the next, then from M0 to the last one.

    p values are those of values in multiples of 1 / steps, corrected over the languages of each
    two models.
    """
    ordered = tuple(dict.fromkeys((*languages.others, languages.dominant, *evaluated)))
    spans = [(model, model + 1) for model in models if model + 1 in models]
    if len(spans) > 1 and models[0] == 0:
        spans.append((0, models[-1]))
    for span in spans:
        found = (_change(values, *span, language, steps) for language in ordered)
        yield from corrected([change for change in found if change is not None])
        if all(are_in(values, model, languages.others) for model in span):
            yield _mean_change(values, *span, languages.others, steps)


def _change(values: Values, before: int, after: int, language: str, steps: int) -> Change | None:
    """Return the change over the ids that both models have a value of, None without any."""
    a, b = (values.get((model, language), {}) for model in (before, after))
    both = a.keys() & b.keys()
    if not both:
        return None
    pair = ({name: a[name] for name in both}, {name: b[name] for name in both})
    return Change(before=before, after=after, **vars(contrast(language, *pair, steps=steps)))


def _mean_change(
    values: Values, before: int, after: int, others: Sequence[str], steps: int
) -> Change:
    """Return the gain: the change of the mean over the other languages."""
    sets = [[values[model, language] for language in others] for model in (before, after)]
    # A mean of k zeros and ones is a multiple of 1 / k.
    found = of_means(sets[0], sets[1], steps=max(steps, len(others)))
    return Change(before=before, after=after, **vars(found))


def are_in(values: Values, model: int, languages: Sequence[str]) -> bool:
    """Return whether a model has values in each of some languages."""
    return all(values.get((model, language)) for language in languages)
