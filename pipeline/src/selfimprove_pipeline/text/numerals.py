"""Numbers as people write them: digits of every script, and marks that differ by language.

A point is the decimal mark of Thai and a thousands mark of German. Where the digits around a
mark leave both readings open, the language's convention decides, and nothing else does.
`final_answer` chooses among the numbers that are found here. Pure; the standard library only.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Final

DECIMAL_COMMA: Final = re.compile(
    "(?:af|az|be|bg|bs|ca|cs|da|de|el|es|et|eu|fi|fr|gl|hr|hu|hy|id|is|it|ka|kk|lt|lv|mk|nb|nl|nn"
    "|no|pl|pt|ro|ru|sk|sl|sq|sr|sv|tr|uk|uz|vi)(?:-.*)?"
)
"""Languages with a decimal comma, after Unicode's CLDR. In them a plain space groups too."""

DECIMAL_POINT: Final = re.compile(
    "(?:de-CH|de-LI|es-(?:419|DO|GT|HN|MX|NI|PA|PE|PR|SV|US)|it-CH)",
)
"""Where the same languages have a decimal point, after CLDR."""

MOST_DIGITS: Final = 30
"""Longer runs of digits are what a model repeats, and no quantities."""

NARROW: Final = "\u202f"
"""Stands for every space that does not break: between digits it groups in every language."""

ARABIC_DECIMAL: Final = "\N{ARABIC DECIMAL SEPARATOR}"

_PLAIN: Final = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u2006\u2007\u2008\u2009\u200a", NARROW),
        **dict.fromkeys("\N{MINUS SIGN}\u2010\u2011\N{EN DASH}\uff0d", "-"),
        **dict.fromkeys("\u2018\u2019\u02bc\uff07\N{ARABIC THOUSANDS SEPARATOR}", "'"),
        **dict.fromkeys("\N{FRACTION SLASH}\N{DIVISION SLASH}\uff0f", "/"),
        **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u061c\u2060\u2066\u2067\u2068\u2069", ""),
        **{chr(0xFEE0 + ord(mark)): mark for mark in "#$%()*+,.:=^"},
        "\u3000": " ",
    }
)
"""Full-width and typographic forms to the plain ones; marks of direction and joiners to none."""

_CURRENCY: Final = "$€£¥₹৳฿₽"
_CODE: Final = re.compile(
    r"(?<![^\W\d_])(?:US|USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|RUB|THB|BDT|KES|TZS|R[Ss]|Tk|[KT]?[Ss][Hh])"
    rf"\.?[ {NARROW}]?(?=-?[0-9])"
)
"""Letters that stand for a currency directly before its number."""

