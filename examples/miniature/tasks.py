"""The seven kinds of problem and the sentences that ask and answer them in three languages.

A problem is a tuple of positions in the word lists of `words`; its slot 0 chooses between the
wordings of a kind that has two ("strongest" and "least strong"). The right answer is again such
a tuple, so an answer sentence can be made for a wrong result too: the translator is trained on
true and false statements alike. `world` decides which problems go where.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from words import ASKERS, LANGUAGES, RIVALS, THINGS_PER_CATEGORY, WORDS, Language

Slots = tuple[int, ...]
_LARGEST_TERM: Final = 10
_LARGEST: Final = 15
_LARGEST_RESULT: Final = 20
_DAY_COUNT: Final = 7
_OFFSETS: Final = range(2, 5)


@dataclass(frozen=True)
class Problem:
    """One exact problem: the same in every language, told apart by all of its fields."""

    task: str
    asker: int
    slots: Slots

    @property
    def key(self) -> str:
        """The text that splits and ids are hashed from."""
        return f"{self.task}:{self.asker}:{','.join(map(str, self.slots))}"

    @property
    def core(self) -> str:
        """What decides the answer, whoever asks: a number pair, a name pair or a fact."""
        core = TASKS[self.task].core(self.slots)
        return f"{self.task}:{','.join(map(str, core))}"


@dataclass(frozen=True)
class Task:
    """How one kind of problem is drawn, solved and worded."""

    draw: Callable[[Random], Slots]
    solve: Callable[[Slots], Slots]
    draw_result: Callable[[Random], Slots]
    questions: dict[Language, tuple[str, ...]]
    answers: dict[Language, tuple[str, ...]]
    core: Callable[[Slots], Slots] = lambda slots: slots


def _numbers(random: Random) -> Slots:
    return (0, random.randint(1, _LARGEST_TERM), random.randint(1, _LARGEST_TERM))


def _descending(random: Random) -> Slots:
    low, high = sorted(random.sample(range(1, _LARGEST + 1), 2))
    return (0, high, low)


def _day(slots: Slots) -> Slots:
    variant, offset, start = slots
    return (0, (start + (offset if variant == 0 else -offset)) % _DAY_COUNT)


def _parallel(*sentences: tuple[str, str, str]) -> dict[Language, tuple[str, ...]]:
    """Turn one (en, es, de) triple per wording into the wordings of each language."""
    return {language: tuple(s[i] for s in sentences) for i, language in enumerate(LANGUAGES)}


def _three_numbers(random: Random) -> Slots:
    return (0, *random.sample(range(1, _LARGEST + 1), 3))


_STRONGER: Final[dict[Language, str]] = {
    "en": "{rival1} is stronger than {rival2} and {rival2} is stronger than {rival3}.",
    "es": "{rival1} es más fuerte que {rival2} y {rival2} es más fuerte que {rival3}.",
    "de": "{rival1} ist stärker als {rival2} und {rival2} ist stärker als {rival3}.",
}

TASKS: Final[dict[str, Task]] = {
    "add": Task(
        draw=_numbers,
        solve=lambda s: (0, s[1] + s[2]),
        draw_result=lambda random: (0, random.randint(0, _LARGEST_RESULT)),
        questions=_parallel(
            (
                "What is {number1} plus {number2}?",
                "¿Cuánto es {number1} más {number2}?",
                "Was ist {number1} plus {number2}?",
            )
        ),
        answers=_parallel(
            ("The sum is {number1}.", "La suma es {number1}.", "Die Summe ist {number1}.")
        ),
    ),
    "sub": Task(
        draw=_descending,
        solve=lambda s: (0, s[1] - s[2]),
        draw_result=lambda random: (0, random.randint(0, _LARGEST_RESULT)),
        questions=_parallel(
            (
                "What is {number1} minus {number2}?",
                "¿Cuánto es {number1} menos {number2}?",
                "Was ist {number1} minus {number2}?",
            )
        ),
        answers=_parallel(
            (
                "The difference is {number1}.",
                "La diferencia es {number1}.",
                "Die Differenz ist {number1}.",
            )
        ),
    ),
    "compare": Task(
        draw=lambda random: (random.randint(0, 1), *random.sample(range(len(RIVALS)), 3)),
        solve=lambda s: (s[0], s[1] if s[0] == 0 else s[3]),
        draw_result=lambda random: (random.randint(0, 1), random.randrange(len(RIVALS))),
        core=lambda s: (s[1], s[3]),
        questions=_parallel(
            (
                f"{_STRONGER['en']} Who is the strongest?",
                f"{_STRONGER['es']} ¿Quién es la persona más fuerte?",
                f"{_STRONGER['de']} Wer ist am stärksten?",
            ),
            (
                f"{_STRONGER['en']} Who is the least strong?",
                f"{_STRONGER['es']} ¿Quién es la persona menos fuerte?",
                f"{_STRONGER['de']} Wer ist am wenigsten stark?",
            ),
        ),
        answers=_parallel(
            (
                "The strongest person is {rival1}.",
                "La persona más fuerte es {rival1}.",
                "Am stärksten ist {rival1}.",
            ),
            (
                "The least strong person is {rival1}.",
                "La persona menos fuerte es {rival1}.",
                "Am wenigsten stark ist {rival1}.",
            ),
        ),
    ),
    "sort": Task(
        draw=_three_numbers,
        solve=lambda s: (0, *sorted(s[1:])),
        draw_result=_three_numbers,
        core=lambda s: tuple(sorted(s[1:])),
        questions=_parallel(
            (
                "Sort {number1}, {number2} and {number3}, smallest first.",
                "Ordena {number1}, {number2} y {number3}, primero el menor.",
                "Sortiere {number1}, {number2} und {number3}, die kleinste zuerst.",
            )
        ),
        answers=_parallel(
            (
                "The order is {number1}, {number2}, {number3}.",
                "El orden es {number1}, {number2}, {number3}.",
                "Die Reihenfolge ist {number1}, {number2}, {number3}.",
            )
        ),
    ),
    "category": Task(
        draw=lambda random: (0, random.randrange(len(WORDS["thing"]["en"]))),
        solve=lambda s: (0, s[1] // THINGS_PER_CATEGORY),
        draw_result=lambda random: (0, random.randrange(len(WORDS["category"]["en"]))),
        questions=_parallel(
            (
                "What kind of thing is {thing1}?",
                "¿Qué tipo de cosa es {thing1}?",
                "Was für ein Ding ist {thing1}?",
            )
        ),
        answers=_parallel(("It is {category1}.", "Es {category1}.", "Das ist {category1}.")),
    ),
    "opposite": Task(
        draw=lambda random: (0, random.randrange(len(WORDS["adjective"]["en"]))),
        solve=lambda s: (0, s[1] ^ 1),
        draw_result=lambda random: (0, random.randrange(len(WORDS["adjective"]["en"]))),
        questions=_parallel(
            (
                "What is the opposite of {adjective1}?",
                "¿Qué es lo contrario de {adjective1}?",
                "Was ist das Gegenteil von {adjective1}?",
            )
        ),
        answers=_parallel(
            (
                "The opposite is {adjective1}.",
                "Lo contrario es {adjective1}.",
                "Das Gegenteil ist {adjective1}.",
            )
        ),
    ),
    "day": Task(
        draw=lambda random: (
            random.randint(0, 1),
            random.choice(_OFFSETS),
            random.randrange(_DAY_COUNT),
        ),
        solve=_day,
        draw_result=lambda random: (0, random.randrange(_DAY_COUNT)),
        questions=_parallel(
            (
                "What day is {number1} days after {day2}?",
                "¿Qué día es {number1} días después del {day2}?",
                "Welcher Tag ist {number1} Tage nach {day2}?",
            ),
            (
                "What day is {number1} days before {day2}?",
                "¿Qué día es {number1} días antes del {day2}?",
                "Welcher Tag ist {number1} Tage vor {day2}?",
            ),
        ),
        answers=_parallel(("That day is {day1}.", "Ese día es {day1}.", "Dieser Tag ist {day1}.")),
    ),
}

_ASKS: Final[dict[Language, str]] = {"en": "asks", "es": "pregunta", "de": "fragt"}
_SLOT: Final = re.compile(r"\{([a-z]+)(\d)\}")


def _fill(template: str, slots: Slots, *, language: Language) -> str:
    return _SLOT.sub(lambda m: WORDS[m[1]][language][slots[int(m[2])]], template)


def draw_problem(random: Random, *, task: str) -> Problem:
    """Draw one problem of a kind, uniformly over the askers and over the slots."""
    return Problem(task=task, asker=random.randrange(len(ASKERS)), slots=TASKS[task].draw(random))


def question(problem: Problem, *, language: Language) -> str:
    """Word the problem as a prompt, for example "Ana asks: What is two plus three?"."""
    wording = TASKS[problem.task].questions[language][problem.slots[0]]
    asked = _fill(wording, problem.slots, language=language)
    return f"{ASKERS[problem.asker]} {_ASKS[language]}: {asked}"


def statement(task: str, result: Slots, *, language: Language) -> str:
    """Word a result, right or wrong, as the answer sentence of its kind."""
    return _fill(TASKS[task].answers[language][result[0]], result, language=language)


def answer(problem: Problem, *, language: Language) -> str:
    """Word the right answer of a problem."""
    return statement(problem.task, TASKS[problem.task].solve(problem.slots), language=language)
