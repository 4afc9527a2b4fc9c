"""Training prompts that a suite has too: what counts as the same, and what as nearly the same."""

from dataclasses import dataclass

import pytest

from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.inputs import overlap

SONG = "Write a short song about the lighthouse keeper who is afraid of the sea."
DUCKS = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes "
    "muffins for her friends every day with four. She sells the remainder for $2 per egg. "
    "How much does she make every day?"
)


@dataclass(frozen=True)
class Case:
    """A training prompt, a row of a suite, and what they are to each other."""

    name: str
    prompt: str
    row: str
    found: str = "apart"
    """One of exact, near, apart."""


CASES = (
    Case("the same text", SONG, SONG, "exact"),
    Case("other white space", SONG, "  " + SONG.replace(" ", "\t ") + "\n", "exact"),
    Case("other case", SONG, SONG.upper(), "exact"),
    Case("an accent in two characters", "¿Qué?", "¿Que\N{COMBINING ACUTE ACCENT}?", "exact"),
    Case("a short text", "Hola", "Hola", "exact"),
    Case("a text without letters", "2 + 2 =", "2 + 2 =", "exact"),
    Case("other punctuation", SONG, SONG.replace(".", "!").replace(" who", ", who"), "near"),
    Case("wide characters", SONG, SONG.translate({n: n + 0xFEE0 for n in range(33, 127)}), "near"),
    Case("one word more", SONG, SONG.replace("short", "very short"), "near"),
    Case("a word replaced", SONG, SONG.replace("song", "poem"), "near"),
    Case(
        "the end replaced", SONG, SONG.replace("afraid of the sea", "married to a whale"), "apart"
    ),
    Case("another question", SONG, "Explain how a lighthouse warns ships of the rocks.", "apart"),
    Case(
        "a problem with other numbers", DUCKS, DUCKS.replace("16", "23").replace("$2", "$3"), "near"
    ),
    Case(
        "a problem of little but numbers",
        "It is 9:15. After 120 km at 80 km/h and 45 km at 30 km/h, what time is it?",
        "It is 7:48. After 2,100 km at 350 km/h and 6.5 km at 13 km/h, what time is it?",
        "near",
    ),
    Case(
        "a number in other digits",
        "জ্যানেটের হাঁসগুলো প্রতিদিন 16টি ডিম পাড়ে। সে কত টাকা পায়?",
        "জ্যানেটের হাঁসগুলো প্রতিদিন ১৬টি ডিম পাড়ে। সে কত টাকা পায়?",
        "near",
    ),
    Case("a problem with another name", DUCKS, DUCKS.replace("Janet", "Marisol"), "near"),
    Case("another problem", DUCKS, DUCKS.replace("eggs", "litres").replace("ducks", "cows")[:90]),
    Case("short sums with other numbers", "What is 3 + 5?", "What is 7 + 2?"),
    Case("short questions that differ in a name", "Where is Paris?", "Where is Prague?"),
    Case("a beginning", SONG, SONG[:40]),
    Case(
        "Chinese with one character replaced",
        "珍妮特的鸭子每天下十六颗蛋。她早餐吃三颗。其余的拿到市场上去卖。每颗两美元。",
        "珍妮特的鸭子每日下十六颗蛋。她早餐吃三颗。其余的拿到市场上去卖。每颗两美元。",
        "near",
    ),
    Case(
        "Chinese with another sentence",
        "珍妮特的鸭子每天下十六颗蛋。她早餐吃三颗。其余的拿到市场上去卖。每颗两美元。",
        "请写一首关于害怕大海的灯塔看守人的短诗。要求押韵。并且不超过一百个汉字。",
    ),
    Case(
        "Thai with spaces elsewhere",
        "เป็ดของเจเน็ตออกไข่วันละ 16 ฟอง เธอกินสามฟองเป็นอาหารเช้าทุกวัน",
        "เป็ดของเจเน็ต ออกไข่วันละ16ฟอง เธอกินสามฟอง เป็นอาหารเช้าทุกวัน",
        "near",
    ),
    Case(
        "Hindi with other vowel signs",
        "किसी झील के किनारे पर रहने वाली लड़की की कहानी लिखिए",
        "कुसू झूल कि कुनोरि पर रहनि वोलू लड़कू कू कहोनू लुखुए",
    ),
    Case(
        "Japanese with another ending",
        "灯台守が海を怖がる理由について、短い物語を書いてください。",
        "灯台守が海を怖がる理由について、短い物語を書いてくださいね。",
        "near",
    ),
)


def row(identifier: str, text: str) -> Prompt:
    return Prompt(id=identifier, prompt=text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_the_same(case: Case) -> None:
    """Whatever the script, and whichever of the two was trained on."""
    for prompt, other in ((case.prompt, case.row), (case.row, case.prompt)):
        found = list(overlap.matches([row("p", prompt)], [row("s", other)]))

        kinds = ["exact" if match.is_exact else "near" for match in found]
        assert (kinds or ["apart"]) == [case.found], found


def test_a_prompt_is_told_with_the_row_that_is_most_like_it() -> None:
    """Equal before similar, then the first of those that are equally similar."""
    longer, longest = SONG.replace("short", "very short"), SONG.replace("short", "very very short")
    rows = [row("a", longest), row("b", longer), row("c", longer), row("d", DUCKS)]

    near, exact = overlap.matches([row("p", SONG), row("q", longer), row("r", "else")], rows)

    assert (near.prompt, near.row, near.is_exact) == ("p", "b", False)
    assert (exact.prompt, exact.row, exact.similarity) == ("q", "b", 1.0)


def test_the_threshold_itself_counts() -> None:
    """Twenty trigrams in common of twenty-five are a Jaccard similarity of .8, one more is less."""
    text = "abcdefghijklmnopqrstuv"
    at = text + "wxyzé"
    beyond = at + "è"

    found = list(overlap.matches([row("at", at), row("beyond", beyond)], [row("s", text)]))

    assert [(match.prompt, match.similarity) for match in found] == [("at", 0.8)]


@pytest.mark.parametrize("rows", [[], [row("s", "?")]], ids=["no rows", "a row without letters"])
def test_nothing_is_like_nothing(rows: list[Prompt]) -> None:
    """An empty suite, or one of signs alone, is no mistake here."""
    assert list(overlap.matches([row("p", SONG), row("q", "!")], rows)) == []
