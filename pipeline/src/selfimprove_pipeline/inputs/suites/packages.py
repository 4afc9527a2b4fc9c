"""Kinds of suites that other packages bring, by entry points of the group `selfimprove.suites`.

The entry point `tone` of the distribution `my-evals` is the kind `my-evals/tone`. It names an
object that reads rows and scores answers (`Extension`); the rest, from the engine to the report,
is as of any other suite. The package has to be where inputs are read: in all three images.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from typing import Final

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.extension import Extension
from selfimprove_pipeline.inputs.prompts import Parallel

GROUP: Final = "selfimprove.suites"


def read(
    kind: str, uri: str, languages: Sequence[str], read_file: Callable[[str], bytes | None]
) -> Parallel:
    """Return the rows of a suite of such a kind; an `InputError` tells what is wrong with it."""
    try:
        found = _loaded(kind).read(uri, languages, read_file)
    except ValueError as error:
        message = f"{uri}: {kind} cannot read it: {error}"
        raise InputError(message) from error
    if set(found) != set(languages) or not all(found.values()):
        told = ", ".join(tag for tag, rows in found.items() if rows) or "none"
        message = f"{uri}: expected {kind} to find rows in {', '.join(languages)}, found {told}"
        raise InputError(message)
    ids = {language: [row.id for row in rows] for language, rows in found.items()}
    is_parallel = all(set(own) == set(ids[languages[0]]) for own in ids.values())
    if not is_parallel or any(len(set(own)) < len(own) for own in ids.values()):
        message = f"{uri}: expected {kind} to give each id once and the same ones in every language"
        raise InputError(message)
    if any(row.follows for rows in found.values() for row in rows):
        message = f"{uri}: expected {kind} to give prompts that follow no other, found some that do"
        raise InputError(message)
    return {language: found[language] for language in languages}


def score(kind: str, completion: str, row: Prompt, language: str) -> float | None:
    """Return what an answer is worth; an `InputError` where that is not from 0 to 1."""
    found = _loaded(kind).score(completion, row, language)
    if found is not None and not 0 <= found <= 1:
        message = f"{kind}: expected a score from 0 to 1 of row {row.id}, found {found}"
        raise InputError(message)
    return None if found is None else float(found)


def version(kind: str) -> str:
    """Return what stands in keys for such a kind: the name and version of its package."""
    point = _point(kind)
    return f"{kind} {point.dist.version if point.dist else ''}".rstrip()


@cache
def _loaded(kind: str) -> Extension:
    try:
        found: Extension = _point(kind).load()
    except (ImportError, AttributeError) as error:
        message = f"evaluation.suites: {kind} cannot be loaded: {error}"
        raise InputError(" ".join(message.split())) from error
    return found


def _point(kind: str) -> metadata.EntryPoint:
    """Return the entry point of a kind; an `InputError` names those that are installed."""
    points = {f"{_name(point)}/{point.name}": point for point in metadata.entry_points(group=GROUP)}
    package, _, name = kind.partition("/")
    found = points.get(f"{_normal(package)}/{name}")
    if found is None:
        message = (
            f"evaluation.suites: expected an installed package with the suite {kind} (an entry "
            f"point of {GROUP}), found {', '.join(sorted(points)) or 'none'}"
        )
        raise InputError(message)
    return found


def _name(point: metadata.EntryPoint) -> str:
    return _normal(point.dist.name) if point.dist else ""


def _normal(package: str) -> str:
    """Return a distribution's name as PyPI compares it."""
    return package.lower().replace("_", "-").replace(".", "-")
