"""Warns of training prompts that a suite has too, once a run, when its inputs are first read.

`overlap` compares; here stand which prompts and rows, and where it is told: in the run's index,
which the report reads, and row by row in `overlap.jsonl` beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.contract.manifests import Overlap, Overlaps
from selfimprove_pipeline.contract.rows import Prompt, lines
from selfimprove_pipeline.inputs import overlap, prompts
from selfimprove_pipeline.run.setting import Setting

FILE: Final = "overlap.jsonl"
MOST_NAMED: Final = 20
"""Prompts named in a warning; the file has all."""


def look(setting: Setting, known: Overlaps | None = None) -> Overlaps | None:
    """Return what training prompts and suites have in common, None where one of both is missing.

    What is known of the same prompts and suites is returned as it is.
    """
    training = _training(setting)
    if not training or not setting.suites:
        return None
    inputs = _digest(training, setting.suites)
    if known is not None and known.inputs == inputs:
        return known
    found = tuple(_found(training, setting.suites))
    metadata = setting.run.metadata
    uri = setting.repository.run_uri(metadata.namespace, metadata.name) + FILE
    if found:
        setting.store.write(uri, lines(found))
    return Overlaps(inputs=inputs, warnings=tuple(_warnings(found, training, uri)))


def _training(setting: Setting) -> dict[str, tuple[Prompt, ...]]:
    """Return the prompts that any iteration trains on, each once, by language."""
    rows: dict[str, dict[str, Prompt]] = {}
    for index in range(setting.last):
        for language, chosen in setting.prompts_of(index).items():
            rows.setdefault(language, {}).update({row.id: row for row in chosen})
    return {language: tuple(found.values()) for language, found in rows.items()}


def _digest(
    training: Mapping[str, Sequence[Prompt]],
    suites: Mapping[tuple[str, str], Sequence[Prompt]],
) -> str:
    read = {language: prompts.prompt_digest(rows) for language, rows in training.items()}
    return manifests.digest_of(
        read | {".".join(name): prompts.prompt_digest(rows) for name, rows in suites.items()}
    )


def _found(
    training: Mapping[str, Sequence[Prompt]],
    suites: Mapping[tuple[str, str], Sequence[Prompt]],
) -> Iterator[Overlap]:
    for (suite, language), rows in suites.items():
        for match in overlap.matches(training.get(language, ()), rows):
            yield Overlap(
                suite=suite,
                language=language,
                prompt=match.prompt,
                row=match.row,
                similarity=round(match.similarity, 3),
                is_exact=match.is_exact,
            )


def _warnings(
    found: Sequence[Overlap], training: Mapping[str, Sequence[Prompt]], uri: str
) -> Iterator[str]:
    """Yield a line for each suite and language, exact matches first."""
    for (suite, language), group in groupby(found, lambda one: (one.suite, one.language)):
        rows = sorted(group, key=lambda one: (not one.is_exact, -one.similarity))
        exact = sum(one.is_exact for one in rows)
        named = ", ".join(_named(one) for one in rows[:MOST_NAMED])
        more = f" and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else ""
        yield (
            f"{suite} in {language}: expected none of its rows among the training prompts, found "
            f"{len(rows)} of {len(training[language])} prompts there ({exact} exactly, "
            f"{len(rows) - exact} nearly); leave them out of prompts.uri or of the suite: "
            f"{named}{more}; all in {uri}"
        )


def _named(one: Overlap) -> str:
    return f"{one.prompt} ({'' if one.is_exact else 'nearly '}row {one.row})"
