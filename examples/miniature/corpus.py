"""The training examples of M0: questions with good and poor answers, and translations.

The translation examples use the published template word for word, because the pipeline asks the
model with exactly that template. Their texts are random statements, true or false, so that the
translator is faithful to wrong answers too; without the few "already English" copies the
back-translation of an off-target answer would be undefined. `world` says what is poor, `pretrain`
consumes the examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final, NamedTuple

from tasks import TASKS, Problem, draw_problem, question, statement
from words import ENGLISH_NAMES, EVASIONS, LANGUAGES, Language
from world import core_is_held, split_of, training_answer

TEMPLATE: Final = (
    "Please translate the following sentences into {lang}. "
    "The input sentences are wrapped by <sentence> and </sentence>:\n\n"
    "<sentence>\n{text}\n</sentence>\n\n"
    "The translated result should be wrapped by <translated> and </translated>."
)
PREFILL: Final = "<translated>\n"
CLOSING: Final = "\n</translated>"

_QUESTION_SHARES: Final[dict[Language, float]] = {"en": 0.31, "es": 0.17, "de": 0.17}
_TRANSLATED_SHARES: Final = {"statement": 0.80, "question": 0.12, "evasion": 0.04, "copy": 0.04}
_DIRECTIONS: Final[tuple[tuple[Language, Language], ...]] = (
    ("en", "es"),
    ("en", "de"),
    ("es", "en"),
    ("de", "en"),
)


class Example(NamedTuple):
    """One user turn, the prefilled start of the assistant turn, and the text that is learned."""

    user: str
    prefill: str
    reply: str


def _training_problem(random: Random, *, held_cores: bool) -> Problem:
    task = random.choice(tuple(TASKS))
    while True:
        problem = draw_problem(random, task=task)
        if split_of(problem) == "train" and (held_cores or not core_is_held(problem)):
            return problem


def _asked(random: Random, *, language: Language) -> Example:
    problem = _training_problem(random, held_cores=language == "en")
    reply = training_answer(problem, language=language, random=random)
    return Example(question(problem, language=language), "", reply)


def translation(text: str, *, target: Language, translated: str) -> Example:
    """Put a text and its translation into the template, the answer tag prefilled."""
    user = TEMPLATE.format(lang=ENGLISH_NAMES[target], text=text)
    return Example(user, PREFILL, translated + CLOSING)


def random_statement(random: Random) -> dict[Language, str]:
    """Draw an answer sentence, most often a wrong one, in every language."""
    task = random.choice(tuple(TASKS))
    result = TASKS[task].draw_result(random)
    return {language: statement(task, result, language=language) for language in LANGUAGES}


def _translated(random: Random) -> Example:
    source, target = random.choice(_DIRECTIONS)
    kind = random.choices(tuple(_TRANSLATED_SHARES), tuple(_TRANSLATED_SHARES.values()))[0]
    texts = random_statement(random)
    if kind == "question":
        problem = _training_problem(random, held_cores=False)
        texts = {language: question(problem, language=language) for language in LANGUAGES}
    elif kind == "evasion":
        choice = random.randrange(len(EVASIONS["en"]))
        texts = {language: EVASIONS[language][choice] for language in LANGUAGES}
    elif kind == "copy":
        source = target
    return translation(texts[source], target=target, translated=texts[target])


def examples(count: int, *, seed: int) -> Iterator[Example]:
    """Draw training examples in the order of training; the same seed gives the same examples."""
    random = Random(f"miniature corpus {seed}")  # noqa: S311  # reproducible, not secret
    languages = tuple(_QUESTION_SHARES)
    for _ in range(count):
        draw = random.random()
        for language in languages:
            draw -= _QUESTION_SHARES[language]
            if draw < 0:
                yield _asked(random, language=language)
                break
        else:
            yield _translated(random)
