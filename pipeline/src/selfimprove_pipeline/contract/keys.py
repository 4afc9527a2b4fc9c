"""The keys under which the artifacts of the stages lie.

A key is the digest of everything that determines an artifact: the contract, the stage and
part, the recipe fields that the stage reads, the digests of its inputs and the versions that
compute it. URIs, names and times are in no key, so a finished key is never computed again,
by this run or by another one in the same bucket.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from selfimprove_pipeline.contract import manifests, objectives, recipe
from selfimprove_pipeline.contract.manifests import StopReason
from selfimprove_pipeline.contract.recipe import Spec, Stage, Suite
from selfimprove_pipeline.contract.recipe.evaluation import Baseline
from selfimprove_pipeline.contract.stages import ROWS

SFT: Final = "sft"
"""The baseline that is a model of its own, and the part of `train` that makes it."""

BESIDE: Final[Mapping[Baseline, int]] = {"languageInstruction": 0, SFT: 1}
"""The model beside which a baseline is measured: M0 is told the language, and `sft` is what the
first iteration makes of M0 beside M1."""

_NOT_OF_LAYOUT: Final = {
    "packed": "training.microBatchSize",
    "padded": "training.tokensPerDevice",
}
"""The field that passes of a layout never read; while the layout is open, both count."""

_OF_TASKS: Final = ("tasks", "numFewshot", "applyChatTemplate")
"""Fields of a suite that only tasks of lm-eval have."""

_OF_ANY_TEXT: Final = (
    "model.dtype",
    "chat.template",
    "chat.templateKwargs",
    "inference.tensorParallelSize",
    "inference.dtype",
    "inference.maxModelLen",
    "inference.extraArgs",
    "inference.batchInvariant",
)
"""Fields of `evaluate` that also decide what lm-eval is told, which writes its prompts itself."""

LEFT_OUT: Final = "gates.leftOut"
"""Where a training's key and manifest have the languages whose pairs it was not given."""

GRADES: Final = "1"
"""Version of how a judge is asked to grade pairs; a change raises it."""

HARNESS: Final = "0.4.13"
"""Version of lm-eval whose tasks a suite runs, as pyproject.toml pins it."""

RESULTS: Final = "results.json"
"""File of such a suite's artifact with the results as lm-eval tells them."""

TASKS: Final = "tasks"
"""Stands for the language in the part of a suite that has tasks of lm-eval."""

DIFFICULTY: Final = "difficulty"
"""Input of a judged part that changes what its verdicts amount to, and not the verdicts."""

Digests = Mapping[tuple[Stage, str], str]
"""Payload digests of an iteration's finished artifacts, by stage and part."""


@dataclass(frozen=True)
class Toolchain:
    """What computes an artifact: package versions, engine, devices.

    A section is None where it is another pod's and not known yet.
    """

    inference: Mapping[str, str] | None
    light: Mapping[str, str] | None
    training: Mapping[str, str] | None
    translation: Mapping[str, str] | None
    """translation is that of inference, unless an external translator does it."""


