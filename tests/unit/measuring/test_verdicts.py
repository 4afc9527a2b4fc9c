"""Verdicts: what is decided by rule, what is asked, and what the ballots amount to."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from selfimprove_pipeline.contract.rows import Verdict
from selfimprove_pipeline.contract.stages import ROWS
from selfimprove_pipeline.measuring.judged import contests as verdicts
from selfimprove_pipeline.measuring.judged.contests import Contest
from selfimprove_pipeline.measuring.judged.questions import Opinion, Question, id_of
from support import judges

CONTESTS = [
    ("a long answer", "short"),
    ("short", "a long answer"),
    ("another long one", "tiny"),
    ("the very same", "the very same"),
    ("as wide", "as high"),
]


def contests(pairs: Sequence[tuple[str, str]] = CONTESTS) -> list[Contest]:
    return [
        Contest(
            id=f"p{number}",
            prompt="Say something.",
            answer=answer,
            is_off_target=False,
            opponent=opponent,
            is_opponent_off_target=False,
        )
        for number, (answer, opponent) in enumerate(pairs)
    ]


def exchanged(found: Sequence[Contest]) -> list[Contest]:
    return [
        replace(
            one,
            answer=one.opponent,
            opponent=one.answer,
            is_off_target=one.is_opponent_off_target,
            is_opponent_off_target=one.is_off_target,
        )
        for one in found
    ]


def opinion(key: str, text: str = "", **first_token: float) -> Opinion:
    return Opinion(
        key=key,
        text=text,
        finish_reason="stop",
        prompt_tokens=7,
        completion_tokens=1,
        first_token=first_token,
    )


Said = Callable[[str, str], Opinion]


def said_by(decide: judges.Decide) -> Said:
    return lambda a, b: opinion("", decide(a, b))


def judged(found: Sequence[Contest], say: Said, positions: str = "both") -> list[Verdict]:
    """Return the verdicts of a judge that is asked until nothing is open."""
    by_id = {one.id: one for one in found}
    ruled = {one.id: verdicts.by_rule(one, "de") for one in found}
    done = {name: verdict for name, verdict in ruled.items() if verdict is not None}
    for question in list(verdicts.to_ask(found, done, positions)):
        name = id_of(question.key)
        answer = replace(say(*texts(question)), key=question.key)
        done[name] = verdicts.counted(answer, by_id[name], "de", done.get(name), positions)
    assert not list(verdicts.to_ask(found, done, positions))
    return [done[one.id] for one in found]


def texts(question: Question) -> tuple[str, str]:
    found = judges.PARTS.search(question.messages[0].content)
    assert found is not None
    return found[2], found[3]


def weighing(a: str, b: str) -> Opinion:
    """Tell by candidates how much longer A is, with a leaning towards the first place."""
    share = min(0.95, 0.2 + 0.7 * len(a) / (len(a) + len(b)))
    return opinion("", "A", A=share, B=1 - share)


@pytest.mark.parametrize("positions", ["both", "random"])
@pytest.mark.parametrize(
    "say",
    [said_by(judges.longer), said_by(judges.first), weighing],
    ids=["the longer one", "the first one", "by candidates"],
)
def test_exchanged_answers_turn_a_win_rate_into_one_minus_it(say: Said, positions: str) -> None:
    """Wins and losses change places, whatever the judge is like and however it is asked."""
    here = verdicts.measures(judged(contests(), say, positions))
    there = verdicts.measures(judged(exchanged(contests()), say, positions))

    assert here["winRate"] == pytest.approx(1 - there["winRate"])
    assert here["lcWinRate"] == pytest.approx(1 - there["lcWinRate"])
    assert here["winRateLow"] == pytest.approx(1 - there["winRateHigh"])
    assert (here["win"], here["tie"], here["lose"]) == (
        there["lose"],
        there["tie"],
        there["win"],
    )


def test_equal_answers_are_ties_without_a_question() -> None:
    """White space at the ends is no difference."""
    same = contests([("one", "one"), ("two\n", " two"), ("", "")])
    rows = judged(same, lambda _, __: pytest.fail("a question was asked"))
    found = verdicts.measures(rows)

    assert (found["winRate"], found["lcWinRate"], found["tie"]) == (0.5, 0.5, 1.0)
    assert {row.rule for row in rows} == {"identical"}
    assert "positionBias" not in found


def test_a_judge_that_prefers_a_place_shows_as_bias_and_not_as_a_win() -> None:
    """In both orders each contradiction is a tie; asked once, the first place shows it."""
    different = contests([(f"answer {n}", f"other {n}") for n in range(40)])
    both = verdicts.measures(judged(different, said_by(judges.first)))
    once = verdicts.measures(judged(different, said_by(judges.first), "random"))

    assert (both["winRate"], both["tie"], both["positionBias"]) == (0.5, 1.0, 1.0)
    assert both["firstPlace"] == once["firstPlace"] == 1.0
    assert 0.25 < once["winRate"] < 0.75
    assert "positionBias" not in once


def test_an_unbiased_judge_shows_no_bias() -> None:
    """The longer text wins in both orders, and half of the ballots are for the first place."""
    rows = judged(contests(CONTESTS[:3]), said_by(judges.longer))
    found = verdicts.measures(rows)

    assert (found["win"], found["lose"], found["winRate"]) == (2 / 3, 1 / 3, 2 / 3)
    assert (found["positionBias"], found["firstPlace"]) == (0.0, 0.5)


RULED = [
    ("the answer is", True, False, 0.0, "wrongLanguage"),
    ("the opponent is", False, True, 1.0, "wrongLanguage"),
    ("both are", True, True, 0.5, "bothWrongLanguage"),
]


@pytest.mark.parametrize(
    ("answer", "opponent", "preference", "rule"),
    [row[1:] for row in RULED],
    ids=[row[0] for row in RULED],
)
def test_what_is_in_the_wrong_language_loses_without_a_question(
    answer: bool, opponent: bool, preference: float, rule: str
) -> None:
    """Two that are wrong tie, also where their texts are equal."""
    (one,) = contests([("text", "text")])
    wrong = replace(one, is_off_target=answer, is_opponent_off_target=opponent)
    (row,) = judged([wrong], lambda _, __: pytest.fail("a question was asked"))

    assert (row.preference, row.rule) == (preference, rule)


READ: list[tuple[str, Mapping[str, float], float | None]] = [
    ("A", {}, 1.0),
    ("B", {}, 0.0),
    (" **B**.", {}, 0.0),
    ("(A)", {}, 1.0),
    ("Answer: B", {}, 0.0),
    ("B\nIt is the longer one.", {}, 0.0),
    ("", {}, None),
    ("C", {}, None),
    ("A or B", {}, None),
    ("A better answer is B", {}, None),
    ("Both are good", {}, None),
    ("AB", {}, None),
    ("B", {"A": 0.6, "B": 0.2}, 0.75),
    ("B", {" A": 0.3, "A": 0.3, "B": 0.4}, 0.6),
    ("A", {"A": 0.9}, 1.0),
    ("The", {"The": 0.9, "A": 0.01}, None),
    ("**B**", {"**": 0.9, "A": 0.05}, 0.0),
]


@pytest.mark.parametrize(
    ("text", "candidates", "preference"), READ, ids=[f"{row[0]!r} {row[1] or ''}" for row in READ]
)
def test_a_ballot_is_read_or_malformed_and_never_guessed(
    text: str, candidates: Mapping[str, float], preference: float | None
) -> None:
    """Candidates count where the letters hold most of the first token, else one letter alone."""
    (one,) = contests([("here", "there")])
    row = verdicts.counted(opinion("first:p0", text, **candidates), one, "de", None, "both")

    assert row.first is not None
    assert row.first.preference == pytest.approx(preference)
    assert row.first.said == text.strip()


def test_a_malformed_ballot_leaves_the_contest_undecided_and_is_counted() -> None:
    """It is in no win rate, and it is not asked for again."""
    rows = judged(contests(CONTESTS[:3]), said_by(lambda a, _: "A" if len(a) > 5 else "hm"))
    found = verdicts.measures(rows)
    counts = verdicts.counts(rows)

    assert found == {}
    assert (counts["judged"], counts["malformed"], counts["questions"]) == (0, 3, 6)
    assert (counts["promptTokens"], counts["completionTokens"]) == (42, 6)


def test_preferences_of_both_orders_are_averaged_where_they_agree() -> None:
    """.9 and .7 for the model's answer make .8."""
    (one,) = contests([("here", "there")])
    half = verdicts.counted(opinion("first:p0", A=0.9, B=0.1), one, "de", None, "both")
    whole = verdicts.counted(opinion("second:p0", A=0.3, B=0.7), one, "de", half, "both")

    assert half.preference is None
    assert whole.preference == pytest.approx(0.8)


