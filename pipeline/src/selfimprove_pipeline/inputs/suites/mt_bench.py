"""MT-Bench's questions, from the file in which its owners publish them, once a language.

`<language>.jsonl` holds FastChat's `{question_id, category, turns}` with two turns, and for the
questions that have one a good answer to each, `reference`. A question becomes two rows: the second
one follows the first in the same conversation.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.inputs import prompts
from selfimprove_pipeline.inputs.prompts import Parallel

NAME: Final = "{}.jsonl"
TURNS: Final = 2
SECOND: Final = "{}/2"
"""Id of a question's second turn."""

Read = Callable[[str], bytes | None]
"""Returns the content of a URI, None where nothing is."""


def read(uri: str, languages: Sequence[str], read_file: Read) -> Parallel:
    """Return the turns of a folder's questions; an `InputError` tells every mistake in it."""
    folder = uri.rstrip("/")
    mistakes: list[str] = []
    names = {language: f"{folder}/{NAME.format(language)}" for language in languages}
    rows = {name: tuple(_rows(uri, read_file(uri), mistakes)) for name, uri in names.items()}
    prompts.raise_if_any(mistakes)
    return prompts.in_parallel(rows, names)


def _rows(name: str, content: bytes | None, mistakes: list[str]) -> Iterator[Prompt]:
    if content is None:
        mistakes.append(f"{name}: expected one file a language, found none; add it")
        return
    seen: set[str] = set()
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        problem, turns = _question(line)
        again = next((turn.id for turn in turns if turn.id in seen), None)
        if again is not None:
            problem = f"expected each question_id once, found {again} again"
        if problem:
            mistakes.append(f"{name}:{number}: {problem}")
            continue
        seen.update(turn.id for turn in turns)
        yield from turns


def _question(line: bytes) -> tuple[str, tuple[Prompt, ...]]:
    """Return what is wrong with a line, or the two turns of its question."""
    problem, value = prompts.texts(line, ())
    if problem:
        return problem, ()
    identifier = value.get("question_id")
    if isinstance(identifier, bool) or not isinstance(identifier, int | str) or identifier == "":
        return f"expected question_id to be a number or text, found {json.dumps(identifier)}", ()
    for name in ("turns", *(["reference"] if value.get("reference") else ())):
        if not _are_turns(value.get(name)):
            return f"expected {name} to be {TURNS} texts, found {_shown(value.get(name))}", ()
    first, second = str(identifier), SECOND.format(identifier)
    good = value.get("reference") or (None, None)
    return "", (
        Prompt(id=first, prompt=value["turns"][0], reference=good[0]),
        Prompt(id=second, prompt=value["turns"][1], follows=first, reference=good[1]),
    )


def _are_turns(value: Any) -> bool:
    is_list = isinstance(value, list) and len(value) == TURNS
    return is_list and all(prompts.is_text(turn) and turn.strip() for turn in value)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return json.dumps(value, ensure_ascii=False)[:80]
