"""The pairing rule: golden rows by hand, and what must hold for any rows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove_pipeline.contract.rows import Answer, Drop, Pair, Prompt, Translation
from selfimprove_pipeline.method import pair
from selfimprove_pipeline.method.pair import Paired, Texts
from selfimprove_pipeline.method.pair.reasons import FILTERS
from selfimprove_pipeline.text import languages
from support.cli import REPOSITORY
from support.runs import run

Row = tuple[str, str, str, str]
"""Prompt, chosen, rejected and language of a pair."""


def answer(identifier: str, language: str, text: str, reason: str = "stop") -> Answer:
    return Answer.model_validate(
        {
            "id": identifier,
            "language": language,
            "completion": text,
            "finish_reason": reason,
            "prompt_tokens": 3,
            "completion_tokens": 3,
        }
    )


def translated(
    identifier: str, source: str, target: str, text: str | None, reason: str = "stop"
) -> Translation:
    return Translation.model_validate(
        {
            "id": identifier,
            "source": source,
            "target": target,
            "text": text,
            "error": None if text is not None else "unclosed",
            "finish_reason": reason,
            "prompt_tokens": 3,
            "completion_tokens": 3,
        }
    )


def texts(
    ids: list[str] = ["p1"],  # noqa: B006  never changed
    others: tuple[str, ...] = ("es", "de"),
    *,
    answers: Mapping[tuple[str, str], str | Answer] = {},
    translations: Mapping[tuple[str, str, str], str | Translation | None] = {},
) -> Texts:
    """Return an iteration in which every text says what it is, but for those given."""
    all_languages = ("en", *others)
    directions = [d for other in others for d in (("en", other), (other, "en"))]

    def an_answer(language: str, i: str) -> Answer:
        found = answers.get((language, i), f"{i} answer in {language}")
        return found if isinstance(found, Answer) else answer(i, language, found)

    def a_translation(source: str, target: str, i: str) -> Translation:
        default = f"{i} answer in {source} as {target}"
        found = translations.get((source, target, i), default)
        if isinstance(found, Translation):
            return found
        return translated(i, source, target, found)

    return Texts(
        prompts={
            language: tuple(Prompt(id=i, prompt=f"{i} prompt in {language}") for i in ids)
            for language in all_languages
        },
        answers={language: {i: an_answer(language, i) for i in ids} for language in all_languages},
        translations={(s, t): {i: a_translation(s, t, i) for i in ids} for s, t in directions},
    )


def no_language(_: str) -> str | None:
    return None


def rows(paired: Paired) -> list[Row]:
    return [
        (row.prompt[-1].content, row.chosen[0].content, row.rejected[0].content, row.language)
        for row in paired.pairs
    ]


def reasons(paired: Paired) -> list[tuple[str, str, str]]:
    return [(drop.id, drop.language, drop.reason) for drop in paired.drops]


def paper(given_texts: Texts, **values: Any) -> Paired:
    spec = run(profile="lidr-paper", **values).spec
    return pair.pair(given_texts, spec, no_language)


def safe(given_texts: Texts, **values: Any) -> Paired:
    return pair.pair(given_texts, run(**values).spec, no_language)


ENGLISH = ("p1 prompt in en", "p1 answer in en", "p1 answer in de as en", "en")
SPANISH = ("p1 prompt in es", "p1 answer in en as es", "p1 answer in es", "es")
GERMAN = ("p1 prompt in de", "p1 answer in en as de", "p1 answer in de", "de")


def test_paper_prefers_what_began_in_the_dominant_language() -> None:
    """Three languages give three rows; the English one is against the last other language."""
    assert rows(paper(texts())) == [ENGLISH, SPANISH, GERMAN]


def test_paper_with_one_partner_language_gives_two_rows() -> None:
    """With English and Spanish alone, Spanish is the last other language."""
    found = paper(texts(others=("es",)), languages__others=["es"])

    english = ("p1 prompt in en", "p1 answer in en", "p1 answer in es as en", "en")
    assert rows(found) == [english, SPANISH]


@pytest.mark.parametrize("failed", [("en", "de"), ("de", "en")])
def test_paper_drops_both_rows_when_either_direction_failed(failed: tuple[str, str]) -> None:
    """A failed en->de or de->en costs the German row and the English one made with German."""
    found = paper(texts(translations={(*failed, "p1"): None}))

    assert rows(found) == [SPANISH]
    assert reasons(found) == [("p1", "en", "untranslated"), ("p1", "de", "untranslated")]


def test_paper_keeps_the_dominant_row_when_another_language_failed() -> None:
    """A failed Spanish translation costs the Spanish row; English is paired with German."""
    found = paper(texts(translations={("en", "es", "p1"): None}))

    assert rows(found) == [ENGLISH, GERMAN]


def test_safe_drops_only_the_row_that_needs_the_failed_text() -> None:
    """A failed de->en costs the English row; the German one needs en->de alone."""
    found = safe(texts(translations={("de", "en", "p1"): None}))

    assert rows(found) == [SPANISH, GERMAN]
    assert reasons(found) == [("p1", "en", "untranslated")]


@pytest.mark.parametrize("profile", ["lidr-paper", "lidr-safe"])
def test_prompts_about_translation_keep_the_dominant_answer_untranslated(profile: str) -> None:
    """For an id of the list, chosen is the English answer in the other languages too."""
    spec = run(profile=profile, pairing__translationPromptIds=["p1"]).spec
    found = pair.pair(texts(), spec, no_language)

    german = ("p1 prompt in de", "p1 answer in en", "p1 answer in de", "de")
    spanish = ("p1 prompt in es", "p1 answer in en", "p1 answer in es", "es")
    assert rows(found) == [ENGLISH, spanish, german]


def test_paper_still_drops_prompts_about_translation_when_a_direction_failed() -> None:
    """The paper's code drops by the parse of both directions before it looks at the list."""
    given_texts = texts(translations={("en", "de", "p1"): None})
    found = paper(given_texts, pairing__translationPromptIds=["p1"])

    assert ("p1", "de", "untranslated") in reasons(found)


