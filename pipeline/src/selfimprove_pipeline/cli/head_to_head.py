"""Head to head without a run: a judge compares the answers of two models that were evaluated.

The contests are those of the suite `headToHead`, with A in the place of M0, and lie under the same
keys: what a run has judged is found, and nothing is asked for twice. `models.contenders` finds the
answers, `tasks.judge` makes the verdicts.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from selfimprove_pipeline import external
from selfimprove_pipeline.contract import keys, recipe
from selfimprove_pipeline.contract.keys import Target, Toolchain
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe import Judge, Spec, Suite
from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.external import Spent
from selfimprove_pipeline.measuring import differences
from selfimprove_pipeline.measuring.judged.contests import Contest
from selfimprove_pipeline.report.models import contenders
from selfimprove_pipeline.report.models.contenders import Contender
from selfimprove_pipeline.report.story import evaluation
from selfimprove_pipeline.report.story.story import Judged
from selfimprove_pipeline.workers.tasks.collect import Collector, OnProgress
from selfimprove_pipeline.workers.tasks.judge import JUDGE, contest, task_of

OPEN: Final = ("headToHead", "offTarget", "xAlpacaEval")
"""Kinds of suites that have no right answer to compare with."""
FIELD: Final = "evaluation.judge"

Part = tuple[str, str]


def meet(
    a: Contender, b: Contender, judge: Judge, toolchain: Toolchain, on_progress: OnProgress
) -> tuple[Judged, ...]:
    """Return what a judge prefers of B to A, on each open suite that both have answered.

    Verdicts are kept beside B's answers.
    """
    found: dict[Part, Manifest] = {}
    missing: dict[Part, tuple[Target, list[Contest]]] = {}
    parts = _open(contenders.chosen(a, b))
    for part, pair in parts.items():
        target = _target(part, pair, judge, toolchain)
        manifest = b.repository.manifest(JUDGE, target.key)
        if manifest is not None:
            found[part] = manifest
        elif contests := list(_contests(a, b, pair)):
            missing[part] = (target, contests)
    if missing:
        tasks = [
            task_of(target, contests, language)
            for (_, language), (target, contests) in missing.items()
        ]
        asked = external.judge(None, judge, Spent())
        try:
            made = Collector(asked, b.repository, on_progress).collect(tasks)
        finally:
            asked.close()
        found |= dict(zip(missing, made, strict=True))
    return tuple(
        evaluation.judged(0, keys.suite_part(*part), found[part]) for part in parts if part in found
    )


def _open(
    chosen: Mapping[Part, tuple[Manifest, Manifest]],
) -> dict[Part, tuple[Manifest, Manifest]]:
    return {
        part: pair
        for part, pair in chosen.items()
        if all(contenders.kind_of(manifest) in OPEN for manifest in pair)
    }


def _target(
    part: Part, pair: tuple[Manifest, Manifest], judge: Judge, toolchain: Toolchain
) -> Target:
    """Return the artifact of a suite's verdicts, as B's run would make it of headToHead."""
    a, b = pair
    name = keys.suite_part(*part)
    fields = _fields(b.recipe, judge)
    inputs = {"answers": b.digest, "opponent": a.digest}
    versions = keys.versions_of(JUDGE, toolchain) or {}
    key = keys.key(JUDGE, name, fields=fields, inputs=inputs, versions=versions)
    return Target(JUDGE, name, key, inputs, fields, versions)


def _fields(evaluated: Mapping[str, Any], judge: Judge) -> dict[str, Any]:
    """Return the recipe values that verdicts depend on: those of B's evaluation, and the judge."""
    own = {*_paths(recipe.fields(Spec)), *_paths(recipe.fields(Suite, "suite."))}
    of_judge = recipe.fields_of(judge, JUDGE)
    return {path: value for path, value in evaluated.items() if path in own} | {
        f"{FIELD}.{path}": value for path, value in of_judge.items()
    }


def _paths(declared: Iterable[tuple[str, Any]]) -> Iterator[str]:
    return (path for path, info in declared if JUDGE in recipe.stages_of(info))


def _contests(a: Contender, b: Contender, pair: tuple[Manifest, Manifest]) -> Iterator[Contest]:
    """Yield B's answers against A's to the same prompts."""
    theirs, own = (
        {row.id: row for row in side.repository.rows(manifest, Evaluated)}
        for side, manifest in zip((a, b), pair, strict=True)
    )
    common = set(differences.common_ids(theirs, own))
    for name, row in own.items():
        if name in common:
            yield contest(row, theirs[name].completion, theirs[name].is_off_target)
