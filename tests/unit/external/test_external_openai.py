"""The translator behind an endpoint: what it asks, what it reads, and what it says of errors."""

import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from selfimprove_pipeline import external
from selfimprove_pipeline.contract.errors import InputError, SelfImproveError, TryAgainError
from selfimprove_pipeline.contract.rows import Answer
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.external import Translator
from selfimprove_pipeline.external.openai import CONCURRENCY, OpenAITranslator
from selfimprove_pipeline.method import translate
from selfimprove_pipeline.method.translate import Direction, Passage
from support.endpoint import MODEL, Asked, Endpoint, Reply, Script, chat, refusal, serving
from support.runs import run

KEY = "sk-tests-0123456789"
DIRECTION = Direction("en", "de")
PATIENCE = 60.0
"""Seconds after which what must happen is taken for lost."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def passages(*texts: str, attempt: int = 1) -> list[Passage]:
    answers = [
        Answer(
            id=f"p{number}",
            language="en",
            completion=text,
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=1,
        )
        for number, text in enumerate(texts, start=1)
    ]
    spec = run(chat__systemPrompt="Be exact.", translation__maxTokens=99).spec
    return [translate.passage(answer, DIRECTION, spec, attempt) for answer in answers]


@contextmanager
def translating(script: Script, *, retries: int = 0) -> Iterator[tuple[Endpoint, Translator]]:
    """Give an endpoint and a translator that asks it."""
    with (
        serving(script) as endpoint,
        closing(OpenAITranslator(endpoint.base_url, MODEL, retries=retries)) as translator,
    ):
        yield endpoint, translator


def texts(completions: list[Completion]) -> dict[str, tuple[str | None, str | None]]:
    return {made.key: translate.parse(made) for made in completions}


def shouting(asked: Asked) -> Reply:
    return chat(f"<translated>\n{asked.text.upper()}\n</translated>")


def test_the_template_is_asked_with_the_systems_turn_and_without_a_prefill() -> None:
    """Temperature, limit and the row's own seed are those that the model itself would get."""
    first, again = passages("two"), passages("two", attempt=2)
    with translating(shouting) as (endpoint, translator):
        list(translator.complete([*first, *again]))
        bodies = sorted((asked.body for asked in endpoint.asked), key=lambda b: b["temperature"])

    content = translate.messages("two", "de", run().spec)[0].content
    assert {asked.path for asked in endpoint.asked} == {"/v1/chat/completions"}
    assert {asked.headers["authorization"] for asked in endpoint.asked} == {f"Bearer {KEY}"}
    assert bodies == [
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "Be exact."},
                {"role": "user", "content": content},
            ],
            "temperature": passage.temperature,
            "max_tokens": 99,
            "seed": passage.seed,
        }
        for passage in (*first, *again)
    ]
    assert [body["temperature"] for body in bodies] == [0.0, 0.3]


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of one's own wants no key, and the client wants one."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with translating(shouting) as (endpoint, translator):
        list(translator.complete(passages("two")))

    assert endpoint.asked[0].headers["authorization"] == "Bearer none"


READ = [
    ("between the tags", chat("<translated>\nZwei.\n</translated>"), "Zwei.", None),
    ("words around", chat("Sure: <translated>Zwei.</translated> Bye."), "Zwei.", None),
    ("two lines", chat("<translated>A\n\nB</translated>"), "A\n\nB", None),
    ("empty", chat("<translated></translated>"), "", None),
    ("no tags", chat("Zwei."), None, "unclosed"),
    ("no opening tag", chat("Zwei.</translated>"), None, "unclosed"),
    ("no closing tag", chat("<translated>Zwei."), None, "unclosed"),
    ("cut", chat("<translated>Zwei und", "length"), None, "truncated"),
    ("cut behind", chat("<translated>A</translated> I", "length"), "A", None),
    ("no content", chat(None), None, "unclosed"),
    ("too long, OpenAI", refusal(400, "x", "context_length_exceeded"), None, "overlong"),
    ("too long, vLLM", refusal(400, "The maximum context length is 8."), None, "overlong"),
]


@pytest.mark.parametrize(
    ("reply", "text", "error"), [row[1:] for row in READ], ids=[row[0] for row in READ]
)
def test_the_text_is_what_stands_between_the_tags(
    reply: Reply, text: str | None, error: str | None
) -> None:
    """There is no prefill here, so an answer without the opening tag has no text."""
    with translating(lambda _: reply) as (_, translator):
        made = list(translator.complete(passages("two")))

    assert texts(made) == {"p1": (text, error)}
    assert (made[0].prompt_tokens, made[0].completion_tokens) in {(7, 5), (0, 0)}


def test_a_passing_failure_is_outlived() -> None:
    """A limited rate and a failing server cost another request, and no row."""

    def script(asked: Asked) -> Reply:
        if asked.number == 1:
            return refusal(429, "slower", Retry_After="0.01")
        return refusal(503, "soon", Retry_After="0.01") if asked.number == 2 else shouting(asked)

    with translating(script, retries=2) as (endpoint, translator):
        made = list(translator.complete(passages("two")))

    assert texts(made) == {"p1": ("TWO", None)}
    assert len(endpoint.asked) == 3


