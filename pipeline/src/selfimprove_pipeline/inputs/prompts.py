"""Parallel prompts and suites as a user gives them: read, checked and chosen from.

Every file is judged by name and line, and all mistakes are told at once. The order is that
of the dominant language's file; rows of the other languages are found by id.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.rows import Prompt

MOST_SHOWN = 20

Parallel = Mapping[str, tuple[Prompt, ...]]
"""Prompts by language, the same ids in the same order in each."""


def read(files: Mapping[str, bytes | None], uri: str, *, needs_answers: bool = False) -> Parallel:
    """Return the prompts of `<uri>/<language>.jsonl`, in the order of the first language.

    None stands for a file that is not there.
    """
    names = {language: f"{uri.rstrip('/')}/{language}.jsonl" for language in files}
    mistakes: list[str] = []
    rows = {
        language: _read_file(names[language], content, mistakes)
        for language, content in files.items()
    }
    raise_if_any(mistakes)
    if needs_answers:
        mistakes += _without_answer(names, rows)
    return in_parallel(rows, names, mistakes)


def in_parallel(
    rows: Mapping[str, tuple[Prompt, ...]], names: Mapping[str, str], mistakes: Sequence[str] = ()
) -> Parallel:
    """Return the rows of files by language in the order of the first language.

    Languages with other ids are mistakes, told after those that are known.
    """
    dominant, *others = rows
    unequal = [line for other in others for line in _unequal_ids(names, dominant, other, rows)]
    raise_if_any([*unequal, *mistakes])
    return {language: _in_order(rows[dominant], found) for language, found in rows.items()}


def select(
    prompts: Parallel, *, per_iteration: int, selection: str, index: int, uri: str
) -> Parallel:
    """Return the prompts of one iteration: always the first ones, or the next ones."""
    start = index * per_iteration if selection == "disjoint" else 0
    found = len(next(iter(prompts.values())))
    if found < start + per_iteration:
        message = (
            f"{uri}: expected {start + per_iteration} prompts for iteration {index} "
            f"(perIteration {per_iteration}, selection {selection}), found {found}; "
            "add prompts or lower perIteration"
        )
        raise InputError(message)
    return {language: rows[start : start + per_iteration] for language, rows in prompts.items()}


def prompt_digest(rows: Sequence[Prompt]) -> str:
    """Return the digest of what the model will see: ids and prompts, never gold answers."""
    return manifests.digest([[row.id, row.prompt] for row in rows])


def gold_digest(rows: Sequence[Prompt]) -> str | None:
    """Return the digest of the gold answers, None unless every row has one."""
    if any(row.answer is None for row in rows):
        return None
    return manifests.digest([[row.id, row.answer] for row in rows])


def _read_file(name: str, content: bytes | None, mistakes: list[str]) -> tuple[Prompt, ...]:
    if content is None:
        mistakes.append(f"{name}: expected one file a language, found none; add it")
        return ()
    return read_rows(name, content, mistakes)


def read_rows(name: str, content: bytes, mistakes: list[str]) -> tuple[Prompt, ...]:
    """Return the rows of one file; what is wrong with it is added to the mistakes."""
    rows = [
        (number, row)
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip() and (row := _read_line(f"{name}:{number}", line, mistakes)) is not None
    ]
    mistakes.extend(_doubled_ids(name, rows))
    return tuple(row for _, row in rows)


def _read_line(where: str, line: bytes, mistakes: list[str]) -> Prompt | None:
    problem, row = _parsed(line)
    if problem:
        mistakes.append(f"{where}: {problem}")
    return row


def _parsed(line: bytes) -> tuple[str, Prompt | None]:
    """Return what is wrong with a line, or its row."""
    problem, value = texts(line, ("id", "prompt"))
    if problem:
        return problem, None
    answer = value.get("answer")
    if not (answer is None or is_text(answer)):
        return f"expected answer to be text, found {json.dumps(answer)}", None
    return "", Prompt(id=value["id"], prompt=value["prompt"], answer=answer)


def texts(line: bytes, keys: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return what is wrong with a line, or the object in it with text under each of the keys."""
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return "expected UTF-8, found other bytes; save the file as UTF-8", {}
    except json.JSONDecodeError as error:
        return f"expected one JSON object a line, found a fault ({error.msg})", {}
    if not isinstance(value, dict):
        return "expected a JSON object, found another value", {}
    for key in keys:
        if not isinstance(value.get(key), str):
            return f"expected the text field {key}, found {json.dumps(value.get(key))}", {}
        if not value[key].strip():
            return f"expected a {key} with text, found an empty one", {}
        if not is_text(value[key]):
            return f"expected a {key} in Unicode, found half of a surrogate pair", {}
    return "", value


def is_text(value: Any) -> bool:
    """Return whether a value is text that can be written: JSON may hold half a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _doubled_ids(name: str, rows: Sequence[tuple[int, Prompt]]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for number, row in rows:
        if row.id in seen:
            first = seen[row.id]
            yield f"{name}:{number}: expected each id once, found {row.id} of line {first} again"
        seen.setdefault(row.id, number)


def _unequal_ids(
    names: Mapping[str, str], dominant: str, language: str, rows: Mapping[str, Sequence[Prompt]]
) -> Iterator[str]:
    wanted = [row.id for row in rows[dominant]]
    found = {row.id for row in rows[language]}
    missing = [identifier for identifier in wanted if identifier not in found]
    foreign = sorted(found - set(wanted))
    for what, ids in (("without", missing), ("beyond", foreign)):
        if ids:
            yield (
                f"{names[language]}: expected the ids of {names[dominant].rpartition('/')[2]}, "
                f"found a file {what} {len(ids)} of them, such as {ids[0]}"
            )


def _without_answer(
    names: Mapping[str, str], rows: Mapping[str, Sequence[Prompt]]
) -> Iterator[str]:
    for language, found in rows.items():
        missing = [row.id for row in found if row.answer is None]
        if missing:
            yield (
                f"{names[language]}: expected the text field answer in every row, "
                f"found {len(missing)} without, such as {missing[0]}"
            )


def _in_order(wanted: Sequence[Prompt], rows: Sequence[Prompt]) -> tuple[Prompt, ...]:
    by_id = {row.id: row for row in rows}
    return tuple(by_id[row.id] for row in wanted)


def raise_if_any(mistakes: Sequence[str]) -> None:
    """Raise an `InputError` with all mistakes, of a flood the first ones and their number."""
    if not mistakes:
        return
    shown = list(mistakes[:MOST_SHOWN])
    if len(mistakes) > MOST_SHOWN:
        shown.append(f"... and {len(mistakes) - MOST_SHOWN} more")
    raise InputError("\n".join(shown))


def suite_digest(rows: Sequence[Prompt]) -> str:
    """Return the digest of a suite's rows, gold answers included, without what a judge may see."""
    follows = {row.id: [row.follows] for row in rows if row.follows is not None}
    return manifests.digest(
        [[row.id, row.prompt, row.answer, *follows.get(row.id, ())] for row in rows]
    )


def reference_digest(rows: Sequence[Prompt]) -> str:
    """Return the digest of what a judge may see beside the answers."""
    return manifests.digest([[row.id, row.reference] for row in rows])
