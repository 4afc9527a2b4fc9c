"""Finds what two models were measured on, for `comparison`: manifests by digest, then rows.

An evaluation belongs to a model, not to a run: every index in the bucket, of runs and of
`selfimprove evaluate`, is asked for a model's digest. Of several evaluations of one suite the
two that were made most alike are taken.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Index, IterationIndex, Manifest
from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.report.models.comparison import Answers, Comparison, suite_contrast
from selfimprove_pipeline.report.story import evaluation
from selfimprove_pipeline.report.story.story import Judged
from selfimprove_pipeline.store.repository import Repository

Parts = Mapping[tuple[str, str], tuple[Manifest, ...]]
"""Finished evaluations by suite and language."""


@dataclass(frozen=True)
class Contender:
    """One side of a comparison."""

    label: str
    repository: Repository
    parts: Parts


def of_digest(label: str, repository: Repository, digest: str) -> Contender:
    """Return a model as any run or evaluation in the bucket has measured it."""
    found: dict[tuple[str, str], dict[str, Manifest]] = defaultdict(dict)
    for part, key in _evaluations(repository.indexes().values(), digest):
        manifest = repository.manifest("evaluate", key)
        # A baseline beside the model may be another model.
        if manifest is not None and manifest.inputs["model"] == digest:
            suite, language = part.split(".", 1)
            found[suite, language][key] = manifest
    if not found:
        message = (
            f"{label}: expected a model that was evaluated, found no evaluation of it in the "
            "store; run `selfimprove evaluate` first, or name the store with --artifacts"
        )
        raise InputError(message)
    return Contender(label, repository, {part: tuple(m.values()) for part, m in found.items()})


def compare(a: Contender, b: Contender, duels: Sequence[Judged] = ()) -> Comparison:
    """Return the differences on everything that both were measured on, with a judge's word."""
    both = chosen(a, b)
    notes = list(_one_sided(a, b))
    notes += _unlike(both)
    rows = {part: found for place, pair in both.items() for part, found in _rows(a, b, place, pair)}
    names = dict.fromkeys(suite for suite, _ in both)
    unseen = _unseen(both)
    kinds: dict[str, set[str]] = defaultdict(set)
    for (name, _), pair in both.items():
        kinds[name] |= {kind_of(manifest) for manifest in pair}
    found = [
        suite_contrast(
            name,
            {tag: pair for (suite, tag), pair in rows.items() if suite == name},
            notes,
            unseen={tag for suite, tag in unseen if suite == name},
            counts_languages={"offTarget"} == kinds[name],
        )
        for name in names
    ]
    suites = tuple(contrast for contrast in found if contrast is not None)
    if not suites and not duels:
        message = "\n".join(["expected prompts that both have answered, found none", *notes])
        raise InputError(message)
    return Comparison(a=a.label, b=b.label, suites=suites, notes=tuple(notes), duels=tuple(duels))


def kind_of(manifest: Manifest) -> str:
    """Return the kind of the suite that an evaluation is of."""
    return manifest.recipe.get("suite.kind") or manifest.part.partition(".")[0]


def chosen(a: Contender, b: Contender) -> dict[tuple[str, str], tuple[Manifest, Manifest]]:
    """Return the evaluations to compare, by suite and language."""
    return {part: _alike(a.parts[part], b.parts[part]) for part in _in_both(a, b)}


def entry_of(index: Index, number: int | None, name: str) -> IterationIndex:
    """Return what an index has of M_number, of its last model where no number is given."""
    last = len(index.iterations) - 1
    if number is not None and number > last:
        message = f"{name}@{number}: expected 0 to {last}, found {number}"
        raise InputError(message)
    return index.iterations[index.final if number is None else number]


def _evaluations(indexes: Iterable[Index], digest: str) -> Iterator[tuple[str, str]]:
    """Yield part and key of each evaluation of a model that indexes name."""
    for index in indexes:
        for entry in index.iterations:
            if entry.model_digest == digest:
                yield from entry.keys.get("evaluate", {}).items()


