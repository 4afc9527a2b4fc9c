"""`evaluate` and `compare` on the miniature: the same artifacts as a run, one engine a model."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from support import benchmark_tasks
from support.cli import MINIATURE, Cli

pytestmark = pytest.mark.e2e

SUITES = "evaluation={suites: [{name: exactMatch, uri: 's3://miniature/suite', limit: 70}]}"
SMALL = ("iterations=2", "prompts.perIteration=64", SUITES)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Return a command line with a store in which a small run of the miniature has ended."""
    folder = tmp_path_factory.mktemp("measurement")
    made = Cli(folder / "store", folder / "cache")
    made.upload_miniature()
    ran = made(*made.run_arguments(*SMALL))
    assert ran.code == 0, ran.errors
    return made


def evaluate(cli: Cli, model: str, out: Path, *arguments: str) -> list[str]:
    """Return the arguments that measure a model as the miniature's run does."""
    recipe = str(MINIATURE / "run.yaml")
    place = ("--store", str(cli.store), "--engine", cli.engine, "--out", str(out))
    return ["evaluate", model, "--recipe", recipe, *arguments, *place]


def workers(events: list[dict[str, Any]]) -> list[str]:
    return [event["worker"] for event in events if event["event"] == "worker"]


def test_a_second_evaluation_starts_no_engine(tmp_path: Path) -> None:
    """A folder, no run: one worker measures both suites; then everything is in the store."""
    cli = Cli(tmp_path / "store", tmp_path / "cache")
    command = [
        "evaluate",
        str(MINIATURE / "m0"),
        f"--suite=exactMatch={MINIATURE / 'suite'}",
        f"--suite=offTarget={MINIATURE / 'suite'}",
        "--languages=en,es,de",
        "--set=generation.maxTokens=32",
        "--store",
        str(cli.store),
        "--engine",
        cli.engine,
        "--out",
    ]
    first = cli(*command, str(tmp_path / "first"))
    second = cli(*command, str(tmp_path / "second"))

    assert first.code == 0, first.errors
    assert second.code == 0, second.errors
    assert workers(first.events) == ["inference"]
    assert second.events == []
    assert "nothing to do" in second.output
    manifests = [json.loads(path.read_text()) for path in cli.store.rglob("manifest.json")]
    assert len(manifests) == 6
    assert len([m for m in manifests if m["seconds"].get("engineStart")]) == 1
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_tasks_of_lm_eval_alone_need_no_languages(tmp_path: Path) -> None:
    """A folder of tasks, no run: a table of all metrics, and the results as lm-eval writes them."""
    cli = Cli(tmp_path / "store", tmp_path / "cache")
    tasks = (benchmark_tasks.CHOICE, benchmark_tasks.ROLLING, benchmark_tasks.WRITING)
    folder = benchmark_tasks.write(tmp_path / "tasks", tasks)
    command = ["evaluate", str(MINIATURE / "m0"), f"--suite=nlp={folder}", "--engine", cli.engine]
    done = cli(*command, "--store", str(cli.store), "--out", str(tmp_path / "out"))

    assert done.code == 0, done.errors
    assert "bits_per_byte" in done.output
    results = json.loads((tmp_path / "out/lm-eval/nlp.json").read_text())
    assert set(results["results"]) == {"capitals", "sums", "texts"}
    told = json.loads((tmp_path / "out/evaluation.json").read_text())["suites"]["nlp"]
    value = results["results"]["capitals"]["acc_norm,none"]
    assert told["capitals"]["score"]["value"] == told["capitals"]["acc_norm"]["value"] == value
    rows = (tmp_path / "out/rows/nlp.capitals.jsonl").read_text().splitlines()
    assert sum(json.loads(row)["score"] for row in rows) == pytest.approx(value * len(rows))
    page = (tmp_path / "out/evaluation.md").read_text()
    assert "| texts | bits&#95;per&#95;byte |" in page


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_model_of_a_run_is_not_measured_again(cli: Cli, tmp_path: Path) -> None:
    """M1 by its folder, with the run as recipe: its artifacts are found, its numbers the same."""
    model = cli.show(*SMALL)["iterations"][1]
    found = cli(*evaluate(cli, model["model"]["uri"], tmp_path, f"--set={SUITES}"))

    assert found.code == 0, found.errors
    assert found.events == []
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["digest"] == model["model"]["digest"]
    languages = written["suites"]["exactMatch"]
    for language, expected in model["evaluation"]["exactMatch"].items():
        rate = languages[language]["score"]
        assert (rate["value"], rate["n"]) == (expected["score"], 70)
        assert rate["low"] < rate["value"] < rate["high"]
        rows = (tmp_path / "rows" / f"exactMatch.{language}.jsonl").read_text().splitlines()
        assert sum(json.loads(row)["score"] for row in rows) == pytest.approx(rate["value"] * 70)
    with (tmp_path / "evaluation.csv").open() as file:
        records = list(csv.DictReader(file))
    assert {row["language"] for row in records} == {"en", "es", "de", "mean"}
    assert "mean of 3" in (tmp_path / "evaluation.md").read_text()


