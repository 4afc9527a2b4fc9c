"""The judge behind an endpoint: what it asks, what it outlives, and what it may cost."""

import re
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.recipe import Judge
from selfimprove_pipeline.contract.rows import Message
from selfimprove_pipeline.external import Spent
from selfimprove_pipeline.external.openai_judge import OWN_KEY, OpenAIJudge, key_of
from selfimprove_pipeline.measuring.judged.questions import Opinion, Question
from support.endpoint import Asked, Endpoint, Reply, Script, chat, refusal, serving
from support.judges import with_candidates
from support.runs import run

KEY = "sk-tests-0123456789"
PATIENCE = 60.0
"""Seconds after which what must happen is taken for lost."""


@contextmanager
def asking(
    script: Script, *, spent: Spent | None = None, **options: Any
) -> Iterator[tuple[Endpoint, OpenAIJudge]]:
    """Give an endpoint and a judge that asks it."""
    client = {name: options.pop(name) for name in ("retries", "timeout") if name in options}
    with serving(script) as endpoint:
        described = Judge.model_validate(
            {"baseUrl": endpoint.base_url, "model": "judge", **options}, strict=False
        )
        made = OpenAIJudge(
            described, ("OPENAI_API_KEY", KEY), spent or Spent(), **{"retries": 0, **client}
        )
        with closing(made) as judge:
            yield endpoint, judge


def questions(count: int) -> list[Question]:
    return [
        Question(
            key=f"first:p{n}",
            messages=(Message(role="user", content=f"question {n}"),),
            max_tokens=16,
        )
        for n in range(count)
    ]


def told(opinions: Iterator[Opinion]) -> dict[str, str]:
    return {one.key: one.text for one in opinions}


def test_a_question_asks_for_one_letter_and_the_candidates_of_its_token() -> None:
    """Greedy, with the twenty likeliest tokens; what the endpoint tells of them is handed on."""
    with asking(lambda _: with_candidates("A", {"A": -0.105, "B": -2.303})) as (endpoint, judge):
        (opinion,) = judge.complete(questions(1))

    assert endpoint.asked[0].body == {
        "model": "judge",
        "messages": [{"role": "user", "content": "question 0"}],
        "temperature": 0.0,
        "max_tokens": 16,
        "logprobs": True,
        "top_logprobs": 20,
    }
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert opinion.first_token == pytest.approx({"A": 0.9, "B": 0.1}, abs=1e-3)
    assert (opinion.prompt_tokens, opinion.completion_tokens) == (7, 5)


def test_an_endpoint_that_refuses_candidates_is_asked_without_them() -> None:
    """It is told once; later questions do not ask for them any more."""

    def script(asked: Asked) -> Reply:
        if "logprobs" in asked.body:
            return refusal(400, "logprobs is not supported by this model")
        return chat("B")

    with asking(script, maxConcurrency=1) as (endpoint, judge):
        opinions = list(judge.complete(questions(2)))

    assert [(one.text, one.first_token) for one in opinions] == [("B", {}), ("B", {})]
    assert len(endpoint.asked) == 3


def test_a_limited_rate_is_waited_for_as_long_as_the_endpoint_says() -> None:
    """Retry-After of one second: the next request comes no sooner."""
    times: list[float] = []

    def script(asked: Asked) -> Reply:
        times.append(time.monotonic())
        return refusal(429, "slower", Retry_After="1") if asked.number == 1 else chat("A")

    with asking(script, retries=1) as (_, judge):
        assert told(judge.complete(questions(1))) == {"first:p0": "A"}

    assert times[1] - times[0] >= 1.0


CUT = Reply(200, chat("A").body, is_cut=True)
OUTLIVED = [
    ("500", refusal(500, "no")),
    ("503", refusal(503, "no")),
    ("a cut answer", CUT),
    ("broken JSON", Reply(200, '{"choices": [', content_type="application/json")),
]


@pytest.mark.parametrize("reply", [row[1] for row in OUTLIVED], ids=[row[0] for row in OUTLIVED])
def test_a_passing_failure_costs_another_request_and_no_verdict(reply: Reply) -> None:
    """The same question is asked again."""
    script: Script = lambda asked: reply if asked.number == 1 else chat("A")  # noqa: E731
    with asking(script, retries=1) as (endpoint, judge):
        assert told(judge.complete(questions(1))) == {"first:p0": "A"}

    assert len(endpoint.asked) == 2


@pytest.mark.parametrize("reply", [row[1] for row in OUTLIVED], ids=[row[0] for row in OUTLIVED])
def test_a_failure_that_stays_may_be_tried_again_later(reply: Reply) -> None:
    """Exit code 75, one line, and the field of the recipe that names the endpoint."""
    with (
        asking(lambda _: reply, retries=1) as (endpoint, judge),
        pytest.raises(TryAgainError, match=r"evaluation\.judge: expected ") as caught,
    ):
        list(judge.complete(questions(1)))

    assert len(endpoint.asked) == 2
    assert len(str(caught.value).splitlines()) == 1


def test_an_endpoint_that_does_not_answer_in_time_may_be_tried_again_later() -> None:
    """A request without an answer is lost after the time limit."""
    ended = threading.Event()

    def script(_: Asked) -> Reply:
        ended.wait(PATIENCE)
        return chat("A")

    with asking(script, timeout=0.2) as (_, judge):
        with pytest.raises(TryAgainError, match="found APITimeoutError"):
            list(judge.complete(questions(1)))
        ended.set()