_TOKEN: Final = rf"[0-9]++(?:[.,' {NARROW}{ARABIC_DECIMAL}][0-9]++)*+"
_UNIT: Final = r"(?:[万萬億亿]|千(?![克米卡瓦]))"
_UNITS: Final = {"千": 10**3, "万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8}
_NUMERAL: Final = re.compile(
    rf"(?P<minus>-)?(?:(?P<before>[{_CURRENCY}])(?P<inner>-)?[ {NARROW}]?)?"
    r"(?<![0-9A-Za-z\u00c0-\u024f\u0370-\u052f_])(?:"
    r"(?:(?P<whole>[0-9]++) +)?(?<![0-9]/)(?P<over>[0-9]++) ?/ ?(?P<under>[0-9]++)(?![/.,][0-9])"
    r"|(?:(?P<count>[0-9]++) ?)?(?P<vulgar>[\u00bc-\u00be\u2150-\u215e])"
    rf"|(?P<myriads>(?:{_TOKEN} ?{_UNIT})++(?:{_TOKEN})?)"
    rf"|(?P<token>{_TOKEN})"
    rf"|(?<![.,])(?P<point>[.{ARABIC_DECIMAL}][0-9]++)"
    rf")(?P<after>[ {NARROW}]?[{_CURRENCY}](?![0-9]))?+"
)


@dataclass(frozen=True)
class Numeral:
    """One number and where it stands, sign and currency mark included."""

    value: Fraction
    start: int
    end: int


def plain(text: str) -> str:
    """Return a text with ASCII digits and marks, the form in which `find` reads it."""
    text = unicodedata.normalize("NFC", text).translate(_PLAIN)
    text = re.sub(r"\d", lambda digit: str(int(digit[0])), text)
    return _CODE.sub("$", text)


def find(text: str, language: str) -> Iterator[Numeral]:
    """Yield the numbers of a plain text in their order, read as a language writes them."""
    has_comma = _has_decimal_comma(language)
    for found in _NUMERAL.finditer(text):
        sign = -1 if _is_negative(text, found) else 1
        for value in _values(found, has_comma=has_comma):
            yield Numeral(sign * value, found.start(), found.end())


def canonical(value: Fraction) -> str:
    """Return the one spelling of a number: `18`, `-0.5`, and `1/3` where no decimals end."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1 or value.denominator == 1:
        return str(value)
    places = next(number for number in count(1) if 10**number % value.denominator == 0)
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _has_decimal_comma(language: str) -> bool:
    return bool(DECIMAL_COMMA.fullmatch(language)) and not DECIMAL_POINT.fullmatch(language)


def _is_negative(text: str, found: re.Match[str]) -> bool:
    """Return whether a minus is a sign: between two terms it subtracts, after a letter it joins."""
    if found["inner"]:
        return True
    if not found["minus"]:
        return False
    before = text[max(0, found.start() - 8) : found.start()]
    nearest = before.rstrip(f" {NARROW}")[-1:]
    return not (before[-1:].isalnum() or nearest.isdigit() or nearest in tuple(")]}%"))


def _values(found: re.Match[str], *, has_comma: bool) -> list[Fraction]:
    """Return what a match says: one number, or several where its marks only part them."""
    # A mark on both sides is LaTeX's mathematics, not money.
    is_money = bool(found["before"]) != bool(found["after"])
    if found["over"]:
        return _fraction(found["whole"], found["over"], found["under"])
    if found["vulgar"]:
        part = Fraction(unicodedata.numeric(found["vulgar"])).limit_denominator(10)
        return [value + part for value in _integers(found["count"] or "0")]
    if found["point"]:
        digits = found["point"][1:MOST_DIGITS]
        return [Fraction(int(digits), 10 ** len(digits))]
    if found["myriads"]:
        return _myriads(found["myriads"], has_comma=has_comma)
    return _token(found["token"], has_comma=has_comma, is_money=is_money)


def _fraction(whole: str | None, over: str, under: str) -> list[Fraction]:
    """Return `3/4` and `2 1/2` as one number each, anything else as the numbers in it."""
    parts = [value for text in (whole, over, under) if text for value in _integers(text)]
    *before, upper, lower = parts if len(parts) > 1 else [*parts, Fraction(0)]
    if not lower or upper.denominator != 1:
        return parts
    if before and upper < lower:
        return [before[0] + upper / lower]
    return [*before, upper / lower]


def _myriads(text: str, *, has_comma: bool) -> list[Fraction]:
    """Return the sum of `7万5千` and the like."""
    total = Fraction(0)
    for digits, unit in re.findall(rf"({_TOKEN}) ?({_UNIT})?", text):
        values = _token(digits, has_comma=has_comma, is_money=False)
        if len(values) != 1:
            return values
        total += values[0] * _UNITS.get(unit, 1)
    return [total]


def _token(token: str, *, has_comma: bool, is_money: bool) -> list[Fraction]:
    """Return the number that digits and marks are, or the numbers that the marks part."""
    if " " in token and not has_comma:
        return _each(token.split(" "), has_comma=has_comma, is_money=is_money)
    groups, marks = re.split(r"[^0-9]", token), re.findall(r"[^0-9]", token)
    has_decimals = bool(marks) and _ends_in_decimals(
        groups, marks, has_comma=has_comma, is_money=is_money
    )
    decimals = groups.pop() if has_decimals else ""
    if has_decimals:
        marks.pop()
    if len(set(marks)) <= 1 and _are_groups(groups):
        scale = 10 ** len(decimals[:MOST_DIGITS])
        return [
            value + Fraction(int(decimals[:MOST_DIGITS] or "0"), scale)
            for value in _integers("".join(groups))
        ]
    if " " in token:
        return _each(token.split(" "), has_comma=has_comma, is_money=is_money)
    return [value for part in re.split(r"[^0-9]", token) for value in _integers(part)]


def _each(parts: list[str], *, has_comma: bool, is_money: bool) -> list[Fraction]:
    return [
        value for part in parts for value in _token(part, has_comma=has_comma, is_money=is_money)
    ]


def _ends_in_decimals(
    groups: list[str], marks: list[str], *, has_comma: bool, is_money: bool
) -> bool:
    """Return whether the last mark is the decimal one."""
    last, earlier = marks[-1], marks[:-1]
    if last == ARABIC_DECIMAL:
        return True
    if last not in ".," or last in earlier:
        return False
    if earlier or not _are_groups(groups):
        return True
    # Both readings are open: `1.234`. Money has two decimals, or in a language's way none.
    return not is_money and (last == ",") == has_comma


def _are_groups(groups: list[str]) -> bool:
    """Return whether digits are grouped by thousands, or in the Indian way by lakhs."""
    first, *rest = groups
    if not rest:
        return True
    if first.startswith("0") or len(rest[-1]) != 3:  # noqa: PLR2004  three digits to a thousand
        return False
    widths = {len(group) for group in rest[:-1]}
    return (widths <= {3} and len(first) <= 3) or (widths == {2} and len(first) <= 2)  # noqa: PLR2004


def _integers(digits: str) -> list[Fraction]:
    return [Fraction(int(digits))] if len(digits) <= MOST_DIGITS else []