def _in_both(a: Contender, b: Contender) -> list[tuple[str, str]]:
    """Return what both have: suites by name, languages as in the report, others first."""
    both = [part for part in a.parts if part in b.parts]
    return sorted(both, key=lambda part: (part[0], _place(part[1], a.parts[part][0])))


def _place(language: str, manifest: Manifest) -> int:
    if language == keys.TASKS:
        return 0
    own = manifest.recipe.get("suite.languages") or ()
    return [*_trained(manifest), *own].index(language)


def _trained(manifest: Manifest) -> tuple[str, ...]:
    """Return the languages of the recipe under which an evaluation was made."""
    others = manifest.recipe.get("languages.others", ())  # tasks of lm-eval have none
    return tuple(tag for tag in (*others, manifest.recipe.get("languages.dominant")) if tag)


def _unseen(chosen: Mapping[tuple[str, str], tuple[Manifest, Manifest]]) -> set[tuple[str, str]]:
    """Return suites and languages that the recipe of one of the two does not train."""
    return {
        (suite, tag)
        for (suite, tag), pair in chosen.items()
        if any(tag not in _trained(manifest) for manifest in pair)
    }


def _one_sided(a: Contender, b: Contender) -> Iterator[str]:
    """Say what only one of the two was measured on; a suite that is absent as one line."""
    for one, other in ((a, b), (b, a)):
        absent = [part for part in one.parts if part not in other.parts]
        known = {suite for suite, _ in other.parts}
        for suite in dict.fromkeys(suite for suite, _ in absent):
            tags = ", ".join(tag for name, tag in absent if name == suite)
            what = f"{suite}, {tags}" if suite in known else suite
            yield f"{what}: not compared, not measured for {other.label}"


def _alike(a: Iterable[Manifest], b: Iterable[Manifest]) -> tuple[Manifest, Manifest]:
    """Return the two evaluations that differ least in what made them, the latest of several."""

    def likeness(pair: tuple[Manifest, Manifest]) -> tuple[int, str, str]:
        return (-len(_differences(*pair)), pair[0].created, pair[1].created)

    return max(product(a, b), key=likeness)


def _unlike(chosen: Mapping[tuple[str, str], tuple[Manifest, Manifest]]) -> list[str]:
    """Say in which settings evaluations differ, once for all languages of a suite."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (suite, language), pair in chosen.items():
        settings = "; ".join(
            f"{name}: {a} for A, {b} for B" for name, (a, b) in _differences(*pair).items()
        )
        if settings:
            found[suite, settings].append(language)
    return [
        f"{suite}, {', '.join(tags)}: measured with other settings ({settings})"
        for (suite, settings), tags in found.items()
    ]


def _differences(a: Manifest, b: Manifest) -> dict[str, tuple[Any, Any]]:
    """Return the settings, versions and suites that two evaluations do not share."""
    # A template is part of the model: two families have two.
    settings = [
        {**m.recipe, **m.versions, "template": None, "suite": m.inputs["suite"][:8]} for m in (a, b)
    ]
    names = sorted(settings[0].keys() | settings[1].keys())
    pairs = {name: (settings[0].get(name), settings[1].get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _rows(
    a: Contender, b: Contender, place: tuple[str, str], pair: tuple[Manifest, Manifest]
) -> Iterator[tuple[tuple[str, str], tuple[Answers, Answers]]]:
    """Yield the answers of both by suite and language, of lm-eval's tasks by suite and task."""
    suite, language = place
    of_a, of_b = (
        dict(evaluation.by_language(language, side.repository.rows(manifest, Evaluated)))
        for side, manifest in zip((a, b), pair, strict=True)
    )
    for tag, answers in of_a.items():
        yield (suite, tag), (answers, of_b.get(tag, {}))