def compared(cli: Cli, a: str, b: str, out: Path, *more: str) -> dict[str, Any]:
    result = cli("compare", a, b, "--store", str(cli.store), "--out", str(out), *more)
    assert result.code == 0, result.errors
    found: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    return found


def test_two_models_of_a_run_are_told_apart(cli: Cli, tmp_path: Path) -> None:
    """M0 and the last model; swapped, every difference has the other sign."""
    file = str(MINIATURE / "run.yaml")
    found = compared(cli, f"{file}@0", file, tmp_path / "one")
    swapped = compared(cli, file, f"{file}@0", tmp_path / "other")
    scores = [i["evaluation"]["exactMatch"] for i in cli.show(*SMALL)["iterations"]]

    assert (found["a"], found["b"]) == ("miniature M0", "miniature M2")
    assert list(found["suites"]["exactMatch"]) == ["es", "de", "en", "mean"]
    for language, one in found["suites"]["exactMatch"].items():
        other = swapped["suites"]["exactMatch"][language]
        assert other["difference"] == pytest.approx(-one["difference"])
        assert other["low"] == pytest.approx(-one["high"])
        assert (other["p"], other["pHolm"]) == (one["p"], one["pHolm"])
        if language != "mean":
            change = scores[2][language]["score"] - scores[0][language]["score"]
            assert one["difference"] == pytest.approx(change)
            assert one["pHolm"] >= one["p"]


def test_a_folder_is_compared_with_a_run(cli: Cli, tmp_path: Path) -> None:
    """M0's folder is the run's M0 by content; what only one of the two was measured on is said."""
    suite = f"--suite=offTarget={MINIATURE / 'suite'}"
    measured = cli(*evaluate(cli, str(MINIATURE / "m0"), tmp_path / "m0", suite))
    assert measured.code == 0, measured.errors
    file = str(MINIATURE / "run.yaml")
    found = compared(cli, str(MINIATURE / "m0"), f"{file}@1", tmp_path / "out")
    within = compared(cli, f"{file}@0", f"{file}@1", tmp_path / "within")

    assert found["suites"] == within["suites"]
    assert found["notes"] == ["offTarget: not compared, not measured for miniature M1"]


def test_what_cannot_be_compared_is_exit_code_2(cli: Cli, tmp_path: Path) -> None:
    """An iteration that is not there, a model that nobody measured, a file that is absent."""
    file = str(MINIATURE / "run.yaml")
    other = tmp_path / "other"
    other.mkdir()
    for path in (MINIATURE / "m0").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    for a, complaint in (
        (f"{file}@7", "miniature@7: expected 0 to 2, found 7"),
        (str(other), "expected a model that was evaluated, found no evaluation of it"),
        ("absent.yaml", "absent.yaml: expected a run file, found none"),
        ("absent", "expected a model folder at file://"),
    ):
        refused = cli("compare", a, file, "--store", str(cli.store))
        assert refused.code == 2
        assert complaint in refused.errors
        assert refused.errors.count("\n") == 1