def test_paper_keeps_empty_and_identical_texts() -> None:
    """The paper's code has no filter: an empty translation is a text like any other."""
    given_texts = texts(
        translations={("en", "es", "p1"): "", ("de", "en", "p1"): "p1 answer in en"},
    )
    found = paper(given_texts)

    assert ("p1 prompt in es", "", "p1 answer in es", "es") in rows(found)
    assert ("p1 prompt in en", "p1 answer in en", "p1 answer in en", "en") in rows(found)
    assert not found.drops


def test_one_takes_the_last_other_language_as_dominant_partner() -> None:
    """`one` is others[-1] for every prompt, without falling back to another language."""
    found = paper(texts(ids=["p1", "p2"], translations={("de", "en", "p2"): None}))

    partners = [(row.id, row.partner) for row in found.pairs if row.language == "en"]
    assert partners == [("p1", "de")]


def test_round_robin_takes_the_language_of_the_prompts_position() -> None:
    """Prompt k is paired with others[k mod K], whether or not an earlier prompt was dropped."""
    given_texts = texts(ids=["a", "b", "c"], translations={("es", "en", "a"): None})
    found = safe(given_texts, pairing__dominantPairs="roundRobin")

    partners = [(row.id, row.partner) for row in found.pairs if row.language == "en"]
    assert partners == [("b", "de"), ("c", "es")]


def test_all_pairs_the_dominant_answer_with_every_language() -> None:
    """`all` gives one English row a partner."""
    found = safe(texts(), pairing__dominantPairs="all")

    partners = [row.partner for row in found.pairs if row.language == "en"]
    assert partners == ["es", "de"]


def test_identical_texts_are_equal_after_nfc_and_white_space() -> None:
    """A decomposed accent and a doubled space make no difference that could be learned."""
    given_texts = texts(
        answers={("es", "p1"): "Él  sabe\n"}, translations={("en", "es", "p1"): "E\u0301l sabe"}
    )
    found = safe(given_texts, pairing__filters={"lengthRatio": False})

    assert reasons(found) == [("p1", "es", "identical")]


def test_truncated_texts_are_dropped_with_all_that_came_of_them() -> None:
    """An English answer cut at its limit spoils its translations too."""
    cut = answer("p1", "en", "p1 answer in en", reason="length")
    found = safe(texts(answers={("en", "p1"): cut}))

    assert [reason for _, _, reason in reasons(found)] == ["truncated"] * 3


