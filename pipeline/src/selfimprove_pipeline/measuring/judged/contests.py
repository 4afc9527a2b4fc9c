"""Verdicts: which of two answers to a prompt is better, by rule or by a judge's word.

A `Contest` is the model's answer and the one that it is compared with. What needs no judge is
decided here; for the rest `to_ask` says what to ask, and `counted` takes in what was said. A
judge's preference is what it thinks of A against B at its first token, or the letter that it
writes; anything else is malformed, counted, and never guessed. Pure; `tasks.judge` drives it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from selfimprove_pipeline.contract.rows import Ballot, Difficulties, Verdict
from selfimprove_pipeline.measuring.intervals import wilson
from selfimprove_pipeline.measuring.judged import difficulty, length_control, questions
from selfimprove_pipeline.measuring.judged.questions import MOST_SAID, Opinion, Place, Question

MAX_TOKENS: Final = 16
LABEL: Final = re.compile(r"\W*(?:answer\W+)?([AB])\W*", re.IGNORECASE)
LEAST_MASS: Final = 0.5
"""Probability that both letters need together: below it the judge meant to write something else."""
EVEN: Final = 0.5
TEMPLATE: Final = """\
Here are an instruction and two answers to it, A and B.

An answer has to be in the language of the instruction, unless the instruction itself asks for \
another one. Look at what the instruction asks for: which answer is right, complete, clear and of \
use to the person who asked? Neither a greater length nor the first place is a merit.

<instruction>
{prompt}
</instruction>

<answer-A>
{a}
</answer-A>

<answer-B>
{b}
</answer-B>

Which answer is better? Write one letter, A or B, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The model's answer to a prompt and the opponent's."""

    id: str
    prompt: str
    answer: str
    is_off_target: bool
    opponent: str
    is_opponent_off_target: bool


def by_rule(contest: Contest, language: str) -> Verdict | None:
    """Return the verdict that needs no judge: of equal answers, and of one in a wrong language."""
    wrong = (contest.is_off_target, contest.is_opponent_off_target)
    if wrong == (True, True):
        return _verdict(contest, language, EVEN).model_copy(update={"rule": "bothWrongLanguage"})
    if any(wrong):
        preference = 0.0 if contest.is_off_target else 1.0
        found = _verdict(contest, language, preference)
        return found.model_copy(update={"rule": "wrongLanguage"})
    if contest.answer.strip() == contest.opponent.strip():
        return _verdict(contest, language, EVEN).model_copy(update={"rule": "identical"})
    return None


def to_ask(
    contests: Iterable[Contest], done: Mapping[str, Verdict], positions: str
) -> Iterator[Question]:
    """Yield what is still to be asked."""
    for contest in contests:
        verdict = done.get(contest.id)
        for place in places(contest, positions):
            if verdict is None or (verdict.rule is None and getattr(verdict, place) is None):
                yield _question(contest, place)


def places(contest: Contest, positions: str) -> tuple[Place, ...]:
    """Return where the model's answer is to stand, so that an exchanged contest is the same."""
    return questions.places(contest.id, contest.answer, contest.opponent, positions)


def counted(
    opinion: Opinion, contest: Contest, language: str, earlier: Verdict | None, positions: str
) -> Verdict:
    """Return the verdict on a contest with one more ballot."""
    place = questions.place_of(opinion.key)
    verdict = earlier or _verdict(contest, language, None)
    with_ballot = verdict.model_copy(update={place: _ballot(opinion, is_first=place == "first")})
    cast = [getattr(with_ballot, wanted) for wanted in places(contest, positions)]
    return with_ballot.model_copy(update={"preference": _preference(cast)})


def measures(rows: Sequence[Verdict], difficulties: Difficulties | None = None) -> dict[str, float]:
    """Return the win rate with its interval, and the shares of wins, ties and losses.

    They are absent where nothing was decided. A tie counts half. `lcWinRate` is the win rate at
    equal lengths (`length_control`, `difficulty`). `positionBias` is the share of
    contests, asked in both orders, whose two ballots contradict each other; `firstPlace` the share
    of ballots for the answer that stood first, .5 of a judge without bias.
    """
    decided = [row for row in rows if row.preference is not None]
    found = [row.preference for row in decided if row.preference is not None]
    if not found:
        return {}
    total = math.fsum(found)
    rate, interval = total / len(found), wilson(total, len(found))
    shares = {
        "win": _share([value > EVEN for value in found]),
        "tie": _share([value == EVEN for value in found]),
        "lose": _share([value < EVEN for value in found]),
    }
    twice = [row for row in rows if _is_asked_twice(row)]
    bias = {"positionBias": _share([is_contradictory(row) for row in twice])} if twice else {}
    leanings = [leaning for row in rows for leaning in _leanings(row)]
    lean = {"firstPlace": math.fsum(leanings) / len(leanings)} if leanings else {}
    rates = {"winRate": rate, "winRateLow": interval.low, "winRateHigh": interval.high}
    controlled = _at_equal_lengths(decided, found, difficulties)
    even = {} if controlled is None else {"lcWinRate": controlled}
    return {**rates, **even, **shares, **bias, **lean}


