"""MT-Bench: questions of two turns, from their owners' file to the grades of a judge."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Suite
from selfimprove_pipeline.contract.rows import Evaluated, Grade, Message, Prompt
from selfimprove_pipeline.inputs import prompts, suites
from selfimprove_pipeline.inputs.suites import mt_bench
from selfimprove_pipeline.measuring.answers import request
from selfimprove_pipeline.measuring.judged import turns
from selfimprove_pipeline.measuring.judged.questions import Opinion
from selfimprove_pipeline.measuring.judged.turns import Turn
from selfimprove_pipeline.method import conversation
from selfimprove_pipeline.method.rendering import Renderer
from support.runs import run

QUESTION = {"question_id": 81, "category": "writing", "turns": ["Write a line.", "Now in rhyme."]}
MATHS = {
    "question_id": 111,
    "category": "math",
    "turns": ["2 + 2?", "And doubled?"],
    "reference": ["4", "8"],
}


def read(lines: str, languages: tuple[str, ...] = ("en",)) -> Mapping[str, tuple[Prompt, ...]]:
    files = {f"s3://eval/mt/{language}.jsonl": lines.encode() for language in languages}
    return mt_bench.read("s3://eval/mt/", languages, files.get)


def jsonl(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def evaluated(row: Prompt, text: str, *, is_off_target: bool = False) -> Evaluated:
    return Evaluated(
        id=row.id,
        language="de",
        prompt=row.prompt,
        completion=text,
        finish_reason="stop",
        completion_tokens=1,
        score=None,
        identified=None,
        is_off_target=is_off_target,
        is_empty=not text,
        is_evasive=False,
    )


def graded(turn: Turn, text: str) -> Grade:
    """Return the grade of a judge that says a text."""
    (question,) = turns.to_ask([turn], {}, "de")
    opinion = Opinion(
        key=question.key,
        text=text,
        finish_reason="stop",
        prompt_tokens=9,
        completion_tokens=4,
        first_token={},
    )
    return turns.counted(opinion, turn, "de")


def grade(name: str, value: float | None, conversation: str = "") -> Grade:
    return Grade(
        id=name, conversation=conversation or name, language="de", grade=value, said="", rule=None
    )


def test_a_question_is_two_rows_of_one_conversation() -> None:
    """FastChat's rows become prompts; the good answers of a question stand with its turns."""
    rows = read(jsonl(QUESTION, MATHS))["en"]
    assert rows == (
        Prompt(id="81", prompt="Write a line."),
        Prompt(id="81/2", prompt="Now in rhyme.", follows="81"),
        Prompt(id="111", prompt="2 + 2?", reference="4"),
        Prompt(id="111/2", prompt="And doubled?", follows="111", reference="8"),
    )


def test_a_question_may_have_the_number_0() -> None:
    """Which is a number like any other."""
    assert [row.id for row in read(jsonl({**QUESTION, "question_id": 0}))["en"]] == ["0", "0/2"]


def test_a_limit_counts_questions_and_not_turns() -> None:
    """A first turn never stands without its second one."""
    rows = read(jsonl(QUESTION, MATHS))["en"]
    assert [row.id for row in suites.first(rows, 1)] == ["81", "81/2"]
    assert suites.first(rows, None) == rows


def test_a_good_answer_is_a_matter_of_the_judge_alone() -> None:
    """Another one makes other grades of the same answers."""
    suite = Suite(name="mtBench", uri="s3://eval/mt")
    other = {**MATHS, "reference": ["4", "9"]}
    rows = [read(jsonl(row))["en"] for row in (MATHS, other)]
    assert len({suites.digest(suite, found) for found in rows}) == 1
    assert len({prompts.reference_digest(found) for found in rows}) == 2


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "en.jsonl:1: expected one JSON object a line, found a fault"),
        (jsonl({"turns": ["a", "b"]}), "expected question_id to be a number or text, found null"),
        (jsonl({**QUESTION, "question_id": ""}), 'a number or text, found ""'),
        (jsonl({**QUESTION, "question_id": False}), "a number or text, found false"),
        (jsonl({**QUESTION, "turns": ["a"]}), "expected turns to be 2 texts, found a list of 1"),
        (jsonl({**QUESTION, "turns": ["a", " "]}), "expected turns to be 2 texts"),
        (jsonl({**QUESTION, "turns": "ab"}), 'expected turns to be 2 texts, found "ab"'),
        (jsonl({**MATHS, "reference": ["4"]}), "expected reference to be 2 texts"),
        (jsonl(QUESTION, QUESTION), "en.jsonl:2: expected each question_id once, found 81 again"),
        (jsonl(QUESTION, {**QUESTION, "question_id": "81/2"}), "once, found 81/2 again"),
    ],
)
def test_each_mistake_in_a_file_is_told_with_its_line(line: str, complaint: str) -> None:
    """Nothing is evaluated of a file with a mistake."""
    with pytest.raises(InputError) as error:
        read(line)
    assert complaint in str(error.value)