def test_an_answer_without_choices_is_no_verdict_and_stops_nothing() -> None:
    """A filter of the endpoint may swallow one answer: it is empty, as is one that is too long."""
    empty = Reply(200, {**chat("A").body, "choices": []})
    replies = [empty, refusal(400, "x", "context_length_exceeded"), chat("B")]
    with asking(lambda asked: replies[asked.number - 1], maxConcurrency=1) as (_, judge):
        assert list(told(judge.complete(questions(3))).values()) == ["", "", "B"]


def test_a_page_instead_of_an_answer_is_refused() -> None:
    """An address without /v1 shows a page with status 200: trying again changes nothing."""
    with (
        asking(lambda _: Reply(200, "<html>hello</html>"), retries=3) as (endpoint, judge),
        pytest.raises(InputError, match="check baseUrl"),
    ):
        list(judge.complete(questions(1)))

    assert len(endpoint.asked) == 1


def test_a_refused_key_is_named_by_its_variable_and_not_repeated() -> None:
    """Endpoints repeat the key that they refuse; no message and no traceback passes it on."""
    with (
        asking(lambda asked: refusal(401, asked.headers["authorization"])) as (_, judge),
        pytest.raises(InputError, match="set OPENAI_API_KEY") as caught,
    ):
        list(judge.complete(questions(1)))

    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_no_more_is_asked_at_a_time_than_the_recipe_says() -> None:
    """Each request waits until three are there; a fourth must wait for one of them."""
    three = threading.Barrier(3)

    def script(_: Asked) -> Reply:
        three.wait(PATIENCE)
        return chat("A")

    with asking(script, maxConcurrency=3) as (endpoint, judge):
        assert len(told(judge.complete(questions(9)))) == 9

    assert endpoint.most_at_once == 3


def test_nothing_more_is_asked_before_what_came_is_taken() -> None:
    """A process that is killed while it keeps a verdict has asked for no further one."""
    with asking(lambda _: chat("A"), maxConcurrency=2) as (endpoint, judge):
        opinions = judge.complete(questions(20))
        for taken in range(1, 6):
            next(opinions)
            time.sleep(0.05)
            assert len(endpoint.asked) <= taken - 1 + 2


def test_a_budget_of_requests_stops_with_one_line() -> None:
    """What it pays for is yielded; the line tells what was spent and how much is left to ask."""
    kept: list[str] = []
    with (
        asking(lambda _: chat("A"), budget={"requests": 5}, spent=Spent(2, 14, 10)) as (e, judge),
        pytest.raises(InputError) as caught,
    ):
        kept.extend(one.key for one in judge.complete(questions(9)))

    assert len(kept) == len(e.asked) == 3
    assert str(caught.value) == (
        "evaluation.judge.budget: expected 5 requests to be enough, found 5 requests and 60 tokens "
        "spent and 6 questions left; verdicts are kept, raise the budget and run again"
    )


def test_a_budget_of_tokens_stops_when_they_are_spent() -> None:
    """Twelve tokens an answer: the second one reaches 20."""
    with (
        asking(lambda _: chat("A"), budget={"tokens": 20}, maxConcurrency=1) as (e, judge),
        pytest.raises(InputError, match="found 2 requests and 24 tokens spent and 7 question"),
    ):
        list(judge.complete(questions(9)))

    assert len(e.asked) == 2


def test_a_budget_of_money_stops_when_it_is_spent() -> None:
    """Seven tokens at 100,000 and five at 200,000 a million are 1.70 an answer."""
    budget = {"money": 4.0, "promptPrice": 100_000.0, "completionPrice": 200_000.0}
    told = "expected 4.0 of money to be enough, found 3 requests and 36 tokens for 5.10 spent"
    with (
        asking(lambda _: chat("A"), budget=budget, maxConcurrency=1) as (e, judge),
        pytest.raises(InputError, match=re.escape(told)),
    ):
        list(judge.complete(questions(9)))

    assert len(e.asked) == 3


def test_a_budget_that_is_just_enough_stops_nothing() -> None:
    """The last question that it pays for is the last one."""
    with asking(lambda _: chat("A"), budget={"requests": 4, "tokens": 48}) as (_, judge):
        assert len(told(judge.complete(questions(4)))) == 4


KEYS = [
    ("the plain variable", {}, {"OPENAI_API_KEY": "a"}, ("OPENAI_API_KEY", "a")),
    ("its own one first", {}, {"OPENAI_API_KEY": "a", OWN_KEY: "b"}, (OWN_KEY, "b")),
    ("none", {}, {}, ("OPENAI_API_KEY", "none")),
    ("not the translator's", {"url": "http://mt/v1"}, {"OPENAI_API_KEY": "a"}, (OWN_KEY, "none")),
    ("one endpoint", {"url": "http://j/v1"}, {"OPENAI_API_KEY": "a"}, ("OPENAI_API_KEY", "a")),
]


@pytest.mark.parametrize(
    ("translator", "environment", "found"), [row[1:] for row in KEYS], ids=[row[0] for row in KEYS]
)
def test_the_key_of_a_translator_goes_to_no_other_endpoint(
    translator: dict[str, str], environment: dict[str, str], found: tuple[str, str]
) -> None:
    """Without a variable of its own the judge shares the plain one, unless it is another's."""
    values: dict[str, Any] = {"evaluation__judge": {"baseUrl": "http://j/v1", "model": "judge"}}
    if translator:
        external = {"kind": "openai", "baseUrl": translator["url"], "model": "mt"}
        values |= {"translation__translator": "external", "translation__external": external}

    assert key_of(run(**values).spec, environment) == found
