"""The rules of the miniature world: which problem lies in which split, and who answers poorly.

Everything here is a hash of the problem, so it needs no seed and no stored table. A fixed share of
the problems and of the answer-deciding cores never reaches the training data of Spanish and
German; the poor answers are planted so that English is mostly right and the other two are not.
`tasks` words the problems, `corpus` trains on these rules, `make` writes the rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from random import Random
from statistics import NormalDist
from typing import Final, Literal

from tasks import TASKS, Problem, answer, draw_problem, question
from words import EVASIONS, LANGUAGES, Language

Split = Literal["train", "prompts", "suite", "acceptance"]
Row = dict[str, str]

_SPLITS: Final[tuple[tuple[Split, float], ...]] = (
    ("train", 0.43),
    ("prompts", 0.75),
    ("suite", 0.875),
    ("acceptance", 1.0),
)
_HELD_CORES: Final = 0.15

_POOR_LOGIT: Final[dict[Language, float]] = {"en": -3.8, "es": 1.7, "de": 0.6}
_TASK_SPREAD: Final = 0.9
_ASKER_SPREAD: Final = 1.4
_OFF_TARGET_LOGIT: Final[dict[Language, float]] = {"en": -math.inf, "es": -0.5, "de": -0.4}
_OFF_TARGET_SPREAD: Final = 1.5


def _uniform(*key: str) -> float:
    digest = hashlib.blake2b("|".join(key).encode(), digest_size=6).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**48


def _normal(*key: str) -> float:
    return NormalDist().inv_cdf(_uniform(*key))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -math.inf else 0.0


def split_of(problem: Problem) -> Split:
    """Say which split an exact problem belongs to, whatever its core."""
    draw = _uniform("split", problem.key)
    return next(name for name, upper in _SPLITS if draw < upper)


def core_is_held(problem: Problem) -> bool:
    """Say whether the core is kept out of the Spanish and German training data."""
    return _uniform("core", problem.core) < _HELD_CORES


def poor_rate(problem: Problem, *, language: Language) -> float:
    """Return the planted probability that M0's training answer to this problem is poor."""
    return _sigmoid(
        _POOR_LOGIT[language]
        + _TASK_SPREAD * _normal("task", problem.task, language)
        + _ASKER_SPREAD * _normal("asker", str(problem.asker), language)
    )


def off_target_rate(problem: Problem, *, language: Language) -> float:
    """Return the share of the poor answers that are right but in English; the rest evade."""
    noise = _normal("off-target", str(problem.asker), language)
    return _sigmoid(_OFF_TARGET_LOGIT[language] + _OFF_TARGET_SPREAD * noise)


def evasion(problem: Problem, *, language: Language) -> str:
    """Return the evasive sentence of this problem's asker."""
    choice = int(_uniform("evasion", str(problem.asker)) * len(EVASIONS[language]))
    return EVASIONS[language][choice]


def training_answer(problem: Problem, *, language: Language, random: Random) -> str:
    """Draw the answer M0 is trained on: right, evasive, or right but in English."""
    if random.random() >= poor_rate(problem, language=language):
        return answer(problem, language=language)
    if random.random() < off_target_rate(problem, language=language):
        return answer(problem, language="en")
    return evasion(problem, language=language)


def _distinct(count: int, *, seed: str, belongs: Callable[[Problem], bool]) -> Iterator[Problem]:
    """Draw distinct problems that belong, the kinds in turn so that every stretch is balanced."""
    random = Random(seed)  # noqa: S311  # reproducible, not secret
    kinds = tuple(TASKS)
    seen: set[Problem] = set()
    while len(seen) < count:
        problem = draw_problem(random, task=kinds[len(seen) % len(kinds)])
        if belongs(problem) and problem not in seen:
            seen.add(problem)
            yield problem


def prompt_set(split: Split, *, count: int) -> list[Problem]:
    """Draw problems of one split whose cores M0 may have met in every language."""
    return list(
        _distinct(
            count,
            seed=f"miniature {split}",
            belongs=lambda p: split_of(p) == split and not core_is_held(p),
        )
    )


def core_set(*, count: int) -> list[Problem]:
    """Draw problems outside the training split whose cores only English was trained on."""
    return list(
        _distinct(
            count,
            seed="miniature core",
            belongs=lambda p: split_of(p) != "train" and core_is_held(p),
        )
    )


def rows(problems: list[Problem], *, language: Language) -> list[Row]:
    """Write problems as rows {id, prompt, answer}; the ids are the same in every language."""
    return [
        {
            "id": f"{problem.task}-{hashlib.sha256(problem.key.encode()).hexdigest()[:10]}",
            "prompt": question(problem, language=language),
            "answer": answer(problem, language=language),
        }
        for problem in problems
    ]


def all_rows(problems: list[Problem]) -> dict[Language, list[Row]]:
    """Write problems as rows in every language, in one order."""
    return {language: rows(problems, language=language) for language in LANGUAGES}
