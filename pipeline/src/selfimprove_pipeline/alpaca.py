"""Rows and outputs in alpaca-eval's JSON format, one file a language.

`<language>.json` holds a list of objects: `instruction` and, where the file has one, `id` in the
prompts of X-AlpacaEval; `output` and `generator` as well in the outputs of a model. Without ids
the place in the file is the id. Outputs are found by their instruction, as alpaca-eval does it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from selfimprove_pipeline import prompts
from selfimprove_pipeline.artifacts import Evaluated, Prompt
from selfimprove_pipeline.prompts import Parallel

NAME: Final = "{}.json"
"""Name of a language's file."""

Read = Callable[[str], bytes | None]
"""Returns the content of a URI, None where nothing is."""

Outputs = Mapping[str, Mapping[str, str]]
"""Outputs by language and id of the prompt."""


def read(uri: str, languages: Sequence[str], read_file: Read) -> Parallel:
    """Return the instructions of a folder by language; an `InputError` tells every mistake."""
    mistakes: list[str] = []
    names = {language: _name(uri, language) for language in languages}
    items = {
        language: _items(name, read_file, ("instruction",), mistakes)
        for language, name in names.items()
    }
    rows = {
        language: _prompts(names[language], found, mistakes) for language, found in items.items()
    }
    prompts.raise_if_any(mistakes)
    return prompts.in_parallel(rows, names)


def outputs(uri: str, rows: Parallel, read_file: Read) -> Outputs:
    """Return the output of a folder for each row; an `InputError` tells where one is missing."""
    mistakes: list[str] = []
    found = {
        language: _outputs(_name(uri, language), asked, read_file, mistakes)
        for language, asked in rows.items()
    }
    prompts.raise_if_any(mistakes)
    return found


def model_outputs(rows: Sequence[Evaluated], suite: str, generator: str) -> bytes:
    """Return answers as alpaca-eval reads a model's outputs."""
    items = [
        {
            "id": row.id,
            "dataset": suite,
            "instruction": row.prompt,
            "output": row.completion,
            "generator": generator,
        }
        for row in rows
    ]
    return f"{json.dumps(items, ensure_ascii=False, indent=2)}\n".encode()


def _name(uri: str, language: str) -> str:
    return f"{uri.rstrip('/')}/{NAME.format(language)}"


def _items(
    name: str, read_file: Read, keys: Sequence[str], mistakes: list[str]
) -> list[dict[str, Any]]:
    """Return a file's objects; what is wrong with it is added to the mistakes."""
    content = read_file(name)
    if content is None:
        mistakes.append(f"{name}: expected one file a language, found none; add it")
        return []
    try:
        items = json.loads(content.decode("utf-8-sig"))
    except ValueError as error:  # of the encoding, too
        mistakes.append(f"{name}: expected JSON in UTF-8, found a fault ({error})")
        return []
    if not isinstance(items, list):
        mistakes.append(f"{name}: expected a list of objects, found another value")
        return []
    problems = [
        f"{name}[{n}]: {_problem(i, keys)}" for n, i in enumerate(items) if _problem(i, keys)
    ]
    mistakes.extend(problems)
    return [] if problems else items


def _problem(item: Any, keys: Sequence[str]) -> str:
    """Return what is wrong with an object; nothing if it has text under each of the keys."""
    if not isinstance(item, dict):
        return "expected an object, found another value"
    wrong = [key for key in keys if not isinstance(item.get(key), str)]
    if wrong:
        return f"expected the text field {wrong[0]}, found {json.dumps(item.get(wrong[0]))[:80]}"
    if not item["instruction"].strip():
        return "expected an instruction with text, found an empty one"
    return ""


def _prompts(
    name: str, items: Sequence[Mapping[str, Any]], mistakes: list[str]
) -> tuple[Prompt, ...]:
    has_ids = all(isinstance(item.get("id"), str | int) for item in items)
    rows = tuple(
        Prompt(id=str(item["id"]) if has_ids else str(place), prompt=item["instruction"])
        for place, item in enumerate(items, start=1)
    )
    if len({row.id for row in rows}) < len(rows):
        mistakes.append(f"{name}: expected each id once, found some again")
    return rows


def _outputs(
    name: str, asked: Sequence[Prompt], read_file: Read, mistakes: list[str]
) -> Mapping[str, str]:
    items = _items(name, read_file, ("instruction", "output"), mistakes)
    by_instruction = {item["instruction"]: item["output"] for item in reversed(items)}
    missing = [row for row in asked if row.prompt not in by_instruction]
    if items and missing:
        mistakes.append(
            f"{name}: expected an output for each instruction of the suite, found none for "
            f"{len(missing)} of {len(asked)}, such as {missing[0].id}"
        )
    return {row.id: by_instruction.get(row.prompt, "") for row in asked}
