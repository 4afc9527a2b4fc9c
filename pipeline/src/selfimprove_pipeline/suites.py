"""The rows of an evaluation suite, whatever the format of its kind.

The worker that evaluates and the report that shows gold answers read them here; `candidate` asks
which languages a folder has.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from selfimprove_pipeline import alpaca, mgsm, prompts
from selfimprove_pipeline.prompts import Parallel
from selfimprove_pipeline.recipe import LANGUAGE_PATTERN, Suite

NAME: Final = "{}.jsonl"
"""Name of a language's file in our own format."""


def read(
    suite: Suite, languages: Sequence[str], read_file: Callable[[str], bytes | None]
) -> Parallel:
    """Return all rows of a suite by language; an `InputError` tells every mistake in them.

    `read_file` returns the content of a URI, None where nothing is.
    """
    if suite.has_numbers:
        return mgsm.read(suite.uri, languages, read_file)
    if suite.has_references:
        return alpaca.read(suite.uri, languages, read_file)
    folder = suite.uri.rstrip("/")
    files = {language: read_file(f"{folder}/{NAME.format(language)}") for language in languages}
    return prompts.read(files, suite.uri, needs_answers=suite.needs_answers)


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