@dataclass(frozen=True)
class Iteration:
    """Everything that the keys of one iteration depend on, besides its own artifacts."""

    index: int
    spec: Spec
    """spec is the resolved one."""
    model: str
    """model is the digest of M(index)."""
    toolchain: Toolchain
    prompts: Mapping[str, str] = field(default_factory=dict)
    """prompts holds the digest of the iteration's prompts by language; empty for the last model."""
    gold: Mapping[str, str] = field(default_factory=dict)
    """gold holds the digest of the prompts' gold answers by language, where all have one."""
    suites: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """suites holds the digest of the rows by suite and language."""
    sft: str | None = None
    """sft is the digest of the baseline's model, None while it is not known, or not asked for."""
    opponents: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    """opponents holds, by judged suite and language, the digest of the answers that the model's
    are compared with; None while they are not known."""
    difficulties: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """difficulties holds, by judged suite and language, the digest of how hard the instructions
    are, where that is given."""
    references: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """references holds, by graded suite and language, the digest of the good answers that a judge
    may be shown."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """earlier holds the digests of the evaluation of M(index - 1) by part, if a gate asks."""
    stop: StopReason | None = None
    """stop tells that the run ends here: nothing more is made of the model."""
    left_out: tuple[str, ...] = ()
    """left_out are the languages whose pairs are not trained on."""


@dataclass(frozen=True)
class Target:
    """One artifact that a stage is to make."""

    stage: Stage
    part: str
    key: str
    inputs: Mapping[str, str]
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]


def targets(stage: Stage, iteration: Iteration, done: Digests) -> tuple[Target, ...] | None:
    """Return what a stage is to make, None while an input's digest or what computes it is open."""
    if iteration.stop is not None and stage != "judge":
        return ()
    inputs_by_part = _inputs(stage, iteration, done)
    versions = versions_of(stage, iteration.toolchain)
    if inputs_by_part == {}:
        return ()
    if inputs_by_part is None or versions is None:
        return None
    return tuple(
        _target(stage, part, _fields(stage, part, iteration), inputs, versions)
        for part, inputs in inputs_by_part.items()
    )


def ahead(iteration: Iteration) -> dict[str, Target]:
    """Return, by direction, where translations lie before the digest of their answers is known.

    Their key has that of the answers in the digest's place. It does not determine the answers,
    so each row says which text it is the translation of.
    """
    versions = versions_of("translate", iteration.toolchain)
    answers = {target.part: target.key for target in targets("generate", iteration, {}) or ()}
    if versions is None or not answers or iteration.spec.translation.external is not None:
        return {}
    found = {}
    for source, target in iteration.spec.languages.directions():
        part = direction(source, target)
        inputs = {"model": iteration.model, "answersUnder": answers[source]}
        fields = _fields("translate", part, iteration)
        found[part] = _target("translate", part, fields, inputs, versions)
    return found


def key(
    stage: Stage,
    part: str,
    *,
    fields: Mapping[str, Any],
    inputs: Mapping[str, str],
    versions: Mapping[str, str],
) -> str:
    """Return the key of an artifact, 32 hex digits."""
    parts = {
        "contract": manifests.CONTRACT,
        "stage": stage,
        "part": part,
        "recipe": dict(fields),
        "inputs": dict(inputs),
        "versions": dict(versions),
    }
    return manifests.digest(parts)[:32]


def direction(source: str, target: str) -> str:
    """Return the part name of a translation; language tags have hyphens, never underscores."""
    return f"{source}_{target}"


def languages_of(direction_part: str) -> tuple[str, str]:
    """Return source and target of a translation's part name."""
    source, target = direction_part.split("_")
    return source, target


def baselines_beside(index: int, spec: Spec) -> tuple[Baseline, ...]:
    """Return the baselines that are measured beside M(index)."""
    evaluation = spec.evaluation
    if not evaluation.suites:
        return ()
    return tuple(name for name in evaluation.baselines if BESIDE[name] == index)


def trained_parts(index: int, spec: Spec) -> tuple[str, ...]:
    """Return the parts of `train` in an iteration: the next model, and a baseline beside it."""
    return ("", SFT) if SFT in baselines_beside(index + 1, spec) else ("",)


def suite_part(suite: str, language: str, baseline: str | None = None) -> str:
    """Return the part name of one suite in one language; of a baseline, `<suite>+<baseline>.`."""
    return f"{suite}.{language}" if baseline is None else f"{suite}+{baseline}.{language}"


def baseline_of(part: str) -> str | None:
    """Return the baseline that a part of `evaluate` measures, None where it is the model."""
    return part.partition(".")[0].partition("+")[2] or None


