"""alpaca-eval's files: instructions and outputs are read, and our answers are written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Suite
from selfimprove_pipeline.contract.rows import Difficulties, Evaluated, Gamed, Verdict
from selfimprove_pipeline.inputs import suites
from selfimprove_pipeline.inputs.suites import alpaca
from selfimprove_pipeline.measuring.judged.contests import measures
from support import alpaca_tools

URI = "s3://eval/alpaca"
ITEMS = {
    "en": [{"instruction": "Say yes."}, {"instruction": "Say no."}],
    "de": [{"instruction": "Sag ja."}, {"instruction": "Sag nein."}],
}


def reader(items: dict[str, Any]) -> alpaca.Read:
    files = {
        f"{URI}/{tag}.json": found if isinstance(found, bytes) else json.dumps(found).encode()
        for tag, found in items.items()
    }
    return files.get


def evaluated(row: str, prompt: str, text: str) -> Evaluated:
    return Evaluated(
        id=row,
        language="en",
        prompt=prompt,
        completion=text,
        finish_reason="stop",
        completion_tokens=1,
        score=None,
        identified=None,
        is_off_target=False,
        is_empty=False,
        is_evasive=False,
    )


def test_rows_have_the_ids_of_the_file_or_their_places() -> None:
    """X-AlpacaEval numbers its rows; alpaca-eval's own files do not."""
    numbered = {tag: [{**row, "id": n} for n, row in enumerate(r)] for tag, r in ITEMS.items()}
    places = alpaca.read(URI, ["en", "de"], reader(ITEMS))
    ids = alpaca.read(URI, ["en", "de"], reader(numbered))

    assert [(row.id, row.prompt) for row in places["de"]] == [("1", "Sag ja."), ("2", "Sag nein.")]
    assert [row.id for row in ids["en"]] == ["0", "1"]


def test_the_suite_is_read_by_its_kind_and_found_by_its_files() -> None:
    """Whatever it is called."""
    suite = Suite(name="mine", kind="xAlpacaEval", uri=URI, reference_uri=URI)

    assert list(suites.read(suite, ["en", "de"], reader(ITEMS))) == ["en", "de"]
    assert suites.languages_of("xAlpacaEval", ["en.json", "de.jsonl", "notes.txt"]) == {"en"}


def test_outputs_are_found_by_their_instruction() -> None:
    """Other rows and another order do not matter; of two for an instruction the first counts."""
    rows = alpaca.read(URI, ["en"], reader(ITEMS))
    outputs = [
        {"instruction": "Say no.", "output": "no", "generator": "g", "dataset": "d"},
        {"instruction": "Say nothing.", "output": "", "generator": "g", "dataset": "d"},
        {"instruction": "Say yes.", "output": "yes", "generator": "g", "dataset": "d"},
        {"instruction": "Say yes.", "output": "oui", "generator": "g", "dataset": "d"},
    ]

    assert alpaca.outputs(URI, rows, reader({"en": outputs})) == {"en": {"1": "yes", "2": "no"}}


def test_what_is_written_is_read_again() -> None:
    """The answers of one model are the references of another."""
    rows = [
        evaluated(row, prompt, f"{prompt} è così.")
        for row, prompt in (("1", "Say yes."), ("2", "Say no."))
    ]
    written = alpaca.model_outputs(rows, "xAlpacaEval", "m0")

    assert {tuple(item) for item in json.loads(written)} == {
        ("id", "dataset", "instruction", "output", "generator")
    }
    asked = alpaca.read(URI, ["en"], reader({"en": written}))
    assert alpaca.outputs(URI, asked, reader({"en": written})) == {
        "en": {row.id: row.completion for row in rows}
    }


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("no file", {"en": ITEMS["en"]}, "de.json: expected one file a language, found none; add it"),
    ("broken JSON", {**ITEMS, "de": b"["}, "de.json: expected JSON in UTF-8, found a fault"),
    ("bytes", {**ITEMS, "de": b"\xff"}, "de.json: expected JSON in UTF-8, found a fault"),
    ("an object", {**ITEMS, "de": {}}, "de.json: expected a list of objects, found another value"),
    ("a text", {**ITEMS, "de": ["a"]}, "de.json[0]: expected an object, found another value"),
    (
        "a number",
        {**ITEMS, "de": [{"instruction": 1}]},
        "de.json[0]: expected the text field instruction, found 1",
    ),
    (
        "no text",
        {**ITEMS, "de": [{"instruction": " "}]},
        "de.json[0]: expected an instruction with text, found an empty one",
    ),
    (
        "an id twice",
        {"en": [{"instruction": "a", "id": 1}, {"instruction": "b", "id": 1}]},
        "en.json: expected each id once, found some again",
    ),
    ("a row less", {**ITEMS, "de": ITEMS["de"][:1]}, "found a file without 1 of them, such as 2"),
]


