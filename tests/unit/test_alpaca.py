"""alpaca-eval's files: instructions and outputs are read, and our answers are written."""

import json
from typing import Any

import pytest

from selfimprove_pipeline import alpaca, suites
from selfimprove_pipeline.artifacts import Evaluated
from selfimprove_pipeline.errors import InputError
from selfimprove_pipeline.recipe import Suite

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
        Evaluated(
            id=row,
            language="en",
            prompt=prompt,
            completion=f"{prompt} è così.",
            finish_reason="stop",
            completion_tokens=1,
            score=None,
            identified=None,
            is_off_target=False,
            is_empty=False,
            is_evasive=False,
        )
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