def test_languages_need_the_same_questions() -> None:
    """A language without a file, and one with other questions, are mistakes."""
    with pytest.raises(InputError, match=r"de\.jsonl: expected one file a language, found none"):
        mt_bench.read("s3://m", ["en", "de"], {"s3://m/en.jsonl": jsonl(QUESTION).encode()}.get)
    files = {"s3://m/en.jsonl": jsonl(QUESTION, MATHS), "s3://m/de.jsonl": jsonl(QUESTION)}
    encoded = {name: text.encode() for name, text in files.items()}
    with pytest.raises(InputError, match=r"without 2 of them, such as 111"):
        mt_bench.read("s3://m", ["en", "de"], encoded.get)


class Written:
    """A renderer that keeps the conversations that it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Message, ...]] = []

    def prompt_ids(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        self.seen.append(tuple(messages))
        return (len(self.seen),)


@pytest.mark.parametrize("baseline", [None, "languageInstruction"])
def test_the_second_turn_sees_the_models_own_first_answer(baseline: str | None) -> None:
    """The baseline's request to answer in the language stands in both turns of the person."""
    rows = read(jsonl(QUESTION))["en"]
    spec = run(chat__systemPrompt="Be brief.").spec
    suite, renderer = Suite(name="mtBench", uri="s3://eval/mt"), Written()
    first = evaluated(rows[0], "Roses are red.")
    like = cast("Renderer", renderer)
    request(rows[1], "de", suite, spec, like, baseline=baseline, before=first)
    (messages,) = renderer.seen
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    put: Callable[[str], str] = lambda text: (  # noqa: E731  two lines of one expression
        conversation.with_language_instruction(text, "de") if baseline else text
    )
    said = [message.content for message in messages[1:]]
    assert said == [put("Write a line."), "Roses are red.", put("Now in rhyme.")]


def test_a_judge_sees_the_conversation_up_to_the_answer() -> None:
    """And the good answer to this turn, where there is one."""
    rows = read(jsonl(MATHS))["en"]
    first, second = turns.turns_of([evaluated(rows[0], "four"), evaluated(rows[1], "eight")], rows)
    asked = [question.messages[0].content for question in turns.to_ask([first, second], {}, "de")]

    assert "German" in asked[0]
    spoken = [re.findall(r"<(person|assistant)>\n(.*)\n</", text) for text in asked]
    assert spoken[0] == [("person", "2 + 2?"), ("assistant", "four")]
    assert spoken[1] == [*spoken[0], ("person", "And doubled?"), ("assistant", "eight")]
    good = [re.findall(r"<reference>\n(.*)\n</reference>", text) for text in asked]
    assert good == [["4"], ["8"]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<score>7</score>", 7.0),
        ("I would say <SCORE> 10 </SCORE>.", 10.0),
        ("<score>7.5</score>", 7.5),
        ("<score>0</score>", 0.0),
        ("<score>11</score>", None),
        ("<score>-1</score>", None),
        ("seven", None),
        ("7", None),
        ("", None),
    ],
)
def test_only_a_number_in_its_place_is_a_grade(text: str, value: float | None) -> None:
    """What is none is malformed; nothing is guessed, and nothing is asked again."""
    turn = Turn(id="81", conversation="81", said=("?", "!"), reference=None, is_off_target=False)
    found = graded(turn, text)
    assert found.grade == value
    assert found.prompt_tokens == 9
    assert not list(turns.to_ask([turn], {"81": found}, "de"))
    assert turns.counts([found])["malformed"] == (value is None)


def test_an_answer_in_a_wrong_language_has_0_without_a_question() -> None:
    """The rule decides, and costs nothing."""
    rows = read(jsonl(QUESTION))["en"]
    answers = [evaluated(rows[0], "Nein.", is_off_target=True), evaluated(rows[1], "ja")]
    first, second = turns.turns_of(answers, rows)
    ruled = turns.by_rule(first, "de")
    assert ruled is not None
    assert (ruled.grade, ruled.rule) == (0.0, "wrongLanguage")
    assert turns.by_rule(second, "de") is None
    counts = turns.counts([ruled, graded(second, "<score>6</score>")])
    assert counts == {
        "judged": 2,
        "conversations": 1,
        "byRule": 1,
        "malformed": 0,
        "questions": 1,
        "promptTokens": 9,
        "completionTokens": 4,
    }


def test_the_mean_grade_is_that_of_whole_conversations() -> None:
    """Turns are told apart; a conversation with a malformed grade is in no mean of both."""
    rows = [grade("a", 8), grade("a/2", 6, "a"), grade("b", 4), grade("b/2", None, "b")]
    rows += [grade("c", 2), grade("c/2", 4, "c")]
    found = turns.measures(rows)
    assert found["grade"] == pytest.approx((7 + 3) / 2)
    assert found["gradeOfTurn1"] == pytest.approx((8 + 4 + 2) / 3)
    assert found["gradeOfTurn2"] == pytest.approx(5)
    assert found["gradeLow"] == 3
    assert found["gradeHigh"] == 7
    assert turns.measures([grade("a", None)]) == {}


def test_the_folder_of_a_suite_tells_its_languages(tmp_path: Path) -> None:
    """Its files are named as those of our own format."""
    del tmp_path
    assert suites.languages_of("mtBench", ["de.jsonl", "en.jsonl", "notes.txt"]) == {"de", "en"}
