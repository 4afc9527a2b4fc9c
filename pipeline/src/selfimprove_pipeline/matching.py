"""When a completion equals a gold answer: one rule for the score stage and the suites."""

import unicodedata


def normalized(text: str) -> str:
    """Return a text after NFC with single spaces and none around it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def is_match(completion: str, answer: str) -> bool:
    """Return whether two texts are equal after NFC and white space."""
    return normalized(completion) == normalized(answer)
