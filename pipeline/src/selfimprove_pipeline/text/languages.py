"""Language tags, their English names, and which language a text is in.

The only importer of langcodes and lingua. Names go into prompts (`Please translate ... into
Spanish`); identification is limited to the languages of the run, which makes it both faster
and more often right than a choice among all.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import langcodes

if TYPE_CHECKING:
    import lingua

MIN_LETTERS: Final = 20
"""Texts with fewer letters are not judged: too many words are the same in several languages."""

MAX_DISTANCE: Final = 5
"""How far apart two tags of one language are at most in CLDR's measure: `pt` and `pt-XX`."""

Identify = Callable[[str], str | None]
"""Returns the base language of a text, such as `pt`; None where the text is too short to tell."""

_NOT_PROSE: Final = re.compile(r"```.*?```|https?://\S+|</?(?:translated|sentence)>", re.DOTALL)


@cache
def name(tag: str) -> str | None:
    """Return the English name of a BCP-47 tag, such as `Portuguese (Brazil)`, None if unknown."""
    language = langcodes.Language.get(tag)
    if not language.is_valid():
        return None
    return language.display_name()


def base(tag: str) -> str:
    """Return the language of a tag without script and region; texts are told apart by it."""
    return langcodes.Language.get(tag).language or tag


def code_for(tag: str, codes: Iterable[str]) -> str | None:
    """Return the code that a translation model has for a tag, None if it has none.

    Codes are `de`, `deu_Latn` or `de_DE`. Of a macrolanguage it is the standard one, such as
    `swh_Latn` for `sw`, and never one in another script.
    """
    # Models write Korean's script Hang, CLDR has it as Kore, Hangul and Hanja together.
    tags = {code.replace("_", "-").replace("-Hang", "-Kore"): code for code in codes}
    script = _script(tag)
    alike = [known for known in tags if _is_tag(known) and _script(known) == script]
    found, distance = langcodes.closest_match(tag, alike, max_distance=MAX_DISTANCE)
    return tags[found] if distance <= MAX_DISTANCE else None


def identifier(tags: Sequence[str]) -> Identify:
    """Return the identification among the run's languages, by base language.

    With fewer than two languages that lingua knows there is nothing to tell apart, and every
    text gives None.
    """
    known = {found: base(tag) for tag in tags if (found := _lingua_language(tag)) is not None}
    if len(known) < 2:  # noqa: PLR2004  two are the fewest that can be told apart
        return lambda _text: None
    import lingua  # noqa: PLC0415  its import and models cost a second that most commands save

    detector = lingua.LanguageDetectorBuilder.from_languages(*known).build()

    def identify(text: str) -> str | None:
        prose = _NOT_PROSE.sub(" ", text)
        if num_letters(prose) < MIN_LETTERS:
            return None
        found = detector.detect_language_of(prose)
        return None if found is None else known[found]

    return identify


def is_identifiable(tag: str) -> bool:
    """Return whether lingua knows the language of a tag."""
    return _lingua_language(tag) is not None


def num_letters(text: str) -> int:
    """Return the number of letters, marks included: Thai and Hindi write vowels as marks."""
    return sum(unicodedata.category(character)[0] in "LM" for character in text)


def _is_tag(tag: str) -> bool:
    return bool(langcodes.tag_is_valid(tag))


def _script(tag: str) -> str | None:
    return langcodes.Language.get(tag).maximize().script


@cache
def _lingua_language(tag: str) -> "lingua.Language | None":
    import lingua  # noqa: PLC0415  see identifier

    code = base(tag)
    for language in lingua.Language.all():
        if code in (language.iso_code_639_1.name.lower(), language.iso_code_639_3.name.lower()):
            return language
    return None
