"""What a role's workers import, lazily too, and whether an image's packages are enough for it.

As a program it tries imports as they were in an environment with some packages alone: nothing of
any other package is found, by name or by what its metadata say.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
ROOTS: Final = (REPOSITORY / "pipeline" / "src", REPOSITORY / "operator" / "src")


@dataclass(frozen=True, order=True)
class Import:
    """One import statement."""

    importer: str
    module: str
    names: tuple[str, ...] = ()
    is_lazy: bool = False
    """isLazy says that it stands in a function."""


def file_of(module: str) -> Path | None:
    """Return the file of a module of ours, None for other modules."""
    for root in ROOTS:
        path = root.joinpath(*module.split("."))
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def imports_of(module: str) -> Iterator[Import]:
    """Yield what a module of ours imports, but what only type checkers see."""
    file = file_of(module)
    assert file is not None, f"expected a module of ours, found {module}"
    pending: list[tuple[ast.AST, bool]] = [(ast.parse(file.read_text()), False)]
    while pending:
        node, is_lazy = pending.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import(names=names):
                yield from (Import(module, alias.name, (), is_lazy) for alias in names)
            case ast.ImportFrom(module=str(source), names=names):
                yield Import(module, source, tuple(alias.name for alias in names), is_lazy)
        is_lazy = is_lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        pending.extend((child, is_lazy) for child in ast.iter_child_nodes(node))


def targets(found: Import) -> list[str]:
    """Return the modules of ours that an import loads, parents left out; else what it names."""
    own = [f"{found.module}.{name}" for name in found.names]
    return [name for name in own if file_of(name)] or [found.module]


def reached(entry: str, taken: Mapping[str, Iterable[str]], role: str) -> set[Import]:
    """Return all imports that a role reaches from a module.

    `taken` names the roles that take a lazy import, by its target; all take what it leaves out.
    """
    seen: set[str] = set()
    found: set[Import] = set()
    pending = [entry]
    while pending:
        module = pending.pop()
        if module in seen or file_of(module) is None:
            continue
        seen.add(module)
        pending.extend(".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1))
        for one in imports_of(module):
            if one.is_lazy and any(role not in taken.get(t, (role,)) for t in targets(one)):
                continue
            found.add(one)
            pending.extend((one.module, *targets(one)))
    return found


def failures(imports: Iterable[Import], packages: Iterable[str]) -> list[str]:
    """Return what cannot be imported in an environment that has only some packages."""
    asked = {
        "packages": sorted(packages),
        "imports": sorted({(one.module, one.names) for one in imports}),
    }
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines: list[str] = json.loads(done.stdout.splitlines()[-1])
    return lines


class _Visible:
    """A finder of modules and packages that finds nothing of the packages that are hidden."""

    def __init__(self, finder: Any, hidden_modules: set[str], hidden_packages: set[str]) -> None:
        self._finder = finder
        self._modules = hidden_modules
        self._packages = hidden_packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in self._modules:
            return None
        found: ModuleSpec | None = self._finder.find_spec(name, path, target)
        return found

    def find_distributions(self, *context: Any) -> Iterator[metadata.Distribution]:
        find = getattr(self._finder, "find_distributions", lambda *_: ())
        return (found for found in find(*context) if normal(found.name) not in self._packages)

    def invalidate_caches(self) -> None:
        getattr(self._finder, "invalidate_caches", lambda: None)()


def normal(name: str) -> str:
    """Return the normal form of a package's name."""
    return name.lower().replace("_", "-").replace(".", "-")


def _hide_all_but(packages: set[str]) -> None:
    owners = {
        m: {normal(n) for n in names} for m, names in metadata.packages_distributions().items()
    }
    ours = {"selfimprove"}
    modules = {module for module, names in owners.items() if names.isdisjoint(packages | ours)}
    hidden = set().union(*owners.values()) - packages - ours
    sys.meta_path[:] = [_Visible(finder, modules, hidden) for finder in sys.meta_path]
    for name in [n for n in sys.modules if n.partition(".")[0] in modules]:
        del sys.modules[name]


def _try(module: str, names: Sequence[str]) -> str | None:
    try:
        loaded = import_module(module)
        for name in names:
            if not hasattr(loaded, name):
                import_module(f"{module}.{name}")
    except Exception as error:  # noqa: BLE001  what is told is told as it is
        return f"{module}: {type(error).__name__}: {error}"
    return None


def _main() -> None:
    asked = json.load(sys.stdin)
    _hide_all_but({normal(name) for name in asked["packages"]})
    found = [line for module, names in asked["imports"] if (line := _try(module, names))]
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    _main()
