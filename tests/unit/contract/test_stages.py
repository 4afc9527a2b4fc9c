"""Keys: a stage's key changes exactly when something that determines its output does."""

import dataclasses
import json
from typing import Any, get_args

import pytest
from typing_extensions import override

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.keys import (
    LEFT_OUT,
    Iteration,
    Target,
    Toolchain,
    targets,
)
from selfimprove_pipeline.contract.recipe import Run, Stage
from support.runs import file

STAGES: tuple[Stage, ...] = get_args(Stage)

TOOLCHAIN = Toolchain(
    inference={"vllm": "1"},
    light={"lingua": "1"},
    training={"trl": "1", "worldSize": "1"},
    translation={"vllm": "1"},
)

BASE: dict[str, Any] = {
    "translation__translator": "external",
    "translation__external": {
        "kind": "openai",
        "baseUrl": "http://mt/v1",
        "model": "mt",
        "secretRef": {"name": "mt"},
    },
    "evaluation__suites": [
        {"name": "exactMatch", "uri": "s3://eval/set"},
        {"name": "headToHead", "uri": "s3://eval/set"},
    ],
    "evaluation__judge": {
        "baseUrl": "http://judge/v1",
        "model": "judge",
        "secretRef": {"name": "judge"},
    },
    "storage__caRef": {"name": "ca"},
    "storage__secretRef": {"name": "minio"},
    "model__secretRef": {"name": "hub"},
    "prompts__secretRef": {"name": "prompts"},
}

POD_VALUES: dict[str, Any] = {
    "image": "registry/image:2",
    "imagePullPolicy": "Always",
    "serviceAccountName": "other",
    "resources": {"limits": {"nvidia.com/gpu": 1}},
    "capabilities": ["IPC_LOCK"],
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "other",
    "runtimeClassName": "other",
    "imagePullSecrets": [{"name": "other"}],
    "labels": {"team": "b"},
    "annotations": {"team": "b"},
    "env": [{"name": "A", "value": "b"}],
    "envFrom": [{"secretRef": {"name": "other"}}],
    "volumes": [{"name": "cache", "emptyDir": {}}],
    "volumeMounts": [{"name": "cache", "mountPath": "/other"}],
}

