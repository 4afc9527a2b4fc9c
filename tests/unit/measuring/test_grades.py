"""What a judge thinks of the texts of a pair, from its words to the score that is kept."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.rows import Message, Pair, Prompt, Score, lines
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.measuring import gates
from selfimprove_pipeline.measuring.judged import pairs as grades
from selfimprove_pipeline.measuring.judged.questions import Opinion, id_of
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import Survey, manifest_of, survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.workers import pairing
from selfimprove_pipeline.workers.pairing import PAIRS
from selfimprove_pipeline.workers.tasks import judge as judging
from support.dying import DyingRepository, Killed
from support.endpoint import Asked, Endpoint, Reply, Script, chat, serving
from support.runs import run

LANGUAGES = ("en", "es", "de")
COUNT = 8
MODEL = Model("s3://models/m0", "digest-of-m0", ())
TEXTS = re.compile(r"<answer-1>\n(.*)\n</answer-1>\n\n<answer-2>\n(.*)\n</answer-2>", re.DOTALL)


def pair(name: str, language: str = "de", chosen: str = "good", rejected: str = "bad") -> Pair:
    def turn(role: Any, text: str) -> tuple[Message, ...]:
        return (Message(role=role, content=text),)

    return Pair(
        prompt=turn("user", f"{language} {name}?"),
        chosen=turn("assistant", chosen),
        rejected=turn("assistant", rejected),
        id=name,
        language=language,
        partner="en",
    )


def said(first: object, second: object) -> str:
    return f"<score1>{first}</score1>\n<score2>{second}</score2>"


def graded(one: Pair, say: Callable[[str, str], str], positions: str = "both") -> Score:
    """Return the score of a judge that is asked until nothing is open."""
    done: dict[str, Score] = {}
    for question in list(grades.to_ask([one], done, positions)):
        found = TEXTS.search(question.messages[0].content)
        assert found is not None
        opinion = Opinion(
            key=question.key,
            text=say(found[1], found[2]),
            finish_reason="stop",
            prompt_tokens=7,
            completion_tokens=5,
            first_token={},
        )
        done[one.id] = grades.counted(opinion, one, done.get(id_of(question.key)), positions)
    assert not list(grades.to_ask([one], done, positions))
    return done[one.id]


def by_text(a: str, b: str) -> str:
    worth = {"good": 9, "bad": 4}
    return said(worth[a], worth[b])


def test_both_orders_give_each_text_its_own_grade() -> None:
    """Whatever stands first, the grade of a text goes to that text."""
    found = graded(pair("a"), by_text)

    assert (found.chosen, found.rejected, found.is_right) == (9, 4, True)
    assert grades.counts([found])["questions"] == 2


def test_a_judge_that_grades_places_gives_a_tie() -> None:
    """The means of both orders are equal, so that its bias decides nothing."""
    found = graded(pair("a"), lambda _a, _b: said(9, 4))

    assert (found.chosen, found.rejected, found.is_right) == (6.5, 6.5, None)


def test_exchanged_texts_exchange_the_grades() -> None:
    """Also where a pair is asked about once, in an order that depends on the texts alone."""
    for positions in ("both", "random"):
        one = graded(pair("a"), by_text, positions)
        other = graded(pair("a", chosen="bad", rejected="good"), by_text, positions)
        assert (one.chosen, one.rejected) == (other.rejected, other.chosen) == (9, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (said(10, 0), (10, 0)),
        ("Sure!\n" + said(" 7 ", 7), (7, 7)),
        (said(3, 8).replace("\n", ""), (3, 8)),
        (said(11, 3), None),
        (said(-1, 3), None),
        (said(7.5, 3), None),
        ("<score1>7</score1>", None),
        ("7 and 3", None),
        ("", None),
    ],
)
def test_only_two_whole_numbers_from_0_to_10_are_grades(
    text: str, expected: tuple[float, float] | None
) -> None:
    """Anything else is malformed, counted, and leaves the pair undecided."""
    found = graded(pair("a", chosen="x", rejected="x"), lambda _a, _b: text, "random")
    both = (found.chosen, found.rejected)

    assert (None if None in both else tuple(sorted(map(float, both)))) == (  # type: ignore[arg-type]
        None if expected is None else tuple(sorted(expected))
    )
    assert grades.counts([found])["malformed"] == (expected is None)
    assert found.is_right is None or expected is not None


def test_one_malformed_answer_of_two_leaves_a_pair_undecided() -> None:
    """Grades of one order alone would be those of a place."""
    found = graded(pair("a"), lambda a, b: by_text(a, b) if a == "good" else "neither")

    assert (found.chosen, found.rejected, found.is_right) == (None, None, None)
    assert grades.counts([found])["malformed"] == 1


def test_a_sample_has_each_prompt_once_and_a_larger_one_holds_the_smaller() -> None:
    """Drawn by the ids alone, so that more pairs keep what was drawn before."""
    pairs = [pair(f"p{n}", partner) for n in range(20) for partner in ("de", "es", "de")]
    few, more = (grades.sampled(pairs, "de", count) for count in (5, 9))

    assert len({one.id for one in few}) == len(few) == 5
    assert [one.id for one in more[:5]] == [one.id for one in few]
    assert [one.id for one in few] != [f"p{n}" for n in range(5)]
    assert {one.language for one in more} == {"de"}


@contextmanager
def graded_run(root: Path, script: Script, **judge: Any) -> Iterator[tuple[Endpoint, Setting]]:
    """Give an endpoint and a run without gold answers whose pairs are made."""
    with serving(script) as endpoint:
        described = {"baseUrl": endpoint.base_url, "model": "judge", "pairs": 6, **judge}
        made = run(iterations=1, prompts__perIteration=COUNT, evaluation={"judge": described})
        store = FolderStore(root / "store")
        repository = DyingRepository(store, bucket="runs", prefix="", cache=root / "cache")
        prompts = [Prompt(id=f"p{n}", prompt=f"question {n}") for n in range(COUNT)]
        for language in LANGUAGES:
            store.write(f"s3://prompts/set/{language}.jsonl", lines(prompts))
        toolchain = devices.toolchain("transformers", 0)
        setting = Setting(made, store, repository, toolchain, "transformers", root / "cache")
        make_pairs(setting)
        yield endpoint, setting


def make_pairs(setting: Setting) -> None:
    """Put pairs into the store, with whatever they are made of."""
    for name in ("generate", "translate", "pair"):
        for target in found_in(setting)[name].missing:
            pairs = [pair(f"p{n}", language) for language in LANGUAGES for n in range(COUNT)]
            counts = {"pairs": len(pairs), **{f"pairs.{tag}": COUNT for tag in LANGUAGES}}
            manifest = manifest_of(target, rows=len(pairs), counts=counts)
            setting.repository.commit(manifest, {PAIRS: lines(pairs)})


def found_in(setting: Setting) -> Survey:
    return survey(setting.iteration(0, MODEL), setting.repository.manifest)


def grade(setting: Setting) -> dict[str, Manifest]:
    """Run the worker and return what it has graded, by language."""
    pairing.work(setting, 0, MODEL, lambda _: None, names=("score",))
    return dict(found_in(setting)["score"].manifests)


def judging_texts(asked: Asked) -> Reply:
    found = TEXTS.search(str(asked.body["messages"][-1]["content"]))
    assert found is not None
    return chat(by_text(found[1], found[2]))


def test_pairs_without_gold_answers_get_their_reward_accuracy_from_the_judge(
    tmp_path: Path,
) -> None:
    """As many of each language as the recipe says, in both orders, asked in its language."""
    with graded_run(tmp_path, judging_texts) as (endpoint, setting):
        found = grade(setting)
        asked = [str(one.body["messages"][-1]["content"]) for one in endpoint.asked]

    assert set(found) == set(LANGUAGES)
    for language, manifest in found.items():
        assert manifest.rows == manifest.counts[f"decided.{language}"] == 6
        assert manifest.measures[f"rewardAccuracy.{language}"] == 1.0
        assert manifest.measures[f"rejectedGrade.{language}"] == 4.0
    assert len(asked) == 3 * 6 * 2
    spanish = [text for text in asked if "understands Spanish and" in text]
    assert len(spanish) == 12
    assert all("es p" in text for text in spanish)


def test_what_a_judge_says_leaves_pairs_out_like_gold_answers(tmp_path: Path) -> None:
    """A judge that prefers what was rejected in every pair of a language keeps it from training."""

    def contrary(asked: Asked) -> Reply:
        text = str(asked.body["messages"][-1]["content"])
        found = TEXTS.search(text)
        assert found is not None
        told = by_text(found[1], found[2])
        return chat(told.translate({57: "4", 52: "9"}) if "Spanish" in text else told)

    with graded_run(tmp_path, contrary) as (_, setting):
        grade(setting)
        chosen = setting.spec.gates.model_copy(update={"minimum_decided": 6})
        manifests = {"score": found_in(setting)["score"].manifests}
        decisions = gates.decisions(chosen, manifests)  # type: ignore[arg-type]

    assert {language: told[0] for language, told in decisions.items()} == {
        "en": "Passed",
        "es": "LeftOut",
        "de": "Passed",
    }


@pytest.mark.parametrize("lives", [0, 1, 7, 20])
def test_a_killed_worker_asks_at_most_what_was_under_way_again(tmp_path: Path, lives: int) -> None:
    """Each answer is in the store before more is asked; a rerun asks nothing at all."""
    with graded_run(tmp_path, judging_texts, maxConcurrency=3) as (endpoint, setting):
        assert isinstance(setting.repository, DyingRepository)
        setting.repository.lives = lives
        with pytest.raises(Killed):
            grade(setting)
        assert len(endpoint.asked) <= lives + 3
        setting.repository.lives = 10**6
        found = grade(setting)
        assert len(endpoint.asked) <= 3 * 6 * 2 + 3
        asked = len(endpoint.asked)
        assert grade(setting) == found
        assert len(endpoint.asked) == asked


def test_grades_count_in_the_budget_of_the_run(tmp_path: Path) -> None:
    """What is kept of them was spent, and a spent budget stops with its one line."""
    with graded_run(tmp_path, judging_texts, budget={"requests": 10}) as (_, setting):
        with pytest.raises(InputError, match="expected 10 requests to be enough, found 10"):
            grade(setting)
        spent = judging.spent(setting, 0, found_in(setting))

    assert (spent.requests, spent.prompt_tokens, spent.completion_tokens) == (10, 70, 50)


def test_a_score_by_gold_answers_is_written_as_before() -> None:
    """What a judge said is absent from rows that it has not seen."""
    row = Score(id="a", language="de", partner="en", chosen=1.0, rejected=0.0)

    assert set(json.loads(row.line())) == {"id", "language", "partner", "chosen", "rejected"}
