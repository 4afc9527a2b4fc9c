"""The number that an answer comes to, wherever and however a model writes it.

A box counts first, then what follows "the answer is", then the last number of the text. The
right answer is never consulted: a reading that fits it would flatter the model.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from selfimprove_pipeline.text import numerals
from selfimprove_pipeline.text.numerals import Numeral

_PUBLISHED: Final = re.compile(r"-?(?:[0-9]{1,30}|[0-9]{1,3}(?:,[0-9]{3}){1,9})(?:\.[0-9]{1,30})?")
"""How owners of data sets write an answer, the same in every language."""

_LATEX: Final = (
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"(?<=[0-9])\s*\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "×"),  # noqa: RUF001  the sign
    (re.compile(r"\\div(?![A-Za-z])"), "÷"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;: ]|~"), numerals.NARROW),
    (re.compile(r"\\([$%#&_])"), r"\1"),
    (re.compile(r"(?<=[^\W\d])\^\s*(?:\{-?[0-9]+\}|[0-9])"), ""),
)
"""LaTeX to the text that it shows; the exponent of a unit is no number."""

_MARKDOWN: Final = re.compile(r"\*\*|`|(?<!\w)_+|(?<!_)_++(?!\w)")

_BOX: Final = re.compile(r"\\(?:boxed|fbox)\s*\{")

_ANSWER_IS: Final = re.compile(
    r"(?:####"
    r"|answer(?: is| would be| equals)?"
    r"|antwort(?: ist| lautet| beträgt)?|ergebnis(?: ist| lautet| beträgt)?"
    r"|respuesta(?: final| correcta)?(?: es| sería)?"
    r"|réponse(?: finale| correcte)?(?: est| serait)?"
    r"|ответ(?: равен| будет)?"
    r"|jibu(?: la mwisho| sahihi)?(?: ni)?"
    r"|答案(?:就?是|[为為])?|答えは?|解答は?|答(?=:)"
    r"|คำตอบ(?:สุดท้าย)?(?:คือ)?"
    r"|উত্তর(?:টি)?(?: হল| হলো| হচ্ছে| হবে)?"
    r"|(?:సమాధానం|జవాబు)"
    r")(?:[\s:=*\"'“”„«(\[\\≈—\u202f]|-(?=\s))*+",
    re.IGNORECASE,
)
"""How an answer is announced in the languages of MGSM, up to where the number begins."""

_GOES_ON: Final = re.compile(r"\s*[-+*/×÷x]\s*[$(]?[0-9]")  # noqa: RUF001  the sign
"""After a number: it is the first term of a calculation."""


def extract(text: str, language: str) -> str | None:
    """Return the number of an answer in its canonical form, None when it has none.

    `language` is the one that the text is written in; its convention reads `1.234`.
    """
    readable = _readable(text)
    numbers = tuple(numerals.find(readable, language))
    if not numbers:
        return None
    chosen = _boxed(readable, numbers) or _stated(readable, numbers) or numbers[-1]
    return numerals.canonical(chosen.value)


def of_gold(answer: str, language: str) -> str | None:
    """Return the number of a gold answer: as its owners write it, or at the end of a sentence."""
    text = answer.strip()
    if _PUBLISHED.fullmatch(text):
        return numerals.canonical(Fraction(text.replace(",", "")))
    return extract(text, language)


def _readable(text: str) -> str:
    readable = text
    for pattern, shown in _LATEX:
        readable = pattern.sub(shown, readable)
    return numerals.plain(_MARKDOWN.sub("", readable))


def _boxed(text: str, numbers: Sequence[Numeral]) -> Numeral | None:
    """Return the last number in the last box, None where there is none."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    end = _closing(text, start)
    inside = [number for number in numbers if start <= number.start < end]
    return inside[-1] if inside else None


def _closing(text: str, start: int) -> int:
    """Return where the brace that is open at `start` closes, or the end of a text cut short."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)


def _stated(text: str, numbers: Sequence[Numeral]) -> Numeral | None:
    """Return the number that is last announced as the answer, unless it begins a calculation."""
    by_start = {number.start: number for number in reversed(numbers)}
    for announced in reversed(list(_ANSWER_IS.finditer(text))):
        number = by_start.get(announced.end())
        if number is not None and not _GOES_ON.match(text, number.end):
            return number
    return None
