"""A `run.yaml` as a person wrote it: parsed as kubectl does, judged with file and line.

PyYAML gives the nodes with their lines; the plain scalars are typed as the YAML reader of
kubectl types them (`no` is false, `5e-7` is a number, `1:30` and dates are text). Every
mistake of a file is reported at once.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import override

from selfimprove_pipeline import languages, recipe
from selfimprove_pipeline.errors import InputError
from selfimprove_pipeline.recipe.base import Part

Path_ = tuple[str | int, ...]

FLOAT: Final = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
INT: Final = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o?[0-7]+)$")
TEXT_TAGS: Final = ("tag:yaml.org,2002:timestamp",)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with kubectl's reading of plain scalars."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in TEXT_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBERS: Final = (
    ("tag:yaml.org,2002:int", INT),  # before float, whose form an integer has too
    ("tag:yaml.org,2002:float", FLOAT),
)
for _first in "-+.0123456789":
    _others = [
        pair
        for pair in _Loader.yaml_implicit_resolvers.get(_first, [])
        if pair[0] not in dict(_NUMBERS)
    ]
    _Loader.yaml_implicit_resolvers[_first] = [*_NUMBERS, *_others]


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong in a file."""

    where: str
    path: str
    message: str

    @override
    def __str__(self) -> str:
        """Return the line that a person reads."""
        return ": ".join(filter(None, (self.where, self.path, self.message)))


class DocumentError(InputError):
    """A file with mistakes, one a line."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


@dataclass(frozen=True)
class Document:
    """The value of a file and the place of each of its parts."""

    value: Any
    places: Mapping[Path_, str]

    def place(self, path: Path_) -> str:
        """Return `file:line` of a path, or of the nearest thing around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return "?"


def load(path: Path, settings: Sequence[str] = (), *, for_cluster: bool = False) -> recipe.Run:
    """Return the run that a file describes, `--set` values on top, not yet resolved.

    `for_cluster` refuses what only works on one machine.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: expected a run file, found none that can be read ({error.strerror})"
        raise InputError(message) from error
    document = parse(content, path.name)
    for setting in settings:
        document = with_setting(document, setting)
    run = judge(document)
    mistakes = cluster_mistakes(run, document) if for_cluster else []
    if mistakes:
        raise DocumentError(mistakes)
    return run


def parse(content: bytes, name: str) -> Document:
    """Return the one document of a YAML file."""
    try:
        text = content.decode()
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DocumentError(
            [Mistake(f"{name}:{line}", "", "expected UTF-8, found other bytes")]
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found = " ".join(filter(None, (error.context, error.problem)))
        raise DocumentError(
            [Mistake(f"{name}:{line}", "", f"expected YAML, found {found}")]
        ) from error
    if len(nodes) != 1 or nodes[0] is None:
        found = f"{len(nodes)}" if nodes else "an empty file"
        raise DocumentError([Mistake(f"{name}:1", "", f"expected one document, found {found}")])
    return _document(nodes[0], name)


def _document(root: yaml.Node, name: str) -> Document:
    places: dict[Path_, str] = {}
    mistakes: list[Mistake] = []
    for path, node in _walk(root, (), name, mistakes):
        places[path] = f"{name}:{node.start_mark.line + 1}"
    if mistakes:
        raise DocumentError(mistakes)
    loader = _Loader("")
    try:
        value = loader.construct_document(root)
    finally:
        loader.dispose()
    return Document(value, places)


def _walk(
    node: yaml.Node, path: Path_, name: str, mistakes: list[Mistake]
) -> Iterator[tuple[Path_, yaml.Node]]:
    """Yield each part with the node that tells its line; note doubled keys."""
    if not path:
        yield path, node
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item
            yield from _walk(item, (*path, index), name, mistakes)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in seen:
                where = f"{name}:{key_node.start_mark.line + 1}"
                mistakes.append(
                    Mistake(where, _dotted((*path, key)), "this key stands twice; keep one")
                )
            seen.add(key)
            yield (*path, key), key_node
            yield from _walk(value_node, (*path, key), name, mistakes)


def with_setting(document: Document, setting: str) -> Document:
    """Return the document with one `--set spec.path=value`; `spec.` may be left out."""
    path_text, equals, value_text = setting.partition("=")
    if not equals or not path_text:
        message = f"--set {setting}: expected PATH=VALUE, such as training.beta=0.1"
        raise InputError(message)
    keys = tuple(path_text.removeprefix("spec.").split("."))
    value = parse(f"value: {value_text}".encode(), f"--set {setting}").value["value"]
    path: Path_ = ("spec", *keys)
    return Document(
        _replaced(document.value, path, value), {**document.places, path: f"--set {setting}"}
    )


def _replaced(value: Any, path: Path_, new: Any) -> Any:
    """Return a copy of nested maps with one value replaced."""
    if not path:
        return new
    base = value if isinstance(value, dict) else {}
    return {**base, path[0]: _replaced(base.get(path[0]), path[1:], new)}


def judge(document: Document) -> recipe.Run:
    """Return the run of a document, or raise with every mistake in it."""
    mistakes = _unknown_languages(document)
    try:
        run = recipe.Run.model_validate_json(json.dumps(document.value, default=str))
    except ValidationError as error:
        details = _one_a_place(error.errors(include_url=False))
        mistakes = [*(_mistake(detail, document) for detail in details), *mistakes]
        raise DocumentError(mistakes) from error
    if mistakes:
        raise DocumentError(mistakes)
    return run


def _unknown_languages(document: Document) -> list[Mistake]:
    """Return a mistake for each tag that has the right form and names no language."""
    form = re.compile(recipe.LANGUAGE_PATTERN)
    mistakes = []
    for path in document.places:
        value = _value_at(document.value, path)
        is_tag = path[:2] == ("spec", "languages") and isinstance(value, str)
        if is_tag and form.match(value) and languages.name(value) is None:
            message = f"expected a BCP-47 tag such as de or pt-BR, found {value}"
            mistakes.append(Mistake(document.place(path), _dotted(path), message))
    return mistakes


def _value_at(value: Any, path: Path_) -> Any:
    for key in path:
        value = value[key]
    return value


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
    return Mistake(document.place(path), _dotted(path), _message(detail, path))


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


def _dotted(path: Path_) -> str:
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def cluster_mistakes(run: recipe.Run, document: Document) -> list[Mistake]:
    """Return what the API server will refuse in a run that is good on one machine."""
    return [
        Mistake(
            document.place(path),
            _dotted(path),
            "expected a URI that every node reaches (s3://, for models also hf:// and pvc://), "
            f"found {uri}",
        )
        for path, uri in _uris(run)
        if uri.startswith("file://")
    ]


def notes(run: recipe.Run) -> list[str]:
    """Return what is no mistake on this machine and worth knowing."""
    only_here = [
        f"{_dotted(path)}: {uri} works on this machine alone"
        for path, uri in _uris(run)
        if uri.startswith("file://")
    ]
    only_there = [
        f"{_dotted(path)}: {uri} works on a cluster alone"
        for path, uri in _uris(run)
        if uri.startswith("pvc://")
    ]
    return only_here + only_there


def _uris(run: recipe.Run) -> list[tuple[Path_, str]]:
    """Return every URI that inputs are read from, with its path in the file."""
    return [
        (("spec", "model", "uri"), run.spec.model.uri),
        (("spec", "prompts", "uri"), run.spec.prompts.uri),
        *(
            (("spec", "evaluation", "suites", index, "uri"), suite.uri)
            for index, suite in enumerate(run.spec.evaluation.suites)
        ),
    ]