OTHER_VALUES: dict[str, Any] = {
    "model.uri": "s3://models/other",
    "model.revision": "main",
    "model.dtype": "float32",
    "model.secretRef.name": "other",
    "languages.dominant": "fr",
    "languages.others": ["de", "es"],
    "prompts.uri": "s3://prompts/other",
    "prompts.perIteration": 3,
    "prompts.selection": "disjoint",
    "prompts.secretRef.name": "other",
    "iterations": 3,
    "profile": "lidr-paper",
    "chat.systemPrompt": "Be brief.",
    "chat.template": "{{ messages }}",
    "chat.templateKwargs": {"enable_thinking": False},
    "generation.temperature": 0.5,
    "generation.topP": 0.5,
    "generation.repetitionPenalty": 1.2,
    "generation.maxTokens": 7,
    "generation.seed": 7,
    "generation.answerLanguagePrefix": True,
    "generation.shards": 2,
    "translation.translator": "self",
    "translation.external.kind": "transformers",
    "translation.external.baseUrl": "http://other/v1",
    "translation.external.model": "other",
    "translation.external.secretRef.name": "other",
    "translation.temperature": 0.5,
    "translation.repetitionPenalty": 1.2,
    "translation.maxTokens": 7,
    "translation.retries": 2,
    "translation.retryTemperature": 0.5,
    "translation.stopAtClosingTag": False,
    "translation.sourceLengthBudget": False,
    "inference.tensorParallelSize": 2,
    "inference.dtype": "float16",
    "inference.engines": 2,
    "inference.batchInvariant": True,
    "inference.maxModelLen": 99,
    "inference.gpuMemoryUtilization": 0.5,
    "inference.extraArgs": {"quantization": "fp8"},
    "pairing.dominantPairs": "all",
    "pairing.failedDirection": "dropBoth",
    "pairing.dropIdentical": False,
    "pairing.filters.language": False,
    "pairing.filters.lengthRatio": False,
    "pairing.filters.lengthRatioBand.minimum": 0.4,
    "pairing.filters.lengthRatioBand.maximum": 3.0,
    "pairing.filters.empty": False,
    "pairing.filters.truncation": False,
    "pairing.filters.repetition": False,
    "pairing.filters.wrongAnswer": True,
    "pairing.translationPromptIds": ["p1"],
    "training.method": "lora",
    "training.lora.r": 4,
    "training.lora.alpha": 4,
    "training.lora.dropout": 0.5,
    "training.lora.targetModules": ["q_proj"],
    "training.beta": 0.1,
    "training.nllWeight": 0.5,
    "training.nllNormalization": "token",
    "training.learningRate": 0.1,
    "training.lrScheduler": "linear",
    "training.warmupRatio": 0.5,
    "training.weightDecay": 0.5,
    "training.maxGradNorm": 0.5,
    "training.epochs": 2,
    "training.globalBatchSize": 8,
    "training.microBatchSize": 2,
    "training.layout": "padded",
    "training.tokensPerDevice": 512,
    "training.maxLength": 99,
    "training.precision": "fp32",
    "training.saveDtype": "float32",
    "training.gradientCheckpointing": False,
    "training.zeroStage": 2,
    "training.offload": "all",
    "training.checkpointSteps": 7,
    "training.nodes": 2,
    "training.seed": 7,
    "training.reportTo": ["wandb"],
    "evaluation.suites": [
        {"name": "exactMatch", "uri": "s3://eval/other", "limit": 5},
        {"name": "headToHead", "uri": "s3://eval/other"},
    ],
    "evaluation.baselines": ["languageInstruction"],
    "evaluation.judge.baseUrl": "http://other/v1",
    "evaluation.judge.model": "other",
    "evaluation.judge.secretRef.name": "other",
    "evaluation.judge.positions": "random",
    "evaluation.judge.maxConcurrency": 7,
    "evaluation.judge.pairs": 7,
    "evaluation.judge.budget.requests": 7,
    "evaluation.judge.budget.tokens": 7,
    "evaluation.judge.budget.money": 7.0,
    "evaluation.judge.budget.promptPrice": 7.0,
    "evaluation.judge.budget.completionPrice": 7.0,
    "gates.mode": "Disabled",
    "gates.rewardAccuracy": 0.5,
    "gates.rewardAccuracyWarning": 0.5,
    "gates.minimumDecided": 7,
    "gates.minimumGain": 0.1,
    "storage.endpoint": "http://minio:9000",
    "storage.region": "eu-1",
    "storage.bucket": "other",
    "storage.prefix": "other",
    "storage.addressingStyle": "Path",
    "storage.caRef.name": "other",
    "storage.caRef.key": "other",
    "storage.secretRef.name": "other",
    "suspend": True,
    **{
        f"pods.{role}.{name}": value
        for role in ("inference", "training", "light")
        for name, value in POD_VALUES.items()
    },
    "stagePods": "Separate",
    "scheduling.queueName": "other",
    "scheduling.workloadPriorityClassName": "other",
    "deadlines.runSeconds": 7,
    "deadlines.stageSeconds": 7,
    "deadlines.startSeconds": 7,
    "deadlines.nodeLostSeconds": 7,
    "retries.limit": 7,
    "retries.disruptionLimit": 7,
    "ttlSecondsAfterFinished.succeeded": 7,
    "ttlSecondsAfterFinished.failed": 7,
    "deletionPolicy": "Delete",
    "managedBy": "other.dev/operator",
}


PRICES = {
    "evaluation__judge__budget__promptPrice": 1.0,
    "evaluation__judge__budget__completionPrice": 1.0,
}
ALONG: dict[str, Any] = {
    "translation.translator": {"translation__external": None},
    "evaluation.judge.budget.money": PRICES,
}
"""Values that a field cannot change without."""

EXPECTED: dict[str, set[Stage]] = {
    "profile": {"translate", "pair"},  # by the fields that it fills
    "languages.dominant": {
        "pair",
        "score",
        "evaluate",
        "gate",
        "judge",
    },  # inputs of pair and score by language
    # A judge grades pairs only where there are no gold answers, which has its own test.
    "evaluation.judge.model": {"judge"},
    "evaluation.judge.positions": {"judge"},
    "evaluation.judge.pairs": set(),
    "evaluation.suites": set(),  # its rows are an input; its own fields have their own test
}


