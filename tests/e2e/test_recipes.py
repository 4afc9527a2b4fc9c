"""A recipe of each kind to its end, with the miniature in place of what is not shipped.

Model, languages, prompts and suites are replaced, iterations and rows are fewest; everything else,
bf16 with ZeRO 3 at 5e-7 among it, is as in the file.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.inputs.run_file import validation
from support.cli import MINIATURE, REPOSITORY, Cli, Result
from support.endpoint import MODEL, chat, serving

pytestmark = pytest.mark.e2e

RECIPES: Final = REPOSITORY / "examples" / "recipes"
MGSM: Final = REPOSITORY / "tests" / "data" / "mgsm" / "jsonl"
PROMPTS: Final = 8
REPLACED: Final = {"model", "languages", "prompts", "iterations", "evaluation"}
DECIDED: Final = {"layout", "zeroStage"}
LANGUAGES: Final = ("en", "es", "de")
SUITES: Final = {
    "offTarget": "{name: offTarget, uri: 's3://eval/x-alpaca-eval'}",
    "mgsm": "{name: mgsm, uri: 's3://eval/mgsm', limit: 2}",
}
STAGES: Final = ["evaluate", "generate", "translate", "pair", "score", "train"]


@dataclass(frozen=True)
class Recipe:
    """A recipe's file with what replaces its inputs."""

    cli: Cli
    file: Path
    inputs: tuple[str, ...]
    settings: tuple[str, ...]
    """settings are what is chosen besides."""

    def __call__(self, command: str, *more: str) -> Result:
        """Run a command on it."""
        chosen = [f"--set={setting}" for setting in (*self.inputs, *self.settings)]
        common = (str(self.file), "--store", str(self.cli.store))
        done = self.cli(*command.split(), *common, *chosen, *more)
        assert done.code == 0, done.errors
        return done

    def status(self) -> dict[str, Any]:
        """Return `show -o json`, once the run is known to be whole and the recipe's own."""
        found: dict[str, Any] = json.loads(self("show", "-o", "json").output)
        own = recipe.resolve(validation.load(self.file, self.settings)).spec
        spec = own.model_dump(mode="json", by_alias=True)
        training, came = spec["training"], found["recipe"]["training"]
        open_fields = {name for name in training if training[name] != came[name]}
        assert open_fields <= DECIDED
        assert all(training[name] is None for name in open_fields)
        training |= {name: came[name] for name in open_fields}
        assert {name for name in spec if spec[name] != found["recipe"][name]} <= REPLACED
        assert found["outcome"] == "Succeeded"
        return found

    def rows(self, stage: str, status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the rows of a stage of the first iteration by part, then by id."""
        (found,) = [s for s in status["iterations"][0]["stages"] if s["name"] == stage]
        parts = {}
        for part, artifact in found["artifacts"].items():
            folder = self.cli.store / "runs" / "artifacts" / stage / artifact["key"]
            lines = (folder / f"{part}.jsonl").read_text().splitlines()
            parts[part] = {row["id"]: row for row in map(json.loads, lines)}
        return parts


def on_inputs(folder: Path) -> Cli:
    """Return a command line whose store has the miniature's inputs and rows of the suites."""
    made = Cli(folder / "store", folder / "cache")
    for part in ("m0", "prompts"):
        shutil.copytree(MINIATURE / part, made.store / "miniature" / part)
    shutil.copytree(MGSM, made.store / "eval" / "mgsm")
    plain = made.store / "eval" / "x-alpaca-eval"
    plain.mkdir()
    for file in (MINIATURE / "suite").glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()[:2]]
        lines = [json.dumps({"id": row["id"], "prompt": row["prompt"]}) for row in rows]
        (plain / file.name).write_text("\n".join(lines))
    return made


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Return a store that two recipes share, and with it the answers to the same prompts."""
    return on_inputs(tmp_path_factory.mktemp("recipes"))


def recipe_of(
    cli: Cli,
    name: str,
    *more: str,
    suites: tuple[str, ...],
    prompts: str = "s3://miniature/prompts",
) -> Recipe:
    """Return a recipe on the miniature's inputs."""
    inputs = (
        "model={uri: 's3://miniature/m0'}",
        "languages={dominant: en, others: [es, de]}",
        f"prompts={{uri: '{prompts}', perIteration: {PROMPTS}}}",
        "iterations=1",
        f"evaluation={{suites: [{', '.join(SUITES[suite] for suite in suites)}]}}",
    )
    return Recipe(cli, RECIPES / f"{name}.yaml", inputs, more)


def stages_of(status: Mapping[str, Any]) -> list[str]:
    return [stage["name"] for stage in status["iterations"][0]["stages"]]


