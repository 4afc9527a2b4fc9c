"""The reasons for which a candidate does not become a pair, in the order they are tried.

The first reason counts. No reason compares the lengths of chosen and rejected: a wrong
answer is often short, and such a band drops the pairs that teach most.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.contract.recipe.sampling import Pairing
from selfimprove_pipeline.method.pair.candidates import Candidate, Direction, Texts
from selfimprove_pipeline.text import languages
from selfimprove_pipeline.text.languages import Identify
from selfimprove_pipeline.text.matching import is_right, normalized

EQUAL_LINES: Final = 5
MIN_ROWS_FOR_MEDIAN: Final = 20


@dataclass(frozen=True)
class Context:
    """What a filter may read besides the candidate."""

    spec: Spec
    identify: Identify
    medians: Mapping[Direction, float]
    """medians of translation / source length, see `median_ratios`."""


class Filter(NamedTuple):
    """One reason to drop a candidate."""

    reason: str
    is_on: Callable[[Pairing], bool]
    drops: Callable[[Candidate, Context], bool]


def is_unanswered(candidate: Candidate, _: Context) -> bool:
    """Return whether the prompt itself was too long to be answered."""
    own = candidate.preferred if candidate.is_dominant else candidate.dispreferred
    return own is None


def is_untranslated(candidate: Candidate, context: Context) -> bool:
    """Return whether a text that the row needs has not come out of the translation."""
    own_failed = candidate.translation.text is None
    if context.spec.pairing.failed_direction == "dropBoth":
        return own_failed or candidate.opposite.text is None
    return own_failed and candidate.needs_translation


def has_empty_text(candidate: Candidate, _: Context) -> bool:
    """Return whether one of the two texts, or the answer behind the translation, is empty."""
    texts = (candidate.preferred, candidate.dispreferred, candidate.source.completion)
    return any(not (text or "").strip() for text in texts)


def has_truncated_text(candidate: Candidate, _: Context) -> bool:
    """Return whether a text of the row ended at its token limit."""
    reasons = [candidate.own.finish_reason, candidate.source.finish_reason]
    if candidate.needs_translation:
        reasons.append(candidate.translation.finish_reason)
    return "length" in reasons


def is_off_target(candidate: Candidate, context: Context) -> bool:
    """Return whether the chosen text is in another of the run's languages."""
    if candidate.is_about_translation or not languages.is_identifiable(candidate.language):
        return False
    found = context.identify(candidate.preferred or "")
    return found is not None and found != languages.base(candidate.language)


def has_odd_length(candidate: Candidate, context: Context) -> bool:
    """Return whether the translation's length is far from what its direction makes of a source."""
    median = context.medians.get((candidate.partner, candidate.language))
    ratio = _ratio(candidate.source.completion, candidate.translation.text)
    if median is None or ratio is None or not candidate.needs_translation:
        return False
    band = context.spec.pairing.filters.length_ratio_band
    return not band.minimum <= ratio / median <= band.maximum


def is_repetitive(candidate: Candidate, _: Context) -> bool:
    """Return whether the chosen text has five equal lines."""
    text = candidate.preferred or ""
    lines = Counter(line.strip() for line in text.splitlines() if line.strip())
    return max(lines.values(), default=0) >= EQUAL_LINES


def is_wrong(candidate: Candidate, _: Context) -> bool:
    """Return whether the chosen text comes to something else than the prompt's answer."""
    text, answer = candidate.preferred or "", candidate.prompt.answer or ""
    written = candidate.partner if candidate.is_about_translation else candidate.language
    return not is_right(text, answer, language=candidate.language, written=written)


def is_identical(candidate: Candidate, _: Context) -> bool:
    """Return whether both texts are equal after NFC and white space."""
    return normalized(candidate.preferred or "") == normalized(candidate.dispreferred or "")


FILTERS: Final = (
    Filter("noAnswer", lambda _: True, is_unanswered),
    Filter("untranslated", lambda _: True, is_untranslated),
    Filter("empty", lambda pairing: pairing.filters.empty, has_empty_text),
    Filter("truncated", lambda pairing: pairing.filters.truncation, has_truncated_text),
    Filter("offTarget", lambda pairing: pairing.filters.language, is_off_target),
    Filter("lengthRatio", lambda pairing: pairing.filters.length_ratio, has_odd_length),
    Filter("repetition", lambda pairing: pairing.filters.repetition, is_repetitive),
    Filter("wrongAnswer", lambda pairing: pairing.filters.wrong_answer, is_wrong),
    Filter("identical", lambda pairing: pairing.drop_identical, is_identical),
)
"""All filters, in the order they are tried. A new one is a field of `recipe.sampling.Filters`, a
row here and a row of the table in docs/formats.md."""


def reason_to_drop(candidate: Candidate, context: Context) -> str | None:
    """Return why a candidate does not become a pair, None when it does."""
    pairing = context.spec.pairing
    dropping = (f.reason for f in FILTERS if f.is_on(pairing) and f.drops(candidate, context))
    return next(dropping, None)


def is_not_identified(candidate: Candidate, identify: Identify) -> bool:
    """Return whether nothing can be said about the language of the chosen text."""
    if not languages.is_identifiable(candidate.language):
        return True
    return identify(candidate.preferred or "") is None


def median_ratios(texts: Texts) -> dict[Direction, float]:
    """Return the median of translation / source length, in characters, of each direction.

    A direction with fewer than 20 translations has no median, and its lengths no band.
    """
    medians = {}
    for (source, target), rows in texts.translations.items():
        ratios = [
            ratio
            for row in rows.values()
            if (ratio := _ratio(texts.answers[source][row.id].completion, row.text)) is not None
        ]
        if len(ratios) >= MIN_ROWS_FOR_MEDIAN:
            medians[source, target] = statistics.median(ratios)
    return medians


def _ratio(source: str, translation: str | None) -> float | None:
    """Return translation / source length in characters, None where one is empty."""
    if not source or not translation:
        return None
    return len(translation) / len(source)