def iteration(**values: Any) -> Iteration:
    """Return an iteration of a run whose inputs have fixed digests."""
    made = Run.model_validate_json(json.dumps(file(**{**BASE, **values})))
    spec = recipe.resolve(made).spec
    return Iteration(
        index=0,
        spec=spec,
        model="model",
        toolchain=TOOLCHAIN,
        prompts=dict.fromkeys(spec.languages.all(), "prompts"),
        gold=dict.fromkeys(spec.languages.all(), "gold"),
        suites={(suite.name, "es"): "rows" for suite in spec.evaluation.suites},
        opponents={
            (suite.name, "es"): "answers of M0"
            for suite in spec.evaluation.suites
            if suite.is_judged
        },
        earlier={"exactMatch.es": "answers of M_(t-1)"},
    )


class Digests(dict[tuple[Stage, str], str]):
    """Every artifact is finished, with a digest that names it."""

    def __missing__(self, name: tuple[Stage, str]) -> str:
        return "/".join(name)


def keys(one: Iteration) -> dict[Stage, dict[str, str]]:
    """Return the keys of every part by stage; that of a gate as in a later iteration."""
    found = {stage: targets(stage, one, Digests()) or () for stage in STAGES}
    found["gate"] = targets("gate", dataclasses.replace(one, index=1), Digests()) or ()
    return {stage: {target.part: target.key for target in made} for stage, made in found.items()}


def changed(before: Iteration, after: Iteration) -> set[Stage]:
    """Return the stages of which a key of a part that both have is different."""
    old, new = keys(before), keys(after)
    return {
        stage
        for stage in STAGES
        if any(new[stage][part] != key for part, key in old[stage].items() if part in new[stage])
    }


@pytest.mark.parametrize(("path", "info"), list(recipe.fields()), ids=lambda v: str(v)[:40])
def test_a_field_changes_exactly_the_keys_of_the_stages_that_it_names(path: str, info: Any) -> None:
    """With equal inputs, a stage's key depends on a field if and only if the field says so."""
    values = {path.replace(".", "__"): OTHER_VALUES[path], **ALONG.get(path, {})}

    assert changed(iteration(), iteration(**values)) == EXPECTED.get(
        path, set(recipe.stages_of(info))
    )


def test_every_field_has_another_value_in_this_table() -> None:
    """A new field cannot be forgotten here."""
    assert set(OTHER_VALUES) == {path for path, _ in recipe.fields()}


@pytest.mark.parametrize(
    ("layout", "path", "expected"),
    [
        ("packed", "training__microBatchSize", set()),
        ("packed", "training__tokensPerDevice", {"reference", "train"}),
        ("padded", "training__tokensPerDevice", set()),
        ("padded", "training__microBatchSize", {"reference", "train"}),
    ],
)
def test_a_training_depends_on_what_its_layout_reads(
    layout: str, path: str, expected: set[Stage]
) -> None:
    """Packed passes have a budget of tokens, padded ones a number of pairs."""
    chosen = {"training__layout": layout}

    assert changed(iteration(**chosen), iteration(**chosen, **{path: 512})) == expected


def test_a_suites_own_fields_change_the_keys_of_its_evaluation_alone() -> None:
    """MaxTokens of a suite is part of what its answers depend on; its URI is not."""
    longer = [{"name": "exactMatch", "uri": "s3://eval/set", "maxTokens": 5}]

    assert changed(iteration(), iteration(evaluation__suites=longer)) == {"evaluate"}


def test_a_suites_languages_are_in_its_keys_where_it_has_some() -> None:
    """They decide what is told apart; without them the keys are those from before."""
    more = [{"name": "exactMatch", "uri": "s3://eval/set", "languages": ["es", "bn"]}]
    target, _ = targets("evaluate", iteration(), Digests()) or ()

    assert "suite.languages" not in target.recipe
    assert changed(iteration(), iteration(evaluation__suites=more)) == {"evaluate"}


def test_answers_are_in_the_keys_of_pairs_where_they_filter_them() -> None:
    """Other gold answers then make other pairs; without the filter they are in no key of pairs."""
    values = {"pairing__filters__wrongAnswer": True}
    filtered, plain = iteration(**values), iteration()
    others = [
        dataclasses.replace(one, gold=dict.fromkeys(one.gold, "b")) for one in (filtered, plain)
    ]

    assert changed(filtered, others[0]) == {"pair", "score"}
    assert changed(plain, others[1]) == {"score"}
    (target,) = targets("pair", plain, Digests()) or ()
    assert "pairing.filters.wrongAnswer" not in target.recipe


