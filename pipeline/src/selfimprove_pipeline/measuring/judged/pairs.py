"""Grades: what a judge thinks of both texts of a pair, from 0 to 10.

It is how the `score` stage tells reward accuracy where prompts have no gold answers. A pair is
asked about in one order or in both, and its grades are the means; what is no pair of whole numbers
is malformed, counted, and never guessed. Pure; `tasks.grade_pairs` drives it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from selfimprove_pipeline.contract.rows import Grading, Pair, Score
from selfimprove_pipeline.measuring.judged import questions
from selfimprove_pipeline.measuring.judged.questions import (
    MOST_SAID,
    PLACES,
    Opinion,
    Place,
    Question,
)
from selfimprove_pipeline.text import languages

MAX_TOKENS: Final = 64
GRADES: Final = re.compile(
    r"<score1>\s*(10|\d)\s*</score1>\s*<score2>\s*(10|\d)\s*</score2>", re.IGNORECASE
)

TEMPLATE: Final = """\
A person who understands {language} and no other language has asked this:

<question>
{prompt}
</question>

Two answers were given:

<answer-1>
{a}
</answer-1>

<answer-2>
{b}
</answer-2>

Grade each answer with a whole number from 0 (worthless to this person) to 10 (could not be \
better), by how helpful, relevant, accurate and detailed it is for them. Neither a greater length \
nor the first place is a merit. Write the two grades and nothing else:
<score1>grade of answer 1</score1>
<score2>grade of answer 2</score2>"""


def sampled(pairs: Sequence[Pair], language: str, count: int) -> tuple[Pair, ...]:
    """Return at most `count` pairs of a language, one a prompt, drawn by a digest of their id."""
    own = {pair.id: pair for pair in reversed(pairs) if pair.language == language}
    drawn = sorted(own, key=lambda name: hashlib.sha256(name.encode()).digest())
    return tuple(own[name] for name in drawn[:count])


def to_ask(pairs: Iterable[Pair], done: Mapping[str, Score], positions: str) -> Iterator[Question]:
    """Yield what is still to be asked."""
    for pair in pairs:
        score = done.get(pair.id)
        for place in _places(pair, positions):
            if score is None or getattr(score, place) is None:
                yield _question(pair, place)


def counted(opinion: Opinion, pair: Pair, earlier: Score | None, positions: str) -> Score:
    """Return the scores of a pair with one more answer of the judge."""
    place = questions.place_of(opinion.key)
    score = earlier or Score(
        id=pair.id, language=pair.language, partner=pair.partner, chosen=None, rejected=None
    )
    graded = score.model_copy(update={place: _grading(opinion, is_first=place == "first")})
    given = gradings_of(graded)
    if len(given) < len(_places(pair, positions)):
        return graded
    means = {name: _mean([getattr(one, name) for one in given]) for name in ("chosen", "rejected")}
    return graded.model_copy(update=means)


def counts(scores: Sequence[Score]) -> dict[str, int]:
    """Return what was asked, and how many answers were malformed."""
    found = [one for score in scores for one in gradings_of(score)]
    return {"malformed": sum(one.chosen is None for one in found), **questions.cost(found)}


def measures(scores: Sequence[Score]) -> dict[str, float]:
    """Return the mean grades of chosen and rejected texts, by language, of the graded pairs."""
    found = {}
    for language in sorted({score.language for score in scores}):
        for name in ("chosen", "rejected"):
            own = [getattr(score, name) for score in scores if score.language == language]
            known = [grade for grade in own if grade is not None]
            if known:
                found[f"{name}Grade.{language}"] = sum(known) / len(known)
    return found


def gradings_of(score: Score) -> tuple[Grading, ...]:
    """Return the judge's answers that a pair has."""
    return tuple(one for one in (score.first, score.second) if one is not None)


def _places(pair: Pair, positions: str) -> tuple[Place, ...]:
    return questions.places(pair.id, pair.chosen[-1].content, pair.rejected[-1].content, positions)


def _question(pair: Pair, place: Place) -> Question:
    texts = [pair.chosen[-1].content, pair.rejected[-1].content]
    a, b = texts if place == PLACES[0] else reversed(texts)
    language = languages.name(pair.language) or pair.language
    content = TEMPLATE.format(language=language, prompt=pair.prompt[-1].content, a=a, b=b)
    return questions.question(pair.id, place, content, MAX_TOKENS)


def _grading(opinion: Opinion, *, is_first: bool) -> Grading:
    found = GRADES.search(opinion.text)
    grades = [float(found[1]), float(found[2])] if found else [None, None]
    chosen, rejected = grades if is_first else reversed(grades)
    return Grading(
        chosen=chosen,
        rejected=rejected,
        said=opinion.text.strip()[:MOST_SAID],
        prompt_tokens=opinion.prompt_tokens,
        completion_tokens=opinion.completion_tokens,
    )


def _mean(grades: Sequence[float | None]) -> float | None:
    """Return the mean, None where a grade is malformed."""
    known = [grade for grade in grades if grade is not None]
    return sum(known) / len(known) if len(known) == len(grades) else None
