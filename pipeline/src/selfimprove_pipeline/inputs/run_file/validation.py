"""A run file judged: the run that it describes, or every mistake in it with file and line."""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe.base import NOT_A_FILE, Part
from selfimprove_pipeline.contract.recipe.schema import Schema, without_nulls
from selfimprove_pipeline.inputs.run_file.document import (
    Document,
    DocumentError,
    Mistake,
    Path_,
    dotted,
    parse,
    with_setting,
)
from selfimprove_pipeline.text import languages

ARGUMENTS: Final[tuple[Path_, ...]] = (
    ("spec", "chat", "templateKwargs"),
    ("spec", "inference", "extraArgs"),
)
"""Maps to arguments of any type, for which a CRD has only text and whole numbers."""


def load(path: Path, settings: Sequence[str] = (), *, for_cluster: bool = False) -> recipe.Run:
    """Return the run that a file describes, `--set` values on top, not yet resolved.

    `for_cluster` refuses what only works on one machine.
    """
    document = read(path)
    for setting in settings:
        document = with_setting(document, setting)
    run = judge(document)
    mistakes = cluster_mistakes(run, document) if for_cluster else []
    if mistakes:
        raise DocumentError(mistakes)
    return run


def read(path: Path) -> Document:
    """Return a run file as it is written, not yet judged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: expected a run file, found none that can be read ({error.strerror})"
        raise InputError(message) from error
    return parse(content, path.name)


def judge(document: Document) -> recipe.Run:
    """Return the run of a document, or raise with every mistake in it."""
    mistakes = _unknown_languages(document)
    try:
        run = recipe.Run.model_validate_json(_as_json(document.value), by_name=False)
        recipe.resolve(run)  # some rules need the values that the profile fills
    except ValidationError as error:
        details = _one_a_place(error.errors(include_url=False))
        mistakes = [*(_mistake(detail, document) for detail in details), *mistakes]
        raise DocumentError(mistakes) from error
    if mistakes:
        raise DocumentError(mistakes)
    return run


@cache
def _schema() -> Schema:
    return recipe.Run.model_json_schema(by_alias=True)


def _as_json(value: Any) -> str:
    """Return a file's value as the API server reads it: a known field that is null is not set."""
    schema = _schema()
    with_text_keys = json.loads(json.dumps(value, default=str))
    return json.dumps(without_nulls(with_text_keys, schema, schema["$defs"]))


def _unknown_languages(document: Document) -> list[Mistake]:
    """Return a mistake for each tag that has the right form and names no language."""
    form = re.compile(recipe.LANGUAGE_PATTERN)
    mistakes = []
    for path, value in _tags(document.value):
        if isinstance(value, str) and form.match(value) and languages.name(value) is None:
            message = f"expected a BCP-47 tag such as de or pt-BR, found {value}"
            mistakes.append(Mistake(document.place(path), dotted(path), message))
    return mistakes


def _tags(value: Any) -> Iterator[tuple[Path_, Any]]:
    """Yield what stands where language tags do, in a file that may have any form."""
    spec = _inside(value, "spec")
    run = _inside(spec, "languages")
    yield ("spec", "languages", "dominant"), _inside(run, "dominant")
    for index, tag in enumerate(_listed(run, "others")):
        yield ("spec", "languages", "others", index), tag
    for number, suite in enumerate(_listed(_inside(spec, "evaluation"), "suites")):
        for index, tag in enumerate(_listed(suite, "languages")):
            yield ("spec", "evaluation", "suites", number, "languages", index), tag