def failure(script: Script, *, retries: int = 0) -> tuple[SelfImproveError, str, Endpoint]:
    """Return the error, everything that is ever printed of it, and the endpoint."""
    with translating(script, retries=retries) as (endpoint, translator):
        with pytest.raises(SelfImproveError) as caught:
            list(translator.complete(passages("two")))
        return caught.value, "".join(traceback.format_exception(caught.value)), endpoint


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_endpoint_that_keeps_failing_is_named_and_may_be_tried_again(status: int) -> None:
    """Exit code 75 after the retries: the same command goes on with the rows that are kept."""
    error, _, endpoint = failure(lambda _: refusal(status, "no", Retry_After="0.01"), retries=2)

    assert isinstance(error, TryAgainError)
    assert len(endpoint.asked) == 3
    assert str(error) == (
        f"translation.external: expected {endpoint.base_url} to answer, found HTTP {status}; "
        "run it again later"
    )


def test_an_endpoint_that_is_not_there_is_named_and_may_be_tried_again() -> None:
    """Nobody listens any more on a port that was just given back."""
    with serving(shouting) as endpoint:
        pass
    with (
        closing(OpenAITranslator(endpoint.base_url, MODEL, retries=0)) as translator,
        pytest.raises(TryAgainError, match=f"{endpoint.base_url} to answer, found APIConnection"),
    ):
        list(translator.complete(passages("two")))


REFUSED = [
    (401, "accept the key in OPENAI_API_KEY, found HTTP 401; set OPENAI_API_KEY"),
    (403, "accept the key in OPENAI_API_KEY, found HTTP 403; set OPENAI_API_KEY"),
    (404, f"serve {MODEL}, found HTTP 404; check model and baseUrl"),
    (400, "accept the request, found HTTP 400: "),
    (422, "accept the request, found HTTP 422: "),
]


@pytest.mark.parametrize(("status", "said"), REFUSED)
def test_a_refusal_is_one_line_without_the_key(status: int, said: str) -> None:
    """Endpoints repeat the key that they refuse; no message and no traceback passes it on."""
    error, printed, endpoint = failure(
        lambda asked: refusal(status, f"bad\nkey {asked.headers['authorization']}"), retries=2
    )

    assert isinstance(error, InputError)
    assert len(endpoint.asked) == 1
    assert f"expected {endpoint.base_url} to {said}" in str(error)
    assert len(str(error).splitlines()) == 1
    assert KEY not in printed


@pytest.mark.parametrize("body", ["<html>hello</html>", {"error": "none left"}, {"choices": []}])
def test_what_is_no_chat_completion_is_refused(body: object) -> None:
    """An address without /v1 often shows a page, with status 200."""
    error, _, _ = failure(lambda _: Reply(200, body))

    assert isinstance(error, InputError)
    assert "to answer with a chat completion, found something else; check baseUrl" in str(error)


def test_eight_passages_are_under_way_at_a_time() -> None:
    """Each request waits until eight are there; a ninth must wait for one of them."""
    eight = threading.Barrier(CONCURRENCY)

    def script(asked: Asked) -> Reply:
        eight.wait(PATIENCE)
        return shouting(asked)

    with translating(script) as (endpoint, translator):
        made = list(translator.complete(passages(*"abcdefghijklmnopqrstuvwx")))

    assert endpoint.most_at_once == CONCURRENCY == 8
    assert {made.text.strip() for made in made} == set("ABCDEFGHIJKLMNOPQRSTUVWX")


def test_completions_come_as_they_finish() -> None:
    """A slow passage holds up no other: it is answered when all others have been yielded."""
    others_are_kept = threading.Event()

    def script(asked: Asked) -> Reply:
        is_slow = asked.text == "slow"
        if is_slow and not others_are_kept.wait(PATIENCE):
            return refusal(500, "the others never came")
        return shouting(asked)

    with translating(script) as (_, translator):
        completions = translator.complete(passages("slow", *"abcdefghij"))
        first = [next(completions).key for _ in range(10)]
        others_are_kept.set()

        assert sorted(first) == sorted(f"p{number}" for number in range(2, 12))
        assert [made.key for made in completions] == ["p1"]


def test_an_error_ends_the_asking_and_keeps_what_was_answered() -> None:
    """Everything that the endpoint answered is yielded before the error is raised."""
    many = passages("bad", *(str(number) for number in range(1000)))

    def script(asked: Asked) -> Reply:
        return refusal(401, "no") if asked.text == "bad" else shouting(asked)

    kept: list[str] = []
    with translating(script) as (endpoint, translator):
        with pytest.raises(InputError, match="OPENAI_API_KEY"):
            kept.extend(made.text.strip() for made in translator.complete(many))
        answered = [asked.text for asked in endpoint.asked if asked.text != "bad"]

    assert sorted(kept) == sorted(answered)
    assert len(answered) < 1000


def test_a_consumer_that_leaves_ends_the_asking() -> None:
    """An interrupted run does not go on paying for the rest."""
    with translating(shouting) as (endpoint, translator):
        completions = translator.complete(passages(*(str(number) for number in range(1000))))
        next(completions)
        completions.close()  # type: ignore[attr-defined]  # iterators that yield are generators

        assert len(endpoint.asked) < 1000


def test_the_recipe_chooses_the_endpoint_and_its_model() -> None:
    """Kind openai makes this translator; its manifest says which client it was."""
    with serving(shouting) as endpoint:
        described = {"kind": "openai", "baseUrl": endpoint.base_url, "model": MODEL}
        spec = run(translation__translator="external", translation__external=described).spec
        assert spec.translation.external is not None
        with closing(external.translator(spec.translation.external, spec)) as translator:
            made = list(translator.complete(passages("two")))

    assert texts(made) == {"p1": ("TWO", None)}
    assert list(translator.versions) == ["openai"]
