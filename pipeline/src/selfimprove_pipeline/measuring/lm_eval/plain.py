"""What a task of lm-eval is, as JSON that is the same on every machine.

Its configuration holds functions and absolute paths, and its results numbers of numpy.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

OF_A_MACHINE: Final = frozenset({"cache_dir", "keep_in_memory", "config_source"})
"""Keys that tell where a task was found and how its data was read."""


def plain(value: Any, folder: Path | None) -> Any:
    """Return JSON: functions as their source, paths as seen from `folder`.

    A number that is none, and one without end, becomes None.
    """
    match value:
        case dict():
            kept = {key: one for key, one in value.items() if key not in OF_A_MACHINE}
            return {str(key): plain(one, folder) for key, one in kept.items()}
        case list() | tuple():
            return [plain(one, folder) for one in value]
        case np.generic():
            return plain(value.item(), folder)
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value if folder is None else value.removeprefix(f"{folder}/")
        case None | bool() | int():
            return value
    return _source(value, inspect.getsource) if callable(value) else str(value)


def code(value: Any) -> list[str]:
    """Return the source of each module that has a function or class in a value, sorted."""
    return sorted({_source(one, _module_source) for one in _callables(value)})


def _callables(value: Any) -> Iterator[Callable[..., Any]]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _callables(one)
    elif callable(value):
        yield value


def _module_source(value: Any) -> str:
    path = inspect.getsourcefile(inspect.unwrap(value))
    if path is None:
        raise OSError
    return Path(path).read_text()


def _source(value: Any, read: Callable[[Any], str]) -> str:
    """Return what `read` finds; of what is no Python, such as a built-in function, its name."""
    try:
        return read(value)
    except (OSError, TypeError):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
