"""The recipes of the released checkpoints: good files that plan and say what they stand for."""

import json
from pathlib import Path

import pytest

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.keys import Toolchain
from selfimprove_pipeline.contract.recipe import Run
from selfimprove_pipeline.inputs.run_file import validation
from selfimprove_pipeline.local import forecast
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from support.run_files import RECIPES

TOOLCHAIN = Toolchain(inference={}, light={}, training={}, translation={})
PER_ITERATION = 3


def smaller(path: Path, *more: str) -> Run:
    """Return a recipe with few prompts and a model in the store."""
    settings = ["model.uri=s3://models/m0", f"prompts.perIteration={PER_ITERATION}", *more]
    return recipe.resolve(validation.load(path, settings))


def setting(path: Path, folder: Path, *more: str) -> Setting:
    """Return a recipe on a store that has what it asks for."""
    run = smaller(path, *more)
    store = FolderStore(folder)
    store.write("s3://models/m0/config.json", b"{}")
    store.write("s3://models/m0/model.safetensors", b"weights")
    suites = {
        suite.uri: suite.languages_in(run.spec.languages) for suite in run.spec.evaluation.suites
    }
    for uri, languages in {run.spec.prompts.uri: run.spec.languages.all(), **suites}.items():
        for language in languages:
            rows = [
                {"id": f"p{n}", "prompt": f"{language} {n}", "answer": str(n)}
                for n in range(PER_ITERATION)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            store.write(f"{uri}/{language}.jsonl", text.encode())
    repository = Repository(store, bucket="runs", prefix="", cache=folder / "cache")
    return Setting(run, store, repository, TOOLCHAIN, "vllm", folder / "cache")


def test_there_are_seven_recipes() -> None:
    """One for each pair of released checkpoints, each in the table of the folder."""
    readme = (RECIPES[0].parent / "README.md").read_text()
    assert len(RECIPES) == 7
    assert all(f"({path.name})" in readme for path in RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_good_for_a_cluster_and_keeps_the_profile(path: Path) -> None:
    """`validate --cluster` takes it, and the published values are the profile's own."""
    spec = recipe.resolve(validation.load(path, for_cluster=True)).spec

    published = recipe.profiles.LIDR_PAPER
    assert (spec.profile, spec.iterations, spec.prompts.selection) == ("lidr-paper", 2, "same")
    assert spec.training.model_dump(by_alias=True).items() >= published["training"].items()
    assert spec.generation.answer_language_prefix == ("reasoning" in path.stem)
    assert (spec.translation.translator == "external") == ("external" in path.stem)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipes_head_says_what_it_stands_for(path: Path) -> None:
    """Both checkpoints by their names, with the base and the languages that the file has."""
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    spec = validation.load(path).spec
    base = spec.model.uri.rpartition("/")[2]
    languages = "_".join(spec.languages.all())
    for number, line in enumerate(head[1:3]):
        assert line.startswith(f"# Iteration {number + 1} stands for James-WYang/LIDR_")
        assert f"_M{number}_{base}_" in line
        assert line.endswith(f"_{languages}")
    told = [line.split(":")[0] for line in head if not line.startswith("#  ")]
    assert told[3:] == ["# Published", "# Inferred", "# Unknown"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_plans_two_iterations_and_three_measurements(path: Path, tmp_path: Path) -> None:
    """With its inputs in place every stage of both iterations would run."""
    steps = list(forecast.steps(setting(path, tmp_path)))

    making = ["evaluate", "generate", "translate", "pair", "score", "train"]
    assert [(step.index, step.stage) for step in steps] == [
        *((0, stage) for stage in making),
        *((1, stage) for stage in making),
        (2, "evaluate"),
    ]


def test_a_baseline_is_planned_with_m0_alone(tmp_path: Path) -> None:
    """Its evaluation is twice as large, that of later models is not."""
    told = setting(RECIPES[0], tmp_path, "evaluation.baselines=[languageInstruction]")
    plain = setting(RECIPES[0], tmp_path)
    sizes = [
        [
            (step.num_artifacts, step.rows)
            for step in forecast.steps(one)
            if step.stage == "evaluate"
        ]
        for one in (plain, told)
    ]
    (artifacts, rows), *later = sizes[0]

    assert sizes[1] == [(2 * artifacts, 2 * rows), *later]


def test_the_trained_baseline_is_planned_beside_m1(tmp_path: Path) -> None:
    """One more model is trained in the first iteration, and measured with M1."""
    asked = setting(RECIPES[0], tmp_path, "evaluation.baselines=[sft]")
    plain = setting(RECIPES[0], tmp_path)
    sizes = [
        {(step.index, step.stage): step.num_artifacts for step in forecast.steps(one)}
        for one in (plain, asked)
    ]
    measured = sizes[0][1, "evaluate"]

    assert sizes[1] == sizes[0] | {(0, "train"): 2, (1, "evaluate"): 2 * measured}
