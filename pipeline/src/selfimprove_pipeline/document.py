"""A `run.yaml` as a person wrote it: parsed as kubectl does, each part with its file and line.

PyYAML gives the nodes with their lines; the plain scalars are typed as the YAML reader of
kubectl types them (`no` is false, `5e-7` is a number, `1:30` and dates are text). `judge`
makes a run of it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml
from typing_extensions import override

from selfimprove_pipeline.errors import InputError

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
                    Mistake(where, dotted((*path, key)), "this key stands twice; keep one")
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
    kept = {p: place for p, place in document.places.items() if p[: len(path)] != path}
    return Document(_replaced(document.value, path, value), {**kept, path: f"--set {setting}"})


def _replaced(value: Any, path: Path_, new: Any) -> Any:
    """Return a copy of nested maps with one value replaced."""
    if not path:
        return new
    base = value if isinstance(value, dict) else {}
    return {**base, path[0]: _replaced(base.get(path[0]), path[1:], new)}


def dotted(path: Path_) -> str:
    """Return a path as people write it: `spec.languages.others[1]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text
