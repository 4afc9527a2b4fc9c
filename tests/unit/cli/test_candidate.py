"""The recipe of a model that is measured without a run: keys, names and complaints."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline import __main__ as command_line
from selfimprove_pipeline.cli import evaluation_file
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import targets
from selfimprove_pipeline.run import opening
from selfimprove_pipeline.run.setting import Setting
from support.run_files import Row

SPEC = {
    "chat": "{systemPrompt: Be brief.}",
    "generation": "{maxTokens: 32}",
    "model": "{uri: s3://models/m0, dtype: float32}",
    "evaluation": "{suites: [{name: exactMatch, uri: s3://eval/questions, limit: 2}]}",
}


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay a model, prompts, a suite and a run file down, and choose an empty cache."""
    monkeypatch.setenv("SELFIMPROVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "store" / "models" / "m0"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    for folder in ("eval/questions", "prompts/set"):
        path = tmp_path / "store" / folder
        path.mkdir(parents=True)
        for language in ("de", "en", "es"):
            rows = [{"id": f"p{n}", "prompt": f"{n}?", "answer": f"{n}"} for n in range(3)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (path / f"{language}.jsonl").write_text(lines)
    (tmp_path / "run.yaml").write_text(Row("a run", SPEC).text)


def arguments(folder: Path, *texts: str) -> Namespace:
    """Return the arguments of `selfimprove evaluate`, by our own parser."""
    store = ["--store", str(folder / "store"), "--out", str(folder / "out")]
    return command_line._parser().parse_args(["evaluate", *texts, *store])  # noqa: SLF001


def measured(folder: Path, *texts: str) -> Setting:
    found = arguments(folder, *texts)
    return opening.setting_for(evaluation_file.run_of(found), found, only_measures=True)


def keys(setting: Setting) -> dict[str, str]:
    """Return the keys of the evaluations by part."""
    made = targets("evaluate", setting.iteration(0, setting.base), {})
    assert made is not None
    return {target.part: target.key for target in made}


def test_a_run_and_an_evaluation_come_to_the_same_keys(tmp_path: Path) -> None:
    """With the run's file as recipe, or with its values one by one, by URI or by folder."""
    place = {"store": tmp_path / "store", "engine": "vllm", "set": []}
    run = opening.setting_of(Namespace(file=tmp_path / "run.yaml", **place))
    by_file = measured(tmp_path, "s3://models/m0", "--recipe", str(tmp_path / "run.yaml"))
    by_hand = measured(
        tmp_path,
        str(tmp_path / "store" / "models" / "m0"),
        f"--suite=exactMatch={tmp_path / 'store' / 'eval' / 'questions'}",
        "--languages=en,es,de",
        "--set=evaluation.suites=[{name: exactMatch, uri: s3://eval/questions, limit: 2}]",
        "--set=generation.maxTokens=32",
        "--set=model.dtype=float32",
        "--set=chat.systemPrompt=Be brief.",
    )

    assert keys(by_file) == keys(by_hand) == keys(run)
    assert by_file.prompts_of(0) == {}


def test_equal_evaluations_share_a_name_and_others_do_not(tmp_path: Path) -> None:
    """The name is that of the index, so it must not hide another evaluation."""
    common = ("s3://models/m0", "--suite=exactMatch=s3://eval/questions")
    names = [
        measured(tmp_path, *common, *more).run.metadata.name
        for more in ((), (), ("--set=generation.maxTokens=9",), ("--languages=en,de",))
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_languages_are_those_of_all_suites_english_first(tmp_path: Path) -> None:
    """Files that are named after no language are left out."""
    folder = tmp_path / "store" / "eval" / "questions"
    (folder / "README.jsonl").write_text("")
    found = measured(tmp_path, "s3://models/m0", f"--suite=exactMatch={folder}")

    assert found.spec.languages.all() == ("en", "de", "es")


def test_the_files_of_mgsm_tell_its_languages(tmp_path: Path) -> None:
    """In each layout of its owners and in ours, under the kind's name or a name of its own."""
    folder = tmp_path / "store" / "eval" / "mgsm"
    folder.mkdir()
    (folder / "mgsm_en.tsv").write_text("One?\t1\n")
    (folder / "mgsm_sw.jsonl").write_text(json.dumps({"query": "Moja?", "response": "1"}))
    (folder / "bn.jsonl").write_text(json.dumps({"id": "1", "prompt": "?", "answer": "1"}))
    (folder / "mgsm_notes.tsv").write_text("")
    for suite in ("mgsm", "mine:mgsm"):
        found = measured(tmp_path, "s3://models/m0", f"--suite={suite}=s3://eval/mgsm")
        name = suite.partition(":")[0]

        assert found.spec.languages.all() == ("en", "bn", "sw")
        assert set(keys(found)) == {f"{name}.{tag}" for tag in ("en", "bn", "sw")}


def test_a_suites_own_languages_come_with_the_recipe(tmp_path: Path) -> None:
    """They are measured with the keys of the run, also those that it does not train."""
    suites = "{suites: [{name: exactMatch, uri: s3://eval/questions, languages: [es, en, de]}]}"
    path = tmp_path / "more.yaml"
    languages = "{dominant: en, others: [es]}"
    path.write_text(Row("a run", {**SPEC, "languages": languages, "evaluation": suites}).text)
    place = {"store": tmp_path / "store", "engine": "vllm", "set": []}
    run = opening.setting_of(Namespace(file=path, **place))
    found = measured(tmp_path, "s3://models/m0", "--recipe", str(path))

    assert found.spec.languages.all() == ("en", "es")
    assert set(keys(found)) == {"exactMatch.es", "exactMatch.en", "exactMatch.de"}
    assert keys(found) == keys(run)


def test_a_suite_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    """NAME:KIND=URI is the suite {name: NAME, kind: KIND}."""
    found = measured(tmp_path, "s3://models/m0", "--suite=mine:exactMatch=s3://eval/questions")
    (suite,) = found.spec.evaluation.suites

    assert (suite.name, suite.kind, suite.needs_answers) == ("mine", "exactMatch", True)


QUESTIONS = "--suite=exactMatch=s3://eval/questions"


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        pytest.param(
            ["s3://models/m0"],
            "--suite: expected KIND=URI, KIND one of exactMatch, offTarget, mgsm, ",
            id="no suite",
        ),
        pytest.param(
            ["s3://models/m0", "--suite=exactMatch"],
            "--suite: expected KIND=URI or NAME:KIND=URI, found exactMatch",
            id="a suite without URI",
        ),
        pytest.param(
            ["s3://models/m0", "--suite=mine=s3://eval/questions"],
            "--suite mine=s3://eval/questions: spec.evaluation.suites[0]: expected kind "
            "(exactMatch, offTarget, mgsm, xAlpacaEval, headToHead, mtBench, nlp or PACKAGE/NAME)",
            id="an unknown kind",
        ),
        pytest.param(
            ["s3://models/m0", QUESTIONS, QUESTIONS],
            "expected each suite's name once, found exactMatch, exactMatch",
            id="a name twice",
        ),
        pytest.param(
            ["s3://models/m0", QUESTIONS, "--languages=en"],
            "--languages: expected two or more, the dominant one first, found en",
            id="one language",
        ),
        pytest.param(
            ["s3://models/m0", QUESTIONS, "--languages=en,zx"],
            "--languages: spec.languages.others[0]: expected a BCP-47 tag such as de or pt-BR, "
            "found zx",
            id="no language",
        ),
        pytest.param(
            ["s3://models/m0", "--recipe=run.yaml", "--languages=en,zx"],
            "--languages: spec.languages.others[0]: expected a BCP-47 tag such as de or pt-BR, "
            "found zx",
            id="no language in place of the recipe's",
        ),
        pytest.param(
            ["s3://models/m0", "--suite=exactMatch=s3://eval/nothing"],
            "--languages: expected two or more, the dominant one first, found none",
            id="a suite that is not there",
        ),
        pytest.param(
            ["ftp://models/m0", QUESTIONS],
            "MODEL: spec.model.uri: expected text of the form",
            id="a model behind another protocol",
        ),
        pytest.param(
            ["s3://models/m0", QUESTIONS, "--set=generation.maxTokens=-1"],
            "--set generation.maxTokens=-1: spec.generation.maxTokens: expected greater than",
            id="a wrong setting",
        ),
        pytest.param(
            ["s3://models/m0", QUESTIONS, "--artifacts=s3://A"],
            "expected the URI of a bucket and an http(s) endpoint, found a wrong bucket",
            id="a wrong bucket",
        ),
        pytest.param(
            ["s3://models/m0", QUESTIONS, "--recipe=absent.yaml"],
            "absent.yaml: expected a run file, found none",
            id="a recipe that is not there",
        ),
    ],
)
def test_each_mistake_is_one_clear_line(tmp_path: Path, texts: list[str], complaint: str) -> None:
    """It names the argument, what was expected and what was found."""
    with pytest.raises(InputError) as error:
        evaluation_file.run_of(arguments(tmp_path, *texts))
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_recipe_with_mistakes_is_refused_with_its_lines(tmp_path: Path) -> None:
    """As `validate` tells them."""
    path = tmp_path / "wrong.yaml"
    path.write_text(Row("a run", {**SPEC, "generation": "{maxTokens: 0}"}).text)
    with pytest.raises(InputError, match=r"wrong.yaml:\d+: spec.generation.maxTokens"):
        evaluation_file.run_of(arguments(tmp_path, "s3://models/m0", "--recipe", str(path)))


def test_parts_of_the_recipe_that_measure_nothing_are_left_out(tmp_path: Path) -> None:
    """A suspended run and its external translator say nothing about an evaluation."""
    translator = (
        "{translator: external, external: {kind: openai, model: m, baseUrl: 'http://m/v1'}}"
    )
    path = tmp_path / "run.yaml"
    path.write_text(Row("a run", {**SPEC, "suspend": "true", "translation": translator}).text)
    found: Any = measured(tmp_path, "s3://models/m0", "--recipe", str(path)).spec

    assert not found.suspend
    assert found.translation.external is None


def test_a_judge_comes_from_the_arguments_or_with_the_recipe(tmp_path: Path) -> None:
    """The file of xAlpacaEval holds its references too; an address of the arguments is the one."""
    judge = "{baseUrl: http://judge/v1, model: big, positions: random}"
    described = f"{{suites: [{{name: exactMatch, uri: s3://eval/questions}}], judge: {judge}}}"
    (tmp_path / "run.yaml").write_text(Row("a run", {**SPEC, "evaluation": described}).text)
    suite = "--suite=xAlpacaEval=s3://eval/alpaca"
    given = ["--judge-url=http://here/v1", "--judge-model=mine", "--languages=en,de"]
    alone = evaluation_file.run_of(arguments(tmp_path, "s3://models/m0", suite, *given))
    along = evaluation_file.run_of(
        arguments(tmp_path, "s3://models/m0", suite, "--recipe=run.yaml", given[0])
    )

    found = [run.spec.evaluation.judge for run in (alone, along)]
    assert [(one.base_url, one.model, one.positions) for one in found if one] == [
        ("http://here/v1", "mine", "both"),
        ("http://here/v1", "big", "random"),
    ]
    assert alone.spec.evaluation.suites[0].reference_uri == "s3://eval/alpaca"