def test_an_overlong_prompt_has_no_answer_and_no_row() -> None:
    """A prompt that did not fit is counted where its answer would have been used."""
    overlong = answer("p1", "es", "", reason="overlong")
    given_texts = texts(answers={("es", "p1"): overlong}, translations={("es", "en", "p1"): None})
    found = safe(given_texts)

    assert reasons(found) == [("p1", "es", "noAnswer")]


ANSWERED = {
    "the number": ("So she pays 3 * 6 = 18 dollars. The answer is 18.", "18", False),
    "another number": ("The answer is 17.", "18", True),
    "no number": ("Nobody can know.", "18", True),
    "a solution of GSM8K": ("\\boxed{1234}", "6 * 200 + 34 = <<1234>>1,234\n#### 1,234", False),
    "the words of an answer without number": ("The sum  is twenty.", "The sum is twenty.", False),
    "other words": ("The sum is ten.", "The sum is twenty.", True),
}


@pytest.mark.parametrize(("text", "gold", "is_wrong"), ANSWERED.values(), ids=ANSWERED.keys())
def test_a_wrong_chosen_text_is_dropped_on_request(text: str, gold: str, is_wrong: bool) -> None:
    """By its number where the answer has one; without the filter every pair stays."""
    given_texts = texts(answers={("en", "p1"): text}, translations={("en", "es", "p1"): "Son 18."})
    prompts = {
        language: tuple(row.model_copy(update={"answer": gold}) for row in rows)
        for language, rows in given_texts.prompts.items()
    }
    answered = replace(given_texts, prompts=prompts)
    filters = {"lengthRatio": False, "wrongAnswer": True}
    found = safe(answered, pairing__filters=filters)

    assert (("p1", "en", "wrongAnswer") in reasons(found)) == is_wrong
    assert (("p1", "es", "wrongAnswer") in reasons(found)) == (gold != "18")
    assert reasons(safe(answered, pairing__filters={"lengthRatio": False})) == []


def test_numbers_are_read_as_the_chosen_text_writes_them() -> None:
    """1.234 is a thousand in German; an untranslated English text is read as English."""
    given_texts = texts(
        answers={("en", "p1"): "1,234"},
        translations={("en", "es", "p1"): "1.234", ("en", "de", "p1"): "1,234"},
    )
    prompts = {
        language: tuple(row.model_copy(update={"answer": "1234"}) for row in rows)
        for language, rows in given_texts.prompts.items()
    }
    answered = replace(given_texts, prompts=prompts)
    filters = {"lengthRatio": False, "wrongAnswer": True}
    assert reasons(safe(answered, pairing__filters=filters)) == [("p1", "de", "wrongAnswer")]
    kept = safe(answered, pairing__filters=filters, pairing__translationPromptIds=["p1"])
    assert reasons(kept) == []


def test_five_equal_lines_are_repetition_and_four_are_not() -> None:
    """Only the chosen text is judged: a repetitive rejected one teaches what to avoid."""
    five, four = "\n".join(["la la"] * 5), "\n".join(["la la"] * 4)
    given_texts = texts(
        answers={("de", "p1"): five},
        translations={("en", "es", "p1"): five, ("en", "de", "p1"): four},
    )
    found = safe(given_texts)

    assert reasons(found) == [("p1", "es", "repetition")]


def test_chosen_text_in_another_language_of_the_run_is_dropped() -> None:
    """A German 'translation' in plain English is off target; a short one is not judged."""
    english = "the answer is that nobody knows what the weather will be tomorrow"
    given_texts = texts(
        ids=["p1", "p2"],
        translations={("en", "de", "p1"): english, ("en", "de", "p2"): "no"},
    )
    spec = run(pairing__filters={"lengthRatio": False}).spec
    found = pair.pair(given_texts, spec, languages.identifier(("en", "es", "de")))

    assert ("p1", "de", "offTarget") in reasons(found)
    assert ("p2", "de", "offTarget") not in reasons(found)
    assert found.not_identified["de"] == 1


def test_lengths_are_judged_against_the_median_of_their_direction() -> None:
    """From 20 rows on, a translation three times as long as its direction's usual is dropped."""
    ids = [f"p{number}" for number in range(20)]
    answers = {("en", i): "x" * 10 for i in ids}
    usual = {("en", "de", i): "y" * 20 for i in ids}
    given_texts = texts(ids, answers=answers, translations={**usual, ("en", "de", "p7"): "y" * 60})
    found = safe(given_texts)

    assert ("p7", "de", "lengthRatio") in reasons(found)
    assert [i for i, language, _ in reasons(found) if language == "de"] == ["p7"]


