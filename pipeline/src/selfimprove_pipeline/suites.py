"""The rows of an evaluation suite, whatever the format of its kind.

The worker that evaluates and the report that shows gold answers read them here.
"""

from collections.abc import Callable, Sequence

from selfimprove_pipeline import mgsm, prompts
from selfimprove_pipeline.prompts import Parallel
from selfimprove_pipeline.recipe import Suite


def read(
    suite: Suite, languages: Sequence[str], read_file: Callable[[str], bytes | None]
) -> Parallel:
    """Return all rows of a suite by language; an `InputError` tells every mistake in them.

    `read_file` returns the content of a URI, None where nothing is.
    """
    if suite.has_numbers:
        return mgsm.read(suite.uri, languages, read_file)
    folder = suite.uri.rstrip("/")
    files = {language: read_file(f"{folder}/{language}.jsonl") for language in languages}
    return prompts.read(files, suite.uri, needs_answers=suite.needs_answers)
