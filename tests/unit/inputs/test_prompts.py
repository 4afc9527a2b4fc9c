"""Parallel prompts: judged by file and line, chosen by iteration."""

import json
from typing import Any

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.inputs import prompts

URI = "s3://prompts/set"


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def row(identifier: str, text: str = "q", **more: str) -> dict[str, str]:
    return {"id": identifier, "prompt": text, **more}


def mistakes(files: dict[str, bytes | None], **options: bool) -> list[str]:
    with pytest.raises(InputError) as caught:
        prompts.read(files, URI, **options)
    return str(caught.value).splitlines()


GOOD = jsonl(row("a"), row("b"))


def test_rows_meet_by_id_in_the_order_of_the_dominant_file() -> None:
    """A file in another order is no mistake."""
    found = prompts.read({"en": GOOD, "de": jsonl(row("b", "zwei"), row("a", "eins"))}, URI)

    assert [p.prompt for p in found["de"]] == ["eins", "zwei"]


BAD: list[tuple[str, bytes | None, str]] = [
    ("missing file", None, "de.jsonl: expected one file a language, found none"),
    ("wrong UTF-8", GOOD + b'{"id": "c", "prompt": "\xe9"}\n', "de.jsonl:3: expected UTF-8"),
    ("no JSON", b"{\n", "de.jsonl:1: expected one JSON object a line, found a fault"),
    ("a list", b"[]\n", "de.jsonl:1: expected a JSON object, found another value"),
    ("no id", jsonl({"prompt": "q"}), "de.jsonl:1: expected the text field id, found null"),
    ("number id", jsonl({"id": 1, "prompt": "q"}), "expected the text field id, found 1"),
    ("no prompt", jsonl({"id": "a"}), "de.jsonl:1: expected the text field prompt, found null"),
    ("empty prompt", jsonl(row("a", " ")), "de.jsonl:1: expected a prompt with text, found an"),
    ("answer", jsonl({**row("a"), "answer": 3}), "de.jsonl:1: expected answer to be text, found 3"),
    (
        "doubled id",
        jsonl(row("a"), row("a")),
        "de.jsonl:2: expected each id once, found a of line 1",
    ),
    ("missing id", jsonl(row("a")), "found a file without 1 of them, such as b"),
    ("foreign id", GOOD + jsonl(row("c")), "found a file beyond 1 of them, such as c"),
]


@pytest.mark.parametrize(("content", "line"), [r[1:] for r in BAD], ids=[r[0] for r in BAD])
def test_a_mistake_names_file_and_line(content: bytes | None, line: str) -> None:
    """One line each, and none for the good file beside it."""
    found = mistakes({"en": GOOD, "de": content})

    assert len(found) == 1
    assert line in found[0]
    assert found[0].startswith(f"{URI}/de.jsonl")


def test_all_mistakes_are_told_and_a_flood_is_counted() -> None:
    """Twenty lines are enough to see what is wrong."""
    found = mistakes({"en": jsonl(*(row("", "") for _ in range(50)))})

    assert len(found) == prompts.MOST_SHOWN + 1
    assert found[-1] == "... and 30 more"


def test_a_suite_with_gold_answers_needs_one_in_every_row() -> None:
    """ExactMatch cannot judge without."""
    (line,) = mistakes({"en": jsonl(row("a", answer="x"), row("b"))}, needs_answers=True)

    assert "expected the text field answer in every row, found 1 without, such as b" in line


def test_selection_takes_the_same_or_the_next_prompts() -> None:
    """`same` is what the paper's code does."""
    four = prompts.read({"en": jsonl(*(row(i) for i in "abcd"))}, URI)

    def ids(selection: str, index: int) -> list[str]:
        chosen = prompts.select(four, per_iteration=2, selection=selection, index=index, uri=URI)
        return [p.id for p in chosen["en"]]

    assert [ids("same", 0), ids("same", 1)] == [["a", "b"], ["a", "b"]]
    assert [ids("disjoint", 0), ids("disjoint", 1)] == [["a", "b"], ["c", "d"]]
    with pytest.raises(InputError, match="expected 6 prompts for iteration 2"):
        ids("disjoint", 2)


def test_the_digest_of_prompts_ignores_gold_answers() -> None:
    """What the model will see is the same with and without them."""
    plain = prompts.read({"en": jsonl(row("a"))}, URI)["en"]
    with_answer = prompts.read({"en": jsonl(row("a", answer="x"))}, URI)["en"]

    assert prompts.prompt_digest(plain) == prompts.prompt_digest(with_answer)
    assert prompts.gold_digest(plain) is None
    assert prompts.gold_digest(with_answer) is not None
    assert prompts.suite_digest(plain) != prompts.suite_digest(with_answer)
