"""What is measured on answers, and the agreement of labels with gold answers."""

import pytest

from selfimprove_pipeline.contract.rows import Evaluated, FinishReason, Message, Pair, Prompt
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.measuring import answers, reward_accuracy
from selfimprove_pipeline.text import languages
from selfimprove_pipeline.text.matching import is_match
from support.runs import run

IDENTIFY = languages.identifier(("en", "es", "de"))
GERMAN = "Die Antwort auf diese Frage lautet siebenundzwanzig."
ENGLISH = "The answer to this question is twenty-seven."


def evaluated(
    text: str, answer: str | None = None, language: str = "de", reason: FinishReason = "stop"
) -> Evaluated:
    made = Completion(
        key="a", text=text, finish_reason=reason, prompt_tokens=1, completion_tokens=1
    )
    row = Prompt(id="a", prompt="q", answer=answer)
    return answers.evaluated(made, row, language, IDENTIFY)


def test_an_answer_in_another_language_of_the_run_is_off_target() -> None:
    """Short texts and languages that no detector knows are not judged."""
    assert evaluated(ENGLISH).is_off_target
    assert not evaluated(GERMAN).is_off_target
    assert not evaluated("seven").is_off_target
    assert not evaluated(ENGLISH, language="tlh").is_off_target


def test_regions_and_scripts_of_one_language_are_not_told_apart() -> None:
    """Text in pt-PT is no off-target answer to a pt-BR prompt."""
    identify = languages.identifier(("en", "pt-BR", "pt-PT"))

    assert identify("O resultado desta conta é vinte e sete, como já sabíamos.") == "pt"
    assert languages.base("zh-Hant") == "zh"


@pytest.mark.parametrize(
    "text",
    [
        "I don\N{RIGHT SINGLE QUOTATION MARK}t know.",
        "No lo sé.",
        "Das weiß ich nicht.",
        "  Я не знаю",
        "Eso es difícil de decir.",
        "Das kann ich nicht beantworten.",
    ],
)
def test_declining_answers_are_evasive(text: str) -> None:
    """Whatever the accents and apostrophes."""
    assert answers.is_evasive(text)
    assert not answers.is_evasive("Siete y no lo sé todo.")


def test_rates_are_shares_of_all_answers() -> None:
    """Four answers by hand: one right, one off target, one empty, one cut and evasive."""
    rows = [
        evaluated(GERMAN, answer=GERMAN),
        evaluated(ENGLISH, answer=GERMAN),
        evaluated("", answer=GERMAN),
        evaluated("No lo sé", answer=GERMAN, reason="length"),
    ]
    found = answers.measures(rows)

    assert found == {
        "score": 0.25,
        "offTarget": 0.25,
        "empty": 0.25,
        "evasive": 0.25,
        "truncated": 0.25,
        "characters": (len(GERMAN) + len(ENGLISH) + 0 + 8) / 4,
    }


def test_a_suite_without_gold_answers_has_no_score() -> None:
    """OffTarget measures rates alone."""
    assert "score" not in answers.measures([evaluated(GERMAN)])


def test_a_match_is_equality_after_nfc_and_white_space() -> None:
    """Case and punctuation count."""
    assert is_match(" Él  sabe ", "E\u0301l sabe")
    assert not is_match("él sabe", "Él sabe")


def pair(identifier: str, chosen: str, rejected: str, language: str = "de") -> Pair:
    def said(text: str) -> tuple[Message, ...]:
        return (Message(role="assistant", content=text),)

    prompt = (Message(role="user", content="q"),)
    return Pair(
        prompt=prompt,
        chosen=said(chosen),
        rejected=said(rejected),
        id=identifier,
        language=language,
        partner="en",
    )


def test_reward_accuracy_is_the_share_of_decided_pairs_that_prefer_the_right_text() -> None:
    """Pairs with two right or two wrong texts decide nothing."""
    pairs = [
        pair("a", "right", "wrong"),
        pair("b", "right", "wrong"),
        pair("c", "wrong", "right"),
        pair("d", "right", "right"),
        pair("e", "wrong", "wrong"),
    ]
    gold = {"de": dict.fromkeys("abcde", "right")}
    found = reward_accuracy.score(pairs, gold, run().spec)

    low, high = 0.2077, 0.9385  # Wilson's of 2 of 3, by hand
    assert reward_accuracy.measures(found) == {
        "rewardAccuracy.de": pytest.approx(2 / 3),
        "rewardAccuracyLow.de": pytest.approx(low, abs=1e-4),
        "rewardAccuracyHigh.de": pytest.approx(high, abs=1e-4),
    }
    assert reward_accuracy.counts(found) == {"pairs": 5, "decided.de": 3}


def test_answers_with_reasoning_are_scored_by_the_number_that_they_come_to() -> None:
    """As `wrongAnswer` reads them: whole texts would make two wrong ones of every pair."""
    pairs = [
        pair("a", "Sie zahlt 3 * 6 = 18 Euro. Die Antwort ist 18.", "Also 17 Euro."),
        pair("b", "Das sind 1.234.", "Das sind 1,234."),
        pair("c", "Niemand kann es wissen.", "Die Antwort ist 5."),
    ]
    gold = {"de": {"a": "18", "b": "1,234", "c": "2 + 3 = 5\n#### 5"}}
    found = reward_accuracy.score(pairs, gold, run().spec)

    assert [(row.chosen, row.rejected) for row in found] == [(1, 0), (1, 0), (0, 1)]


def test_a_text_that_is_left_untranslated_is_read_in_its_own_language() -> None:
    """Of a prompt about translation the chosen text is the dominant answer, as the filter knows."""
    spec = run(pairing__translationPromptIds=["a"]).spec
    pairs = [pair("a", "That makes 1,234.", "Das sind 1,234."), pair("b", "Macht 1.234.", "4")]
    gold = {"de": {"a": "1234", "b": "1234"}}
    found = reward_accuracy.score(pairs, gold, spec)

    assert [(row.chosen, row.rejected) for row in found] == [(1, 0), (1, 0)]