def test_a_baseline_is_measured_of_m0_alone_under_keys_of_its_own() -> None:
    """The same model and rows, asked in another way, and nothing of later models."""
    told = iteration(evaluation__baselines=["languageInstruction"])
    plain = keys(iteration())["evaluate"]
    found = keys(told)["evaluate"]

    assert plain == {part: key for part, key in found.items() if part in plain}
    assert set(found) - set(plain) == {
        "exactMatch+languageInstruction.es",
        "headToHead+languageInstruction.es",
    }
    assert len(set(found.values())) == len(found)
    assert keys(dataclasses.replace(told, index=1))["evaluate"] == plain


def trained(**values: Any) -> dict[str, Target]:
    """Return what an iteration trains, by part, with the baseline among it."""
    asked = iteration(evaluation__baselines=["sft"], **values)
    return {one.part: one for one in targets("train", asked, Digests()) or ()}


def test_the_baseline_is_trained_beside_m1_under_a_key_of_its_own() -> None:
    """From the same inputs; the next model keeps its key, and later ones have no baseline."""
    found = trained()
    asked = iteration(evaluation__baselines=["sft"])

    assert {part: one.key for part, one in found.items() if part == ""} == keys(iteration())[
        "train"
    ]
    assert found["sft"].inputs == found[""].inputs
    assert found["sft"].key != found[""].key
    assert found["sft"].recipe.keys() ^ found[""].recipe.keys() == {
        "baseline", "training.beta", "training.nllWeight",
    }  # fmt: skip
    assert keys(asked)["reference"] == keys(iteration())["reference"]
    assert set(keys(dataclasses.replace(asked, index=1))["train"]) == {""}
    without = iteration(evaluation={"baselines": ["sft"], "suites": []}, evaluation__judge=None)
    assert set(keys(without)["train"]) == {""}


@pytest.mark.parametrize(
    ("field", "value", "changes"),
    [
        ("beta", 0.2, False),
        ("nllWeight", 0.2, False),
        ("learningRate", 0.2, True),
        ("seed", 9, True),
    ],
)
def test_the_baseline_does_not_depend_on_how_pairs_are_weighed(
    field: str, value: float, *, changes: bool
) -> None:
    """Runs that differ in beta share one baseline; whatever else trains it is in its key."""
    before, after = trained(), trained(**{f"training__{field}": value})

    assert before[""].key != after[""].key
    assert (before["sft"].key != after["sft"].key) == changes


def test_the_baseline_is_measured_beside_m1_when_its_model_is_known() -> None:
    """Another model than M1 on the same rows; M0 and M2 have nothing of it beside them."""
    asked = iteration(evaluation__baselines=["sft"])
    beside = dataclasses.replace(asked, index=1, model="m1", sft="sft model")
    found = {one.part: one for one in targets("evaluate", beside, Digests()) or ()}

    assert {part: one.inputs["model"] for part, one in found.items()} == {
        "exactMatch.es": "m1",
        "exactMatch+sft.es": "sft model",
        "headToHead.es": "m1",
        "headToHead+sft.es": "sft model",
    }
    assert targets("evaluate", dataclasses.replace(beside, sft=None), Digests()) is None
    plain = keys(iteration())["evaluate"]
    assert keys(asked)["evaluate"] == plain
    assert set(keys(dataclasses.replace(beside, index=2))["evaluate"]) == set(plain)


@pytest.mark.parametrize("stage", ["generate", "translate", "pair", "reference", "train"])
def test_no_stage_that_makes_the_model_depends_on_evaluation(stage: Stage) -> None:
    """Suites, gold answers and their contents are in no key of what makes the next model."""
    without = dataclasses.replace(iteration(), suites={}, gold={})
    other = dataclasses.replace(
        iteration(evaluation__suites=[{"name": "offTarget", "uri": "s3://eval/b"}]),
        suites={("offTarget", "es"): "other"},
        gold={"en": "other"},
    )
    assert keys(without)[stage] == keys(other)[stage] != {}


