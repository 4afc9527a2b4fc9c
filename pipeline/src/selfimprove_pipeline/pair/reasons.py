"""The reasons for which a candidate does not become a pair, in the order they are tried.

The first reason counts. No reason compares the lengths of chosen and rejected: a wrong
answer is often short, and such a band drops the pairs that teach most.
"""

import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

from selfimprove_pipeline import languages
from selfimprove_pipeline.languages import Identify
from selfimprove_pipeline.matching import is_right, normalized
from selfimprove_pipeline.pair.candidates import Candidate, Direction, Texts
from selfimprove_pipeline.recipe import Spec

Reason = Literal[
    "noAnswer",
    "untranslated",
    "empty",
    "truncated",
    "offTarget",
    "lengthRatio",
    "repetition",
    "wrongAnswer",
    "identical",
]

EQUAL_LINES: Final = 5
MIN_ROWS_FOR_MEDIAN: Final = 20


def reason_to_drop(
    candidate: Candidate, spec: Spec, identify: Identify, medians: Mapping[Direction, float]
) -> Reason | None:
    """Return why a candidate does not become a pair, None when it does."""
    filters = spec.pairing.filters
    if is_unanswered(candidate):
        return "noAnswer"
    if is_untranslated(candidate, spec):
        return "untranslated"
    if filters.empty and has_empty_text(candidate):
        return "empty"
    if filters.truncation and has_truncated_text(candidate):
        return "truncated"
    if filters.language and is_off_target(candidate, identify):
        return "offTarget"
    if filters.length_ratio and has_odd_length(candidate, spec, medians):
        return "lengthRatio"
    if filters.repetition and is_repetitive(candidate.preferred or ""):
        return "repetition"
    if filters.wrong_answer and is_wrong(candidate):
        return "wrongAnswer"
    if spec.pairing.drop_identical and is_identical(candidate):
        return "identical"
    return None


def is_unanswered(candidate: Candidate) -> bool:
    """Return whether the prompt itself was too long to be answered."""
    own = candidate.preferred if candidate.is_dominant else candidate.dispreferred
    return own is None


def is_untranslated(candidate: Candidate, spec: Spec) -> bool:
    """Return whether a text that the row needs has not come out of the translation."""
    own_failed = candidate.translation.text is None
    if spec.pairing.failed_direction == "dropBoth":
        return own_failed or candidate.opposite.text is None
    return own_failed and candidate.needs_translation


def has_empty_text(candidate: Candidate) -> bool:
    """Return whether one of the two texts, or the answer behind the translation, is empty."""
    texts = (candidate.preferred, candidate.dispreferred, candidate.source.completion)
    return any(not (text or "").strip() for text in texts)


def has_truncated_text(candidate: Candidate) -> bool:
    """Return whether a text of the row ended at its token limit."""
    reasons = [candidate.own.finish_reason, candidate.source.finish_reason]
    if candidate.needs_translation:
        reasons.append(candidate.translation.finish_reason)
    return "length" in reasons


def is_off_target(candidate: Candidate, identify: Identify) -> bool:
    """Return whether the chosen text is in another of the run's languages."""
    if candidate.is_about_translation or not languages.is_identifiable(candidate.language):
        return False
    found = identify(candidate.preferred or "")
    return found is not None and found != languages.base(candidate.language)


def is_not_identified(candidate: Candidate, identify: Identify) -> bool:
    """Return whether nothing can be said about the language of the chosen text."""
    if not languages.is_identifiable(candidate.language):
        return True
    return identify(candidate.preferred or "") is None


def has_odd_length(candidate: Candidate, spec: Spec, medians: Mapping[Direction, float]) -> bool:
    """Return whether the translation's length is far from what its direction makes of a source."""
    median = medians.get((candidate.partner, candidate.language))
    ratio = _ratio(candidate.source.completion, candidate.translation.text)
    if median is None or ratio is None or not candidate.needs_translation:
        return False
    band = spec.pairing.filters.length_ratio_band
    return not band.minimum <= ratio / median <= band.maximum


def is_repetitive(text: str) -> bool:
    """Return whether a text has five equal lines."""
    lines = Counter(line.strip() for line in text.splitlines() if line.strip())
    return max(lines.values(), default=0) >= EQUAL_LINES


def is_wrong(candidate: Candidate) -> bool:
    """Return whether the chosen text comes to something else than the prompt's answer."""
    text, answer = candidate.preferred or "", candidate.prompt.answer or ""
    written = candidate.partner if candidate.is_about_translation else candidate.language
    return not is_right(text, answer, language=candidate.language, written=written)


def is_identical(candidate: Candidate) -> bool:
    """Return whether both texts are equal after NFC and white space."""
    return normalized(candidate.preferred or "") == normalized(candidate.dispreferred or "")


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
