"""The rows of an evaluation suite, whatever the format of its kind.

The worker that evaluates and the report that shows gold answers read them here;
`evaluation_file` asks which languages a folder has.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.contract.recipe import LANGUAGE_PATTERN, Suite
from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.inputs import prompts
from selfimprove_pipeline.inputs.prompts import Parallel
from selfimprove_pipeline.inputs.suites import alpaca, mgsm, mt_bench, packages

NAME: Final = "{}.jsonl"
"""Name of a language's file in our own format."""


def read(
    suite: Suite, languages: Sequence[str], read_file: Callable[[str], bytes | None]
) -> Parallel:
    """Return all rows of a suite by language; an `InputError` tells every mistake in them.

    `read_file` returns the content of a URI, None where nothing is.
    """
    uri = suite.uri or ""  # only tasks of lm-eval may have none
    if suite.package is not None:
        return packages.read(suite.package, uri, languages, read_file)
    if suite.has_numbers:
        return mgsm.read(uri, languages, read_file)
    if suite.has_references:
        return alpaca.read(uri, languages, read_file)
    if suite.has_turns:
        return mt_bench.read(uri, languages, read_file)
    folder = uri.rstrip("/")
    files = {language: read_file(f"{folder}/{NAME.format(language)}") for language in languages}
    return prompts.read(files, uri, needs_answers=suite.needs_answers)


def digest(suite: Suite, rows: Sequence[Prompt]) -> str:
    """Return the digest of what a suite asks, and of the package that scores the answers."""
    own = prompts.suite_digest(rows)
    if suite.package is None:
        return own
    return manifests.digest([own, packages.version(suite.package)])


def first(rows: Sequence[Prompt], limit: int | None) -> tuple[Prompt, ...]:
    """Return the first rows of a suite, all without a limit; whole conversations count as one."""
    beginnings = [row.id for row in rows if row.follows is None]
    kept = set(beginnings[:limit])
    return tuple(row for row in rows if (row.follows or row.id) in kept)


def languages_of(kind: str, names: Iterable[str]) -> set[str]:
    """Return the languages of which a suite's folder has a file, from the names in it."""
    found = set()
    patterns = {"mgsm": mgsm.NAMES, "xAlpacaEval": (alpaca.NAME,)}.get(kind, (NAME,))
    for name in names:
        for pattern in patterns:
            before, after = pattern.split("{}")
            tag = name.removeprefix(before).removesuffix(after)
            if name == pattern.format(tag) and re.match(LANGUAGE_PATTERN, tag):
                found.add(tag)
    return found