def trained(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of the training, once it has made another model than M0."""
    m0, m1 = (iteration["model"]["digest"] for iteration in status["iterations"])
    assert m0 != m1
    (found,) = [s for s in status["iterations"][0]["stages"] if s["name"] == "train"]
    counts: dict[str, Any] = found["counts"]
    return counts


def dropped(of: Recipe, status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the candidates that became no pair."""
    (pairs,) = [s for s in status["iterations"][0]["stages"] if s["name"] == "pair"]
    folder = of.cli.store / "runs" / "artifacts" / "pair" / pairs["artifacts"][""]["key"]
    return [json.loads(line) for line in (folder / "drops.jsonl").read_text().splitlines()]


def test_the_general_recipe_makes_and_measures_m1(cli: Cli, tmp_path: Path) -> None:
    """The headline run: one pair a prompt and language, both suites, a report."""
    general = recipe_of(cli, "llama3-europe", suites=("offTarget", "mgsm"))
    general("run", "--engine", "transformers")
    status = general.status()

    assert stages_of(status) == STAGES
    assert trained(status)["pairs"] + len(dropped(general, status)) == PROMPTS * len(LANGUAGES)
    for iteration in status["iterations"]:
        measured = iteration["evaluation"]
        assert {(name, tag) for name in SUITES for tag in measured[name]} == {
            (name, tag) for name in SUITES for tag in LANGUAGES
        }
    general("report", "--out", str(tmp_path))
    page = (tmp_path / "llama3-europe.html").read_text()
    assert "Off-target rate: answers in a wrong language" in page
    assert "MGSM: accuracy" in page


def test_the_recipe_with_an_external_translator_translates_by_it(cli: Cli) -> None:
    """An endpoint takes NLLB's place and is asked for every answer; M0's own words are the rest."""
    with serving(lambda asked: chat(f"<translated>{asked.number} casas</translated>")) as endpoint:
        described = f"{{kind: openai, baseUrl: '{endpoint.base_url}', model: {MODEL}}}"
        external = recipe_of(
            cli,
            "llama3-low-resource-external",
            f"translation.external={described}",
            suites=("offTarget",),
        )
        external("run", "--engine", "transformers")
    status = external.status()
    translations = external.rows("translate", status)
    texts = [row["text"] for rows in translations.values() for row in rows.values() if row["text"]]

    assert stages_of(status) == STAGES
    assert set(translations) == {"en_es", "en_de", "es_en", "de_en"}
    assert sorted(texts) == sorted(f"{asked.number} casas" for asked in endpoint.asked)
    assert len(texts) > PROMPTS
    assert trained(status)["trained"] > 0


def test_the_reasoning_recipe_trains_on_right_answers_alone(tmp_path: Path) -> None:
    """Asked with the prefix and filtered by `answer`: only every second prompt has M0's own words.

    The miniature solves nothing that is asked so, so that what it says decides what is right.
    """
    cli = on_inputs(tmp_path)
    reasoning = recipe_of(
        cli,
        "llama3-reasoning",
        "pairing.filters.wrongAnswer=true",
        suites=("mgsm",),
        prompts="s3://prompts/gsm8k",
    )
    write_prompts(cli, answers={})
    reasoning("worker inference", "--iteration=0", "--engine=transformers")
    said = chosen_texts(cli)
    write_prompts(cli, answers={place: said[place] for place in sorted(said)[::2]})
    reasoning("run", "--engine", "transformers")
    status = reasoning.status()
    drops = {(row["language"], row["id"]): row["reason"] for row in dropped(reasoning, status)}
    right, others = set(sorted(said)[::2]), set(sorted(said)[1::2])

    assert stages_of(status) == STAGES
    assert others <= drops.keys()
    assert {drops[place] for place in others} >= {"wrongAnswer"}
    assert "wrongAnswer" not in {drops[place] for place in right & drops.keys()}
    assert trained(status)["pairs"] == len(right - drops.keys()) > 0
    for iteration in status["iterations"]:
        assert {tag: found["n"] for tag, found in iteration["evaluation"]["mgsm"].items()} == (
            dict.fromkeys(LANGUAGES, 2)
        )


def write_prompts(cli: Cli, *, answers: Mapping[tuple[str, str], str]) -> None:
    """Write the miniature's first prompts with these answers by language and id, others wrong."""
    folder = cli.store / "prompts" / "gsm8k"
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        lines = (MINIATURE / "prompts" / f"{language}.jsonl").read_text().splitlines()[:PROMPTS]
        rows = [json.loads(line) for line in lines]
        texts = [answers.get((language, row["id"]), "something else") for row in rows]
        written = [{**row, "answer": text} for row, text in zip(rows, texts, strict=True)]
        (folder / f"{language}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in written)
        )


def chosen_texts(cli: Cli) -> dict[tuple[str, str], str]:
    """Return what the pairs prefer by language and id: M0's English, and its translations of it."""
    found = {}
    for stage, part, name in (
        ("generate", "en", "completion"),
        ("translate", "en_es", "text"),
        ("translate", "en_de", "text"),
    ):
        (file,) = (cli.store / "runs" / "artifacts" / stage).glob(f"*/{part}.jsonl")
        for row in map(json.loads, file.read_text().splitlines()):
            if row[name]:
                found[part[-2:], row["id"]] = row[name]
    return found