def counts(rows: Sequence[Verdict]) -> dict[str, int]:
    """Return how many contests were decided, by rule or not at all, and what was asked."""
    ballots = [ballot for row in rows for ballot in ballots_of(row)]
    return {
        "judged": sum(row.preference is not None for row in rows),
        "byRule": sum(row.rule is not None for row in rows),
        "malformed": sum(ballot.preference is None for ballot in ballots),
        "contradictions": sum(is_contradictory(row) for row in rows),
        **questions.cost(ballots),
    }


def ballots_of(row: Verdict) -> tuple[Ballot, ...]:
    """Return the ballots that a verdict has."""
    return tuple(ballot for ballot in (row.first, row.second) if ballot is not None)


def is_contradictory(row: Verdict) -> bool:
    """Return whether a judge preferred the place and not the answer."""
    if row.first is None or row.second is None:
        return False
    first, second = row.first.preference, row.second.preference
    return first is not None and second is not None and (first - EVEN) * (second - EVEN) < 0


def _at_equal_lengths(
    rows: Sequence[Verdict], preferences: Sequence[float], difficulties: Difficulties | None
) -> float | None:
    lengths = [row.characters - row.opponent_characters for row in rows]
    if difficulties is None:
        return length_control.win_rate(preferences, lengths)
    hardness = [difficulties.by_id[row.id] for row in rows]
    return difficulty.win_rate(preferences, lengths, hardness, difficulties.gamed)


def _verdict(contest: Contest, language: str, preference: float | None) -> Verdict:
    return Verdict(
        id=contest.id,
        language=language,
        preference=preference,
        characters=len(contest.answer),
        opponent_characters=len(contest.opponent),
    )


def _question(contest: Contest, place: Place) -> Question:
    a, b = contest.answer, contest.opponent
    if place == "second":
        a, b = b, a
    content = TEMPLATE.format(prompt=contest.prompt, a=a, b=b)
    return questions.question(contest.id, place, content, MAX_TOKENS)


def _ballot(opinion: Opinion, *, is_first: bool) -> Ballot:
    share = _share_of_a(opinion)
    return Ballot(
        preference=share if share is None or is_first else 1 - share,
        said=opinion.text.strip()[:MOST_SAID],
        prompt_tokens=opinion.prompt_tokens,
        completion_tokens=opinion.completion_tokens,
    )


def _share_of_a(opinion: Opinion) -> float | None:
    """Return the judge's preference for A over B, None where it has told none."""
    mass = {"A": 0.0, "B": 0.0}
    for token, probability in opinion.first_token.items():
        if token.strip() in mass:
            mass[token.strip()] += probability
    both = mass["A"] + mass["B"]
    if both >= LEAST_MASS:
        return mass["A"] / both
    lines = opinion.text.strip().splitlines()
    label = LABEL.fullmatch(lines[0]) if lines else None
    return None if label is None else float(label[1].upper() == "A")


def _preference(cast: Sequence[Ballot | None]) -> float | None:
    """Return the preference of all ballots, a tie where they contradict each other."""
    found = [ballot.preference for ballot in cast if ballot is not None]
    known = [preference for preference in found if preference is not None]
    if len(known) < len(cast):
        return None
    if min(known) < EVEN < max(known):
        return EVEN
    return sum(known) / len(known)


def _is_asked_twice(row: Verdict) -> bool:
    return row.preference is not None and row.first is not None and row.second is not None


def _leanings(row: Verdict) -> Iterator[float]:
    """Yield how far each ballot is for the answer that stood first."""
    if row.first is not None and row.first.preference is not None:
        yield row.first.preference
    if row.second is not None and row.second.preference is not None:
        yield 1 - row.second.preference


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)