@pytest.mark.parametrize(
    ("name", "stages_changed"),
    [
        ("inference", {"generate", "evaluate"}),
        ("translation", {"translate"}),
        ("light", {"pair", "score", "evaluate", "judge"}),
        ("training", {"reference", "train"}),
    ],
)
def test_versions_and_devices_change_the_keys_of_what_they_compute(
    name: str, stages_changed: set[Stage]
) -> None:
    """Another world size, device or library makes other bits."""
    other = dataclasses.replace(TOOLCHAIN, **{name: {"worldSize": "2"}})

    after = dataclasses.replace(iteration(), toolchain=other)
    assert changed(iteration(), after) == stages_changed


def test_another_model_changes_every_key_but_those_of_rows_alone() -> None:
    """Pairs, scores and verdicts depend on the model through the digests of its answers."""
    after = dataclasses.replace(iteration(), model="other")

    assert changed(iteration(), after) == set(STAGES) - {"pair", "score", "judge"}


def test_targets_are_unknown_until_their_inputs_are_finished() -> None:
    """Translations have no key before the answers have a digest."""
    assert targets("generate", iteration(), {}) is not None
    assert targets("translate", iteration(), {}) is None
    assert targets("pair", iteration(), {}) is None
    assert targets("train", iteration(), {}) is None


def test_a_changed_answer_in_one_language_leaves_the_other_directions_alone() -> None:
    """Each translation's key holds the digest of its own source answers."""

    class Changed(Digests):
        @override
        def __missing__(self, name: tuple[Stage, str]) -> str:
            return "new" if name == ("generate", "es") else super().__missing__(name)

    one = iteration()
    old = {t.part: t.key for t in targets("translate", one, Digests()) or ()}
    new = {t.part: t.key for t in targets("translate", one, Changed()) or ()}

    assert {part for part in old if old[part] != new[part]} == {"es_en"}


def test_languages_that_are_left_out_are_in_the_keys_of_a_training_alone() -> None:
    """Nothing left out leaves the keys as they were before there were gates."""
    plain, some = iteration(), dataclasses.replace(iteration(), left_out=("de",))
    (target,) = targets("train", plain, Digests()) or ()

    assert changed(plain, some) == {"reference", "train"}
    assert LEFT_OUT not in target.recipe


def test_a_judge_grades_the_pairs_of_prompts_without_answers() -> None:
    """One part a language, which depends on the judge and on how many pairs it is to grade."""
    graded = {"evaluation__judge__pairs": 5}
    gold, none = iteration(**graded), dataclasses.replace(iteration(**graded), gold={})
    more = dataclasses.replace(iteration(evaluation__judge__pairs=6), gold={})
    other = {"evaluation__judge__model": "other", **graded}
    another = dataclasses.replace(iteration(**other), gold={})

    assert keys(gold)["score"] == keys(iteration())["score"]
    assert set(keys(none)["score"]) == {"en", "es", "de"}
    assert keys(dataclasses.replace(iteration(), gold={}))["score"] == {}
    assert changed(none, more) == {"score"}
    assert changed(none, another) == {"score", "judge"}


def test_a_gate_depends_on_the_answers_of_both_models_in_trained_languages() -> None:
    """M0 has none before it, and languages that are not trained are not asked."""
    one = dataclasses.replace(iteration(), index=1)
    other = dataclasses.replace(one, earlier={"exactMatch.es": "other"})
    unseen = dataclasses.replace(one, earlier={**one.earlier, "exactMatch.bn": "other"})
    (target,) = targets("gate", one, Digests()) or ()

    assert targets("gate", iteration(), Digests()) == ()
    assert set(target.inputs) == {"model", "now/exactMatch.es", "before/exactMatch.es"}
    assert changed(one, other) == {"gate"}
    assert changed(one, unseen) == set()


def test_after_a_stop_nothing_is_made_of_the_model_but_verdicts() -> None:
    """What a gate has ended generates, pairs and trains nothing."""
    stopped = dataclasses.replace(iteration(), index=1, stop="StoppedByGate")

    assert {stage for stage, made in keys(stopped).items() if made} == {"judge"}


def test_verdicts_depend_on_both_answers_and_are_unknown_without_them() -> None:
    """Another opponent is another verdict; one that has not answered yet has none."""
    one = iteration()
    other = dataclasses.replace(one, opponents={("headToHead", "es"): "other answers"})
    nobody = dataclasses.replace(one, opponents={("headToHead", "es"): None})

    assert changed(one, other) == {"judge"}
    assert targets("judge", nobody, Digests()) is None
    assert targets("judge", one, {}) is None