def _inside(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _listed(value: Any, key: str) -> list[Any]:
    found = _inside(value, key)
    return found if isinstance(found, list) else []


def _one_a_place(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Return one error for each place: a union reports each of its members."""
    first: dict[tuple[Any, ...], ErrorDetails] = {}
    for detail in details:
        path = tuple(detail["loc"])
        if not any(path[:length] in first for length in range(1, len(path))):
            first.setdefault(path, detail)
    return list(first.values())


def _mistake(detail: ErrorDetails, document: Document) -> Mistake:
    path: Path_ = tuple(detail["loc"])
    return Mistake(document.place(path), dotted(path), _message(detail, path))


def _message(detail: ErrorDetails, path: Path_) -> str:
    """Return what was expected and what was found, in the words of this project."""
    found = _shown(detail["input"])
    match detail["type"]:
        case "missing":
            return "expected a value, found none; add it"
        case "extra_forbidden":
            return f"expected a known field, found {path[-1]}{_suggestion(path)}"
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
        case "string_pattern_mismatch":
            pattern = detail.get("ctx", {}).get("pattern", "")
            return f"expected text of the form {pattern}, found {found}"
        case _:
            wanted = detail["msg"].removeprefix("Input should ").removeprefix("be ")
            return f"expected {wanted[:1].lower()}{wanted[1:]}, found {found}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    limit = 80
    return text if len(text) <= limit else f"{text[:limit]}..."


def _suggestion(path: Path_) -> str:
    """Return the nearest known name of the part that an unknown field stands in."""
    part: type[Part] = recipe.Run
    for key in path[:-1]:
        info = next((f for f in part.model_fields.values() if f.alias == key), None)
        inner = recipe.part_of(info) if info else None
        if inner is None:
            return "; remove it"
        part = inner
    known = [str(field.alias) for field in part.model_fields.values()]
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def cluster_mistakes(run: recipe.Run, document: Document) -> list[Mistake]:
    """Return what the API server will refuse in a run that is good on one machine."""
    found = [
        *((path, mistake) for path, uri in _uris(run) if (mistake := NOT_A_FILE.mistake(uri))),
        *(
            (path, f"expected text or a whole number on a cluster; write {_quoted(value)}")
            for path, value in _arguments(document.value)
            if isinstance(value, bool | float)
        ),
    ]
    return [Mistake(document.place(path), dotted(path), message) for path, message in found]


def _quoted(value: bool | float) -> str:
    return json.dumps(json.dumps(value))


def _arguments(value: Any) -> Iterator[tuple[Path_, Any]]:
    """Yield each argument as it stands in a good file."""
    for path in ARGUMENTS:
        inner = value
        for key in path:
            inner = (inner or {}).get(key)
        yield from (((*path, name), argument) for name, argument in (inner or {}).items())


def notes(run: recipe.Run) -> list[str]:
    """Return what is no mistake on this machine and worth knowing."""
    only_here = [
        f"{dotted(path)}: {uri} works on this machine alone"
        for path, uri in _uris(run)
        if uri.startswith("file://")
    ]
    only_there = [
        f"{dotted(path)}: {uri} works on a cluster alone"
        for path, uri in _uris(run)
        if uri.startswith("pvc://")
    ]
    counts = {
        "generation.shards": run.spec.generation.shards,
        "training.nodes": run.spec.training.nodes,
    }
    ignored = [
        f"spec.{name}: {count} counts on a cluster alone; here it is 1"
        for name, count in counts.items()
        if count > 1
    ]
    evaluation = run.spec.evaluation
    if evaluation.baselines and not evaluation.suites:
        ignored.append("spec.evaluation.baselines: without suites nothing is measured of them")
    if evaluation.suites and evaluation.suites[0].has_tasks:
        ignored.append(
            "spec.evaluation.suites: nlp stands first, so that there is neither gain nor gate; "
            "put a suite with languages before it"
        )
    return only_here + only_there + ignored


def _uris(run: recipe.Run) -> list[tuple[Path_, str]]:
    """Return every URI that inputs are read from, with its path in the file."""
    return [
        (("spec", "model", "uri"), run.spec.model.uri),
        (("spec", "prompts", "uri"), run.spec.prompts.uri),
        *(
            (("spec", "evaluation", "suites", index, name), uri)
            for index, suite in enumerate(run.spec.evaluation.suites)
            for name, uri in (("uri", suite.uri), ("referenceUri", suite.reference_uri))
            if uri is not None
        ),
    ]