def test_a_weighted_contradiction_is_a_tie_as_well() -> None:
    """.9 in the first place and .2 in the second are no preference of .55."""
    (one,) = contests([("here", "there")])
    half = verdicts.counted(opinion("first:p0", A=0.9, B=0.1), one, "de", None, "both")
    whole = verdicts.counted(opinion("second:p0", A=0.8, B=0.2), one, "de", half, "both")

    assert whole.preference == 0.5
    assert verdicts.counts([whole])["contradictions"] == 1


def test_the_interval_is_wilsons() -> None:
    """8 wins of 10: .490 to .943, as in tables of the interval."""
    pairs = [("a long answer", "x")] * 8 + [("x", "a long answer")] * 2
    found = verdicts.measures(judged(contests(pairs), said_by(judges.longer)))

    assert found["winRateLow"] == pytest.approx(0.4902, abs=1e-4)
    assert found["winRateHigh"] == pytest.approx(0.9433, abs=1e-4)
    assert math.isclose(found["winRate"], 0.8)


def test_another_wording_needs_another_version() -> None:
    """The version is in the keys: verdicts on another question are others."""
    digest = hashlib.sha256(verdicts.TEMPLATE.encode()).hexdigest()[:16]

    assert (ROWS["judge"].versions["question"], digest) == ("1", "0b97a25bae385709")