def test_fewer_than_twenty_rows_have_no_length_band() -> None:
    """The median of a handful of rows says nothing."""
    ids = [f"p{number}" for number in range(19)]
    given_texts = texts(ids, translations={("en", "de", "p7"): "y" * 600})

    assert not safe(given_texts).drops


def test_the_system_prompt_and_the_language_prefix_stand_in_the_pairs_prompt() -> None:
    """The model is trained on the conversation that it saw."""
    given_texts = texts()
    spec = run(chat__systemPrompt="Be brief.", generation__answerLanguagePrefix=True).spec
    german = next(p for p in pair.pair(given_texts, spec, no_language).pairs if p.language == "de")

    assert german.prompt[0].role == "system"
    assert german.prompt[0].content == "Be brief."
    assert "Please answer in German." in german.prompt[1].content


TEXT = st.one_of(st.none(), st.text(alphabet="ab \n", max_size=12))
REASON = st.sampled_from(["stop", "length"])


@st.composite
def iterations(draw: st.DrawFn) -> Texts:
    """Any iteration of a few prompts with any texts, failures and finish reasons."""
    ids = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True))
    answers: Mapping[tuple[str, str], str | Answer] = {
        (language, i): answer(i, language, f"{i}{language}{draw(TEXT) or ''}", draw(REASON))
        for language in ("en", "es", "de")
        for i in ids
    }
    translations: dict[tuple[str, str, str], str | Translation | None] = {}
    for source, target in (("en", "es"), ("es", "en"), ("en", "de"), ("de", "en")):
        for i in ids:
            text = draw(TEXT)
            found = None if text is None else f"{i}{source}{target}{text}"
            translations[source, target, i] = translated(i, source, target, found, draw(REASON))
    return texts(ids, answers=answers, translations=translations)


PROFILES = st.sampled_from(["lidr-paper", "lidr-safe"])
POLICIES = st.sampled_from(["one", "all", "roundRobin"])


@settings(max_examples=60)
@given(iterations(), PROFILES, POLICIES)
def test_every_candidate_becomes_a_pair_or_a_drop(
    given_texts: Texts, profile: str, policy: str
) -> None:
    """Rows in = pairs + drops, none twice: 2 other rows a prompt and 1 or 2 dominant ones."""
    spec = run(profile=profile, pairing__dominantPairs=policy).spec
    found = pair.pair(given_texts, spec, no_language)

    made: list[Pair | Drop] = [*found.pairs, *found.drops]
    keys = [(row.id, row.language, row.partner) for row in made]
    expected = len(given_texts.prompts["en"]) * (4 if policy == "all" else 3)
    assert len(keys) == len(set(keys)) == expected


@settings(max_examples=60)
@given(iterations(), PROFILES, POLICIES)
def test_no_pair_mixes_two_prompts(given_texts: Texts, profile: str, policy: str) -> None:
    """Prompt, chosen and rejected of a pair all come from its own prompt id."""
    spec = run(profile=profile, pairing__dominantPairs=policy).spec

    for row in pair.pair(given_texts, spec, no_language).pairs:
        contents = (row.prompt[-1], row.chosen[0], row.rejected[0])
        assert {text.content[0] for text in contents} == {row.id}


@settings(max_examples=40)
@given(iterations(), st.randoms(use_true_random=False))
def test_the_order_in_which_rows_arrived_does_not_matter(given_texts: Texts, random: Any) -> None:
    """Answers and translations meet by id, whatever order a worker finished them in."""

    def shuffled(rows_by_id: Any) -> Any:
        items = list(rows_by_id.items())
        random.shuffle(items)
        return dict(items)

    other = Texts(
        prompts=given_texts.prompts,
        answers={name: shuffled(found) for name, found in given_texts.answers.items()},
        translations={name: shuffled(found) for name, found in given_texts.translations.items()},
    )
    assert safe(other) == safe(given_texts)


def test_the_docs_list_the_filters_in_the_order_they_are_tried() -> None:
    """The first reason counts, so the order is part of what a reason means."""
    text = (REPOSITORY / "docs" / "formats.md").read_text()
    rows = text.partition("| reason | when |\n|---|---|\n")[2].partition("\n\n")[0]
    listed = [row.split("`")[1] for row in rows.splitlines()]
    assert listed == [each.reason for each in FILTERS]
