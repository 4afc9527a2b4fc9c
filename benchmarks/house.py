"""What the code's house looks like in figures: how large its rooms and its functions are.

    .venv/bin/python benchmarks/house.py [FOLDER ...]

Each FOLDER is one column; without one they are the pipeline, the operator and the tests. Compare
the figures of two commits, or those of a library whose style you like. Lines are those of files;
a function's lines go from its `def` to its end without its docstring.
"""

import ast
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("pipeline/src", "operator/src", "tests")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class House:
    """What is counted below one folder."""

    modules: list[int] = field(default_factory=list)
    """modules holds the lines of each file."""
    packages: Counter[Path] = field(default_factory=Counter)
    """packages counts the files of each folder that hold code."""
    functions: list[Function] = field(default_factory=list)
    comments: int = 0
    single: int = 0
    """single is the number of private functions that their own module names once."""

    @property
    def lines(self) -> int:
        """Lines of all files."""
        return sum(self.modules)


def read(folder: Path) -> House:
    """Return what stands below a folder."""
    house = House()
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        house.modules.append(text.count("\n"))
        house.packages[path.parent] += bool(tree.body)
        functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
        house.functions += functions
        names = Counter(_names(tree))
        house.single += sum(_is_private(each) and names[each.name] == 1 for each in functions)
        with path.open("rb") as file:
            tokens = tokenize.tokenize(file.readline)
            house.comments += sum(token.type == tokenize.COMMENT for token in tokens)
    return house


def _is_private(function: Function) -> bool:
    return (
        function.name.startswith("_")
        and function.name.strip("_") != ""
        and not (function.name.endswith("__"))
    )


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that are read, a method's among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr


def _size(function: Function) -> int:
    """Return a function's lines without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    first = function.body[0]
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1)


def _parameters(function: Function) -> list[ast.arg]:
    """Return a function's parameters without `self`."""
    spec = function.args
    stars = [each for each in (spec.vararg, spec.kwarg) if each is not None]
    named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *stars]
    return [each for each in named if each.arg not in ("self", "cls", "_", "__")]


def _is_typed(function: Function) -> bool:
    parameters = all(each.annotation is not None for each in _parameters(function))
    return parameters and function.returns is not None


def _spread(sizes: Sequence[int]) -> str:
    """Return median, ninetieth percentile and maximum."""
    ninetieth = statistics.quantiles(sizes, n=10)[-1]
    return f"{statistics.median(sizes):.0f} / {ninetieth:.0f} / {max(sizes)}"


def _percent(parts: Sequence[bool]) -> str:
    return f"{100 * sum(parts) / max(1, len(parts)):.0f} %"


def figures(house: House) -> dict[str, str]:
    """Return the cells of a folder by their names."""
    public = [each for each in house.functions if not each.name.startswith("_")]
    ((room, files),) = house.packages.most_common(1)
    return {
        "files": f"{len(house.modules)}",
        "lines": f"{house.lines:,}",
        "largest package": f"{room.name}: {files}",
        "lines of a module": _spread(house.modules),
        "lines of a function": _spread([_size(each) for each in house.functions]),
        "parameters": _spread([len(_parameters(each)) for each in house.functions]),
        "functions with all types": _percent([_is_typed(each) for each in house.functions]),
        "public ones with docstring": _percent([bool(ast.get_docstring(each)) for each in public]),
        "comments per 100 lines": f"{100 * house.comments / house.lines:.1f}",
        "single-caller helpers per 1,000": f"{1000 * house.single / house.lines:.1f}",
    }


def main(names: Sequence[str]) -> None:
    """Print a column for each folder."""
    folders = {name: figures(read(ROOT / name)) for name in names or FOLDERS}
    table = Table("", *folders, caption="of several: median / ninetieth percentile / maximum")
    for label in next(iter(folders.values())):
        table.add_row(label, *(cells[label] for cells in folders.values()))
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