def by_task(measures: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the measures `<task>/<metric>` of a suite that has tasks, by task and metric."""
    found: dict[str, dict[str, float]] = {}
    for name, value in measures.items():
        task, _, metric = name.rpartition("/")
        found.setdefault(task, {})[metric] = value
    return found


def _target(
    stage: Stage,
    part: str,
    fields: Mapping[str, Any],
    inputs: Mapping[str, str],
    versions: Mapping[str, str],
) -> Target:
    made = key(stage, part, fields=fields, inputs=inputs, versions=versions)
    return Target(stage, part, made, inputs, fields, versions)


def _inputs(
    stage: Stage, iteration: Iteration, done: Digests
) -> Mapping[str, Mapping[str, str]] | None:
    """Return the input digests of each part, None when one is not known yet."""
    try:
        match stage:
            case "evaluate":
                return _evaluate_inputs(iteration)
            case "gate":
                return _gate_inputs(iteration, done)
            case "judge":
                return _judge_inputs(iteration, done)
            case "generate":
                return _generate_inputs(iteration)
            case "translate":
                return _translate_inputs(iteration, done)
            case "pair":
                return _pair_inputs(iteration, done)
            case "score":
                return _score_inputs(iteration, done)
            case "reference" | "train":
                trained = trained_parts(iteration.index, iteration.spec)
                parts = trained if stage == "train" else ("",)
                inputs = {"model": iteration.model, "pairs": done["pair", ""]}
                return dict.fromkeys(parts, inputs)
    except KeyError:
        return None


def _evaluate_inputs(iteration: Iteration) -> Mapping[str, Mapping[str, str]] | None:
    found = {}
    for baseline in (None, *baselines_beside(iteration.index, iteration.spec)):
        model = iteration.sft if baseline == SFT else iteration.model
        if model is None:
            return None
        for (suite, language), rows in iteration.suites.items():
            if language == TASKS and baseline == "languageInstruction":
                continue  # which words prompts, not tasks
            part = suite_part(suite, language, baseline)
            found[part] = {"model": model, "suite": rows}
    return found


def _gate_inputs(iteration: Iteration, done: Digests) -> Mapping[str, Mapping[str, str]]:
    """Return both models' answers to the first suite in the languages that are trained."""
    if not iteration.index or not is_gated(iteration.spec):
        return {}
    suite = iteration.spec.evaluation.suites[0].name
    trained = (suite_part(suite, language) for language in iteration.spec.languages.all())
    parts = [part for part in trained if part in iteration.earlier]
    now = {f"now/{part}": done["evaluate", part] for part in parts}
    before = {f"before/{part}": iteration.earlier[part] for part in parts}
    return {"": {"model": iteration.model, **now, **before}}


def is_gated(spec: Spec) -> bool:
    """Return whether models are compared with those before them."""
    return spec.gates.mode == "Enforced" and bool(spec.evaluation.suites)


def _judge_inputs(iteration: Iteration, done: Digests) -> Mapping[str, Mapping[str, str]] | None:
    if None in iteration.opponents.values():
        return None
    found = {}
    for suite, language in judged_suites(iteration):
        opponent = iteration.opponents.get((suite, language))
        difficulty = iteration.difficulties.get((suite, language))
        more = {}
        if opponent is not None:
            more["opponent"] = opponent
        if (suite, language) in iteration.references:
            more["references"] = iteration.references[suite, language]
        if difficulty is not None:
            more[DIFFICULTY] = difficulty
        for baseline in (None, *baselines_beside(iteration.index, iteration.spec)):
            part = suite_part(suite, language, baseline)
            found[part] = {"answers": done["evaluate", part], **more}
    return found


def judged_suites(iteration: Iteration) -> tuple[tuple[str, str], ...]:
    """Return the suites and languages whose answers a judge compares with others, or grades."""
    return (*iteration.opponents, *iteration.references)


def _generate_inputs(iteration: Iteration) -> Mapping[str, Mapping[str, str]]:
    return {
        language: {"model": iteration.model, "prompts": rows}
        for language, rows in iteration.prompts.items()
    }


def _translate_inputs(iteration: Iteration, done: Digests) -> Mapping[str, Mapping[str, str]]:
    directions = iteration.spec.languages.directions() if iteration.prompts else ()
    return {
        direction(source, target): {
            "model": iteration.model,
            "answers": done["generate", source],
        }
        for source, target in directions
    }


def _pair_inputs(iteration: Iteration, done: Digests) -> Mapping[str, Mapping[str, str]]:
    if not iteration.prompts:
        return {}
    languages = iteration.spec.languages
    prompts = {f"prompts/{language}": iteration.prompts[language] for language in languages.all()}
    answers = {f"answers/{language}": done["generate", language] for language in languages.all()}
    names = [direction(source, target) for source, target in languages.directions()]
    translations = {f"translations/{name}": done["translate", name] for name in names}
    if iteration.spec.pairing.filters.wrong_answer:
        gold = {f"gold/{language}": iteration.gold[language] for language in languages.all()}
        return {"": {**prompts, **answers, **translations, **gold}}
    return {"": {**prompts, **answers, **translations}}


def _score_inputs(iteration: Iteration, done: Digests) -> Mapping[str, Mapping[str, str]]:
    if _is_graded(iteration):
        languages = iteration.spec.languages.all()
        return {language: {"pairs": done["pair", ""]} for language in languages}
    if not iteration.gold:
        return {}
    gold = {f"gold/{language}": rows for language, rows in iteration.gold.items()}
    return {"": {"pairs": done["pair", ""], **gold}}


def _is_graded(iteration: Iteration) -> bool:
    """Return whether a judge grades the pairs: only where no gold answers do."""
    return grades_pairs(iteration.spec) and bool(iteration.prompts) and not iteration.gold


def grades_pairs(spec: Spec) -> bool:
    """Return whether a judge is to grade the pairs of prompts without answers."""
    return spec.evaluation.judge is not None and spec.evaluation.judge.pairs > 0


def versions_of(stage: Stage, toolchain: Toolchain) -> Mapping[str, str] | None:
    """Return the versions in the keys of a stage, None while they are not known."""
    row = ROWS[stage]
    sections = [getattr(toolchain, section) for section in row.sections]
    if None in sections:
        return None
    return {name: value for own in (*sections, row.versions) for name, value in own.items()}


def _fields(stage: Stage, part: str, iteration: Iteration) -> dict[str, Any]:
    """Return the recipe values that a part depends on, its suite's own among them."""
    spec = iteration.spec
    values = recipe.fields_of(spec, stage)
    if stage == "score":
        return {**values, "grades": GRADES} if _is_graded(iteration) else {}
    if stage == "gate":
        return {**values, "countsLanguages": spec.evaluation.suites[0].counts_languages}
    if stage in ("reference", "train"):
        values.pop(_NOT_OF_LAYOUT.get(spec.training.layout or "", ""), None)
    if stage == "train" and part == SFT:
        for name in objectives.unread(SFT):
            del values[f"training.{name}"]
        values["baseline"] = part
    if stage in ("evaluate", "judge"):
        return _with_suite(values, stage, part, spec)
    if stage in ("reference", "train") and iteration.left_out:
        values[LEFT_OUT] = list(iteration.left_out)
    return values


def _with_suite(values: dict[str, Any], stage: Stage, part: str, spec: Spec) -> dict[str, Any]:
    """Return the values of a suite's part: those it reads, and the suite's own."""
    suite, baseline = suite_of(part, spec), baseline_of(part)
    own = recipe.fields_of(suite, stage)
    if suite.has_turns:
        values.pop("evaluation.judge.positions", None)  # an answer stands alone
    if suite.has_tasks:
        values = {path: value for path, value in values.items() if path in _OF_ANY_TEXT}
        own["harness"] = HARNESS
    else:
        own = {path: value for path, value in own.items() if path not in _OF_TASKS}
    told = {f"suite.{path}": value for path, value in own.items()}
    return {**values, **told, **({} if baseline is None else {"baseline": baseline})}


def suite_of(part: str, spec: Spec) -> Suite:
    """Return the suite that a part of `evaluate` belongs to."""
    name = part.partition(".")[0].partition("+")[0]
    return next(suite for suite in spec.evaluation.suites if suite.name == name)
