"""Rows and outputs in alpaca-eval's JSON format, one file a language.

`<language>.json` holds a list of objects: `instruction` and, where the file has one, `id` in the
prompts of X-AlpacaEval; `output` and `generator` as well in the outputs of a model. Without ids
the place in the file is the id. Outputs are found by their instruction, as alpaca-eval does it;
so are difficulties, which it finds by their row and thus for its own instructions alone.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from selfimprove_pipeline.contract.rows import Difficulties, Evaluated, Gamed, Prompt, Verdict
from selfimprove_pipeline.inputs import prompts
from selfimprove_pipeline.inputs.prompts import Parallel

NAME: Final = "{}.json"
"""Name of a language's file."""
DIFFICULTY: Final = "{}.difficulty.json"
"""Name of the file, beside the outputs to compare with, that tells how hard instructions are."""
HARDNESS: Final = "instruction_difficulty"
GAMED: Final = ("preference", "std_delta_len")

Read = Callable[[str], bytes | None]
"""Returns the content of a URI, None where nothing is."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """Who met whom, and who judged."""

    model: str
    opponent: str
    judge: str


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


def difficulties(uri: str, rows: Parallel, read_file: Read) -> Mapping[str, Difficulties]:
    """Return how hard each row is, of the languages whose folder says so.

    Rows are those of alpaca-eval's `df_gamed.csv`, with `instruction` in place of `index`. They
    need `instruction_difficulty`; with `preference` and `std_delta_len` they are verdicts on a
    gamed baseline as well.
    """
    mistakes: list[str] = []
    found = {}
    for language, asked in rows.items():
        name = f"{uri.rstrip('/')}/{DIFFICULTY.format(language)}"
        if read_file(name) is not None:
            items = _items(name, read_file, ("instruction",), mistakes)
            found[language] = _difficulties(name, items, asked, mistakes)
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


def annotations(
    rows: Sequence[Evaluated],
    verdicts: Sequence[Verdict],
    opponents: Mapping[str, str],
    names: Names,
) -> bytes:
    """Return decided verdicts as alpaca-eval's annotations; `opponents` are texts by id.

    alpaca-eval compares the second output with the first one: 1 prefers the first, 2 the second.
    """
    decided = {row.id: row.preference for row in verdicts if row.preference is not None}
    items = [
        {
            "instruction": row.prompt,
            "output_1": opponents[row.id],
            "generator_1": names.opponent,
            "output_2": row.completion,
            "generator_2": names.model,
            "annotator": names.judge,
            "preference": 1 + decided[row.id],
        }
        for row in rows
        if row.id in decided
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
    mistakes.extend(_missing(name, "an output", asked, by_instruction))
    return {row.id: by_instruction.get(row.prompt, "") for row in asked}


def _difficulties(
    name: str,
    items: Sequence[Mapping[str, Any]],
    asked: Sequence[Prompt],
    mistakes: list[str],
) -> Difficulties:
    wrong = [
        f"{name}[{place}]: expected the number {key}, found {json.dumps(item.get(key))[:80]}"
        for place, item in enumerate(items)
        for key in _numbers(item)
        if not _is_number(item.get(key))
    ]
    mistakes.extend(wrong)
    if wrong:
        items = []
    by_instruction = {item["instruction"]: float(item[HARDNESS]) for item in reversed(items)}
    mistakes.extend(_missing(name, HARDNESS, asked, by_instruction))
    return Difficulties(
        by_id={row.id: by_instruction.get(row.prompt, 0.0) for row in asked},
        gamed=tuple(
            Gamed(*(float(item[key]) for key in (*GAMED, HARDNESS)))
            for item in items
            if _is_gamed(item)
        ),
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _numbers(item: Mapping[str, Any]) -> tuple[str, ...]:
    return (HARDNESS, *GAMED) if _is_gamed(item) else (HARDNESS,)


def _is_gamed(item: Mapping[str, Any]) -> bool:
    return any(item.get(key) is not None for key in GAMED)


def _missing(
    name: str, what: str, asked: Sequence[Prompt], known: Mapping[str, Any]
) -> Iterator[str]:
    """Tell where a file that has rows lacks instructions of the suite."""
    missing = [row for row in asked if row.prompt not in known]
    if known and missing:
        yield (
            f"{name}: expected {what} for each instruction of the suite, found none for "
            f"{len(missing)} of {len(asked)}, such as {missing[0].id}"
        )
