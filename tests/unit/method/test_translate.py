"""Translations: what the model is asked, and what counts as a text."""

import pytest

from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.contract.rows import Answer, FinishReason, Translation
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.method import translate
from selfimprove_pipeline.method.translate import Direction
from support.runs import run

ASKED = (
    "Please translate the following sentences into German. The input sentences are wrapped by "
    "<sentence> and </sentence>:\n\n<sentence>\nTwo {braces} stay.\n</sentence>\n\n"
    "The translated result should be wrapped by <translated> and </translated>."
)


def completion(
    text: str, reason: FinishReason = "stop", stop_text: str | None = None
) -> Completion:
    return Completion(
        key="p1",
        text=text,
        finish_reason=reason,
        stop_text=stop_text,
        prompt_tokens=9,
        completion_tokens=3,
    )


def answer(text: str, identifier: str = "p1", reason: FinishReason = "stop") -> Answer:
    return Answer(
        id=identifier,
        language="en",
        completion=text,
        finish_reason=reason,
        prompt_tokens=1,
        completion_tokens=1,
    )


def test_the_model_is_asked_with_the_papers_template() -> None:
    """The English name of the target language stands in it, the source prompt does not."""
    (turn,) = translate.messages("Two {braces} stay.", "de", run().spec)

    assert turn.content == ASKED
    assert translate.PREFILL == "<translated>\n"


PARSED = [
    ("closed", completion("Zwei.\n</translated>"), "Zwei.", None),
    ("text behind the closing tag", completion("Zwei.</translated> I hope so."), "Zwei.", None),
    ("unclosed", completion("Zwei."), None, "unclosed"),
    ("cut at the limit", completion("Zwei und dann", "length"), None, "truncated"),
    ("closed before the limit", completion("A</translated>B", "length"), "A", None),
    ("two closings", completion("A\n</translated>\n<translated>B</translated>"), "A", None),
    ("opened again", completion("A <translated> B</translated>"), "A <translated> B", None),
    ("empty", completion("\n</translated>"), "", None),
    ("two lines", completion("A\n\nB\n</translated>"), "A\n\nB", None),
    ("stopped at the tag", completion("Zwei.\n", stop_text="</translated>"), "Zwei.", None),
    ("stopped at once", completion("", stop_text="</translated>"), "", None),
    ("over-long prompt", completion("", "overlong"), None, "overlong"),
]


@pytest.mark.parametrize(
    ("made", "text", "error"), [row[1:] for row in PARSED], ids=[row[0] for row in PARSED]
)
def test_the_text_is_what_stands_before_the_first_closing_tag(
    made: Completion, text: str | None, error: str | None
) -> None:
    """The prefill is the first opening tag; without a closing one there is no text."""
    assert translate.parse(made) == (text, error)


@pytest.mark.parametrize(("tokens", "limit"), [(10, 94), (1000, 3064), (5000, 4096)])
def test_the_budget_is_three_times_the_source_and_64_within_the_limit(
    tokens: int, limit: int
) -> None:
    """lidr-safe bounds a runaway; lidr-paper lets it run to 4096."""
    assert translate.max_tokens(tokens, run().spec) == limit
    assert translate.max_tokens(tokens, run(profile="lidr-paper").spec) == 4096


class WordRenderer:
    """Renders every word as one token; a second implementation of what requests need."""

    def prompt_ids(self, messages: object, prefill: str = "") -> tuple[int, ...]:
        return (1, len(prefill))

    def num_tokens(self, text: str) -> int:
        return len(text.split())


DIRECTION = Direction("en", "de")


def requests(answers: list[Answer], attempt: int = 1, **values: object) -> list[object]:
    spec = run(**values).spec
    asked = filter(translate.has_source, answers)
    return [translate.request(one, DIRECTION, spec, WordRenderer(), attempt) for one in asked]  # type: ignore[arg-type]


def test_a_first_attempt_is_greedy_and_a_retry_is_sampled_with_a_seed_of_its_own() -> None:
    """A greedy retry would repeat itself; its seed comes from seed, id, direction, attempt."""
    first, second = (requests([answer("a b")], attempt)[0] for attempt in (1, 2))
    other = requests([answer("a b", "p2")], 2)[0]

    assert (first.temperature, second.temperature) == (0.0, 0.3)  # type: ignore[attr-defined]
    assert len({r.seed for r in (first, second, other)}) == 3  # type: ignore[attr-defined]
    assert requests([answer("a b")], 2) == [second]


def test_the_closing_tag_stops_a_translation_in_lidr_safe_alone() -> None:
    """The paper's code lets the model go on behind it."""
    assert requests([answer("a")])[0].stop == ("</translated>",)  # type: ignore[attr-defined]
    assert requests([answer("a")], profile="lidr-paper")[0].stop == ()  # type: ignore[attr-defined]


def test_an_answer_without_text_is_not_asked_for() -> None:
    """Nothing to translate is no request, and its row says so."""
    assert requests([answer("")]) == []
    row = translate.without_source(answer("", reason="overlong"), DIRECTION)
    assert (row.text, row.error, row.finish_reason) == (None, "noSource", "overlong")


def done(identifier: str, text: str | None, attempts: int = 1) -> Translation:
    return translate.translation(
        completion((text or "") + ("</translated>" if text is not None else "")),
        DIRECTION,
        attempt=attempts,
    ).model_copy(update={"id": identifier})


def attempts(
    answers: dict[str, Answer], rows: dict[str, Translation], spec: Spec
) -> dict[str, int]:
    found = {
        name: translate.next_attempt(row, rows.get(name), spec) for name, row in answers.items()
    }
    return {name: attempt for name, attempt in found.items() if attempt is not None}


def test_a_round_of_retries_begins_when_every_first_attempt_is_there() -> None:
    """So that a retry runs beside the same rows whenever the work was interrupted."""
    answers = {name: answer("a", name) for name in ("p1", "p2", "p3")}
    spec = run().spec
    rows = {"p1": done("p1", None), "p2": done("p2", "b")}

    assert attempts(answers, rows, spec) == {"p1": 2, "p3": 1}
    assert translate.in_rounds(attempts(answers, rows, spec)) == {"p3": 1}
    later = attempts(answers, {**rows, "p3": done("p3", "")}, spec)
    assert list(translate.in_rounds(later).items()) == [("p1", 2), ("p3", 2)]


def test_a_translation_is_tried_again_as_often_as_the_recipe_says() -> None:
    """lidr-safe once, lidr-paper never."""
    answers = {"p1": answer("a", "p1")}

    assert attempts(answers, {"p1": done("p1", None, 2)}, run().spec) == {}
    paper = run(profile="lidr-paper").spec
    assert attempts(answers, {"p1": done("p1", None)}, paper) == {}
    assert attempts(answers, {}, paper) == {"p1": 1}
