"""When a text is a gold answer: one rule for filters, the score stage and the suites."""

import unicodedata

from selfimprove_pipeline.text import final_answer


def normalized(text: str) -> str:
    """Return a text after NFC with single spaces and none around it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def is_match(completion: str, answer: str) -> bool:
    """Return whether two texts are equal after NFC and white space."""
    return normalized(completion) == normalized(answer)


def is_right(text: str, answer: str, *, language: str, written: str | None = None) -> bool:
    """Return whether a text comes to a prompt's gold answer.

    Numbers are compared where the answer has one, else the texts as they are. `language` is that
    of the prompt and its answer, `written` that of the text, the same if unset.
    """
    number = final_answer.of_gold(answer, language)
    if number is None:
        return is_match(text, answer)
    return final_answer.extract(text, written or language) == number
