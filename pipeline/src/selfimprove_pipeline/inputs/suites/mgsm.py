"""MGSM's rows, from the files in which its owners publish them.

`mgsm_<language>.tsv` holds question TAB answer (google-research/url-nlp), `mgsm_<language>.jsonl`
holds `{query, response}` (the LIDR repository). Their rows are parallel by position, so a row's
id is its line. Our own `<language>.jsonl` is read as well. Gold answers become the canonical
numbers that `answers` compares with.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.inputs import prompts
from selfimprove_pipeline.inputs.prompts import Parallel
from selfimprove_pipeline.text import final_answer

NAMES: Final = ("mgsm_{}.tsv", "mgsm_{}.jsonl", "{}.jsonl")
"""Names of a language's file; the first that is there counts."""

Read = Callable[[str], bytes | None]
"""Returns the content of a URI, None where nothing is."""

Raw = Iterator[tuple[str, Prompt]]
"""Rows as they stand in a file, with their places."""


def read(uri: str, languages: Sequence[str], read_file: Read) -> Parallel:
    """Return the rows of a folder by language; an `InputError` tells every mistake in it."""
    folder = uri.rstrip("/")
    found = {language: _found(folder, language, read_file) for language in languages}
    files = {language: file for language, file in found.items() if file is not None}
    if not files:
        names = ", ".join(name.format("<language>") for name in NAMES)
        message = f"{uri}: expected one of {names}, found none for {', '.join(languages)}"
        raise InputError(message)
    mistakes = [
        f"{folder}/{NAMES[0].format(language)}: expected one file a language, found none; add it"
        for language in languages
        if language not in files
    ]
    rows = {
        language: tuple(_with_numbers(_raw(*file, mistakes), language, mistakes))
        for language, file in files.items()
    }
    prompts.raise_if_any(mistakes)
    return prompts.in_parallel(rows, {language: name for language, (name, _) in files.items()})


def _found(folder: str, language: str, read_file: Read) -> tuple[str, bytes] | None:
    """Return name and content of a language's file."""
    for name in NAMES:
        uri = f"{folder}/{name.format(language)}"
        content = read_file(uri)
        if content is not None:
            return uri, content
    return None


def _raw(name: str, content: bytes, mistakes: list[str]) -> Raw:
    if not name.rpartition("/")[2].startswith("mgsm_"):
        for row in prompts.read_rows(name, content, mistakes):
            yield f"{name}: {row.id}", row
        return
    parsed = _tab_separated if name.endswith(".tsv") else _query_and_response
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        problem, (question, answer) = parsed(line)
        if problem:
            mistakes.append(f"{name}:{number}: {problem}")
        else:
            yield f"{name}:{number}", Prompt(id=str(number), prompt=question, answer=answer)


def _tab_separated(line: bytes) -> tuple[str, tuple[str, str]]:
    """Return what is wrong with a line, or its question and answer."""
    try:
        columns = line.decode("utf-8-sig").rstrip("\r").split("\t")
    except UnicodeDecodeError:
        return "expected UTF-8, found other bytes; save the file as UTF-8", ("", "")
    if len(columns) != 2:  # noqa: PLR2004  question and answer
        return f"expected question TAB answer, found {len(columns)} columns", ("", "")
    if not columns[0].strip():
        return "expected a question with text, found an empty one", ("", "")
    return "", (columns[0], columns[1])


def _query_and_response(line: bytes) -> tuple[str, tuple[str, str]]:
    """Return what is wrong with a line, or its question and answer."""
    problem, value = prompts.texts(line, ("query", "response"))
    return problem, ("", "") if problem else (value["query"], value["response"])


def _with_numbers(rows: Raw, language: str, mistakes: list[str]) -> Iterator[Prompt]:
    """Yield the rows with canonical gold answers."""
    for where, row in rows:
        number = final_answer.of_gold(row.answer or "", language)
        if number is None:
            mistakes.append(f"{where}: expected an answer with a number, found {row.answer!r}")
        else:
            yield row.model_copy(update={"answer": number})
