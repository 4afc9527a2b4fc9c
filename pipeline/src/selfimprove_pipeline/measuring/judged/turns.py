"""Turns: what a judge thinks of each answer of a conversation, from 0 to 10.

It is MT-Bench's grading of single answers (Zheng et al. 2023, arXiv:2306.05685), with 0 as the
lowest grade. The judge sees the conversation up to the answer, and where there is one a good
answer beside it. An answer in a wrong language has 0 by rule; what is no grade is malformed,
counted, and never guessed. Pure; `tasks.judge` drives it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from selfimprove_pipeline.contract.rows import Evaluated, Grade, Prompt
from selfimprove_pipeline.measuring.intervals import bootstrap
from selfimprove_pipeline.measuring.judged import questions
from selfimprove_pipeline.measuring.judged.questions import MOST_SAID, PLACES, Opinion, Question
from selfimprove_pipeline.text import languages

MAX_TOKENS: Final = 64
GRADE: Final = re.compile(r"<score>\s*(10(?:\.0+)?|\d(?:\.\d+)?)\s*</score>", re.IGNORECASE)
OF_TURNS: Final = ("gradeOfTurn1", "gradeOfTurn2")
"""Measures of the first and of the second answers alone."""
TEMPLATE: Final = """\
A person who understands {language} and no other language has talked with an assistant:

{conversation}

{reference}Grade the assistant's last answer with a number from 0 (worthless to this person) to 10 \
(could not be better), by how helpful, relevant, accurate, deep, creative and detailed it is for \
them. A greater length is no merit. Write the grade and nothing else:
<score>grade</score>"""
ASKED: Final = "<person>\n{}\n</person>"
ANSWERED: Final = "<assistant>\n{}\n</assistant>"
REFERENCE: Final = """\
This would be a good last answer:

<reference>
{}
</reference>

"""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An answer that is to be graded, and what was said before it."""

    id: str
    conversation: str
    """conversation is the id of its first turn."""
    said: tuple[str, ...]
    """said by the person and the assistant in turn; the last one is the answer."""
    reference: str | None
    is_off_target: bool


def turns_of(answers: Sequence[Evaluated], rows: Sequence[Prompt]) -> tuple[Turn, ...]:
    """Return the answers of a suite as turns of their conversations."""
    asked = {row.id: row for row in rows}
    found: dict[str, Turn] = {}
    for row in answers:  # a turn stands behind the one that it follows
        before = found.get(asked[row.id].follows or "")
        found[row.id] = Turn(
            id=row.id,
            conversation=before.conversation if before else row.id,
            said=(*(before.said if before else ()), row.prompt, row.completion),
            reference=asked[row.id].reference,
            is_off_target=row.is_off_target,
        )
    return tuple(found.values())


def by_rule(turn: Turn, language: str) -> Grade | None:
    """Return the grade that needs no judge: that of an answer in a wrong language."""
    if not turn.is_off_target:
        return None
    return Grade(
        id=turn.id,
        conversation=turn.conversation,
        language=language,
        grade=0.0,
        rule="wrongLanguage",
    )


def to_ask(turns: Iterable[Turn], done: Mapping[str, Grade], language: str) -> Iterator[Question]:
    """Yield what is still to be asked."""
    for turn in turns:
        if turn.id not in done:
            yield questions.question(turn.id, PLACES[0], _content(turn, language), MAX_TOKENS)


def counted(opinion: Opinion, turn: Turn, language: str) -> Grade:
    """Return the grade that a judge has given."""
    found = GRADE.search(opinion.text)
    return Grade(
        id=turn.id,
        conversation=turn.conversation,
        language=language,
        grade=float(found[1]) if found else None,
        said=opinion.text.strip()[:MOST_SAID],
        prompt_tokens=opinion.prompt_tokens,
        completion_tokens=opinion.completion_tokens,
    )


def by_conversation(grades: Iterable[Grade]) -> dict[str, float]:
    """Return the mean grade of each conversation, without those of which one is malformed."""
    found: dict[str, list[float | None]] = {}
    for grade in grades:
        found.setdefault(grade.conversation, []).append(grade.grade)
    known = {name: [one for one in own if one is not None] for name, own in found.items()}
    return {
        name: sum(own) / len(own) for name, own in known.items() if len(own) == len(found[name])
    }


def measures(grades: Sequence[Grade]) -> dict[str, float]:
    """Return the mean grade with its interval, and that of each turn; nothing without a grade.

    The interval is the bootstrap's over conversations, as the answers of one are alike.
    """
    whole = by_conversation(grades)
    if not whole:
        return {}
    interval = bootstrap([whole[name] for name in sorted(whole)])
    found = {"grade": _mean(list(whole.values()))}
    found |= {"gradeLow": interval.low, "gradeHigh": interval.high}
    for name, is_later in zip(OF_TURNS, (False, True), strict=True):
        own = [one for one in grades if (one.id != one.conversation) == is_later]
        known = [one.grade for one in own if one.grade is not None]
        found |= {name: _mean(known)} if known else {}
    return found


def counts(grades: Sequence[Grade]) -> dict[str, int]:
    """Return how many answers were graded, by rule or not at all, and what was asked."""
    asked = [one for grade in grades for one in questions.said_of(grade)]
    return {
        "judged": sum(grade.grade is not None for grade in grades),
        "conversations": len(by_conversation(grades)),
        "byRule": sum(grade.rule is not None for grade in grades),
        "malformed": sum(grade.grade is None for grade in grades),
        **questions.cost(asked),
    }


def _content(turn: Turn, language: str) -> str:
    shapes = (ASKED, ANSWERED)
    parts = [shapes[place % 2].format(text) for place, text in enumerate(turn.said)]
    return TEMPLATE.format(
        language=languages.name(language) or language,
        conversation="\n\n".join(parts),
        reference=REFERENCE.format(turn.reference) if turn.reference else "",
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