@pytest.mark.parametrize(
    ("items", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_is_wrong_with_a_file_is_told(items: dict[str, Any], said: str) -> None:
    """One line with the file, what was expected and what was found."""
    with pytest.raises(InputError) as caught:
        alpaca.read(URI, ["en", "de"], reader(items))

    assert said in str(caught.value)


def test_a_missing_reference_is_told_with_the_row() -> None:
    """A translated file whose instructions are others would be compared with nothing."""
    rows = alpaca.read(URI, ["en"], reader(ITEMS))
    outputs = [
        {"instruction": "Say yes!", "output": "yes"},
        {"instruction": "Say no.", "output": ""},
    ]

    with pytest.raises(InputError, match="found none for 1 of 2, such as 1"):
        alpaca.outputs(URI, rows, reader({"en": outputs}))


DIFFICULT = {"instruction": "Say no.", "instruction_difficulty": 0.5}
EASY = {"instruction": "Say yes.", "instruction_difficulty": -1}


def difficulties(items: Any) -> Mapping[str, Difficulties]:
    rows = alpaca.read(URI, ["en", "de"], reader(ITEMS))
    return alpaca.difficulties(URI, rows, reader({"en.difficulty": items}))


def test_difficulties_are_found_by_their_instruction() -> None:
    """In the languages that have a file; of several rows for an instruction the first counts."""
    gamed = {**EASY, "instruction_difficulty": 3, "preference": 0.2, "std_delta_len": 1.5}
    unknown = {"instruction": "Say nothing.", "instruction_difficulty": 9.0}
    found = difficulties([unknown, DIFFICULT, EASY, gamed])

    assert set(found) == {"en"}
    assert found["en"].by_id == {"1": -1.0, "2": 0.5}
    assert found["en"].gamed == (Gamed(0.2, 1.5, 3.0),)


NOT_HARD: list[tuple[str, Any, str]] = [
    (
        "a text",
        [{**EASY, "instruction_difficulty": "1"}],
        "[0]: expected the number instruction_di",
    ),
    ("a flag", [EASY, {**EASY, "instruction_difficulty": True}], "[1]: expected the number"),
    ("no number", b'[{"instruction": "a", "instruction_difficulty": NaN}]', "found NaN"),
    ("half a verdict", [{**EASY, "preference": 1}], "the number std_delta_len, found null"),
    ("a row less", [EASY], "expected instruction_difficulty for each instruction of the suite"),
]


@pytest.mark.parametrize(
    ("items", "said"), [row[1:] for row in NOT_HARD], ids=[row[0] for row in NOT_HARD]
)
def test_what_is_wrong_with_difficulties_is_told(items: Any, said: str) -> None:
    """One line with the file and the row, before anything is computed."""
    with pytest.raises(InputError, match=r"en\.difficulty\.json") as caught:
        difficulties(items)

    assert said in str(caught.value)


def test_a_file_of_difficulties_is_no_language() -> None:
    """A folder may hold instructions, outputs and difficulties."""
    assert suites.languages_of("xAlpacaEval", ["en.json", "en.difficulty.json"]) == {"en"}


ANNOTATOR = """\
the judge:
  prompt_template: "judge/prompt.txt"
  fn_completions: "openai_completions"
  completions_kwargs: {model_name: "nobody"}
  completion_parser_kwargs: {outputs_to_match: {1: "1", 2: "2"}}
"""


def test_alpaca_eval_s_own_tools_read_what_we_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our verdicts are its annotations: it asks nobody and comes to the same win rate."""
    preferences = [1.0, 0.0, 0.5, 0.8, 1.0, None]
    rows = [evaluated(str(n), f"Say {n}.", f"так {n}") for n in range(len(preferences))]
    verdicts = [
        Verdict(id=str(n), language="en", preference=p, characters=5, opponent_characters=9)
        for n, p in enumerate(preferences)
    ]
    given = {row.id: f"output {row.id}" for row in rows}
    names = alpaca.Names(model="m1", opponent="reference", judge="the judge")
    files = {
        "m1.json": alpaca.model_outputs(rows[:-1], "mine", "m1"),
        "annotations.json": alpaca.annotations(rows, verdicts, given, names),
        "references.json": json.dumps(
            [{"instruction": r.prompt, "output": given[r.id], "generator": "r"} for r in rows]
        ).encode(),
        "judge/configs.yaml": ANNOTATOR.encode(),
        "judge/prompt.txt": b"{instruction} {output_1} {output_2}",
    }
    (tmp_path / "judge").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    package = alpaca_tools.loaded(monkeypatch)

    told = package.metrics.get_winrate(json.loads(files["annotations.json"]))
    leaderboard, annotations = package.evaluate(
        model_outputs=str(tmp_path / "m1.json"),
        reference_outputs=str(tmp_path / "references.json"),
        annotators_config=str(tmp_path / "judge/configs.yaml"),
        caching_path=str(tmp_path / "annotations.json"),
        precomputed_leaderboard=None,
        output_path=None,
        is_return_instead_of_print=True,
        fn_metric="get_winrate",
        sort_by="win_rate",
    )

    ours = measures(verdicts)
    assert told["win_rate"] / 100 == pytest.approx(ours["winRate"])
    assert (told["n_wins"], told["n_draws"], told["n_wins_base"]) == (3, 1, 1)
    assert leaderboard.loc["m1", "win_rate"] / 100 == pytest.approx(ours["winRate"])
    assert [found["preference"] for found in annotations] == [2.0, 1.0, 1.5, 1.8, 2.0]
