"""A `run.yaml` as a person wrote it: parsed as kubectl does, each part with its file and line.

PyYAML gives the nodes with their lines; the plain scalars are typed as the YAML reader of
kubectl types them (`no` and `n` are false, `5e-7` is a number, `2.0` is 2 because it goes
through JSON, `1:30` and dates are text). `validation` makes a run of it.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml
from typing_extensions import override

from selfimprove_pipeline.contract.errors import InputError

Path_ = tuple[str | int, ...]

FLOAT: Final = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
INT: Final = re.compile(
    r"^([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))$"
)
BASES: Final = (16, 2, 8, 10)
"""The bases of INT's groups."""


def _forms(word: str) -> tuple[str, str, str]:
    """Return a word as YAML 1.1 knows it: `no`, `No` and `NO`, never `nO`."""
    return word, word.capitalize(), word.upper()


WORDS: Final[dict[str, bool | None]] = {
    **{form: True for word in ("y", "yes", "on", "true") for form in _forms(word)},
    **{form: False for word in ("n", "no", "off", "false") for form in _forms(word)},
    **dict.fromkeys(("", "~", *_forms("null"))),
}
NOT_FINITE: Final = re.compile(r"^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
EXACT: Final = 10**21
"""Go writes larger floats with an exponent, so that they stay floats in JSON."""

PLAIN: Final = "!plain"
MERGE: Final = "tag:yaml.org,2002:merge"


def _typed(text: str) -> bool | int | float | str | None:
    """Return the value of a plain scalar."""
    if text in WORDS:
        return WORDS[text]
    digits = text.replace("_", "") if text[:1] in set("-+.0123456789") else text
    if match := INT.match(digits):
        return _whole(match)
    if FLOAT.match(digits) and math.isfinite(number := float(digits)):
        return int(number) if number.is_integer() and abs(number) < EXACT else number
    return text


def _whole(match: re.Match[str]) -> int:
    sign, *groups = match.groups()
    base, digits = next((b, d) for b, d in zip(BASES, groups, strict=True) if d is not None)
    return int(sign + digits, base)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with kubectl's reading of plain scalars."""


def _construct(_: _Loader, node: yaml.ScalarNode) -> Any:
    if NOT_FINITE.match(node.value):
        problem = f"{node.value}, for which JSON has no number"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return _typed(node.value)


_Loader.yaml_implicit_resolvers = {
    "<": [(MERGE, re.compile("^<<$"))],
    None: [(PLAIN, re.compile(""))],
}
_Loader.add_constructor(PLAIN, _construct)
_Loader.add_constructor(MERGE, _construct)
for _name in ("bool", "float", "int", "null"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _construct)


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
        if len(nodes) == 1 and nodes[0] is not None:
            return _document(nodes[0], name)
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
    except RecursionError as error:
        message = "expected YAML, found an anchor inside itself"
        raise DocumentError([Mistake(f"{name}:1", "", message)]) from error
    found = f"{len(nodes)}" if nodes else "an empty file"
    raise DocumentError([Mistake(f"{name}:1", "", f"expected one document, found {found}")])


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
