"""Translate: M_t translates its own answers, into each other language and back.

The template is the one of the paper's code. The assistant's turn is begun for the model
with the opening tag; what it writes up to the closing tag is the translation. A completion
without one has no text and a reason, never a sentinel.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.contract.rows import Answer, Message, Translation
from selfimprove_pipeline.engine import Completion, Request, row_seed
from selfimprove_pipeline.method import conversation
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.text import languages

TEMPLATE: Final = (
    "Please translate the following sentences into {language}. The input sentences are wrapped "
    "by <sentence> and </sentence>:\n\n<sentence>\n{text}\n</sentence>\n\n"
    "The translated result should be wrapped by <translated> and </translated>."
)
PREFILL: Final = "<translated>\n"
CLOSING_TAG: Final = "</translated>"
BUDGET_FACTOR: Final = 3
BUDGET_EXTRA: Final = 64

_TRANSLATED: Final = re.compile(r"<translated>(.*?)</translated>", re.DOTALL)


@dataclass(frozen=True)
class Direction:
    """One of the 2K translations of an iteration."""

    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One answer to translate, for a translator that is not the model itself."""

    key: str
    """key names the passage in its completion, as that of a `Request` does."""

    text: str
    direction: Direction
    messages: tuple[Message, ...]
    """messages ask for the translation; a translation model needs only the text."""

    max_tokens: int
    temperature: float
    seed: int


def messages(text: str, target: str, spec: Spec) -> tuple[Message, ...]:
    """Return the conversation that asks for a translation."""
    asked = TEMPLATE.format(language=languages.name(target), text=text)
    return conversation.of_text(asked, spec.chat)


def has_source(answer: Answer) -> bool:
    """Return whether there is a text to translate."""
    return bool(answer.completion)


def request(
    answer: Answer, direction: Direction, spec: Spec, renderer: Renderer, attempt: int = 1
) -> Request:
    """Return the request for an answer with a text; attempts after the first are sampled."""
    translation = spec.translation
    return Request(
        key=answer.id,
        group=f"translate/{direction.source}_{direction.target}#{attempt}",
        prompt=renderer.prompt_ids(
            messages(answer.completion, direction.target, spec), prefill=PREFILL
        ),
        max_tokens=max_tokens(renderer.num_tokens(answer.completion), spec),
        temperature=_temperature(spec, attempt),
        repetition_penalty=translation.repetition_penalty,
        seed=_seed(answer, direction, spec, attempt),
        stop=(CLOSING_TAG,) if translation.stop_at_closing_tag else (),
    )


def passage(answer: Answer, direction: Direction, spec: Spec, attempt: int = 1) -> Passage:
    """Return the passage for an answer with a text, as `request` does for the model itself.

    A budget by the source's tokens does not apply: their number is the translator's to know.
    """
    return Passage(
        key=answer.id,
        text=answer.completion,
        direction=direction,
        messages=messages(answer.completion, direction.target, spec),
        max_tokens=spec.translation.max_tokens,
        temperature=_temperature(spec, attempt),
        seed=_seed(answer, direction, spec, attempt),
    )


def _temperature(spec: Spec, attempt: int) -> float:
    translation = spec.translation
    return translation.retry_temperature if attempt > 1 else translation.temperature


def _seed(answer: Answer, direction: Direction, spec: Spec, attempt: int) -> int:
    names = (answer.id, direction.source, direction.target, str(attempt))
    return row_seed(spec.generation.seed, *names)


def max_tokens(source_tokens: int, spec: Spec) -> int:
    """Return the token limit of a translation: a runaway must not cost the whole limit."""
    limit = spec.translation.max_tokens
    if not spec.translation.source_length_budget:
        return limit
    return min(limit, BUDGET_FACTOR * source_tokens + BUDGET_EXTRA)


def translation(completion: Completion, direction: Direction, *, attempt: int) -> Translation:
    """Return the row of a completion, with its text or the reason that it has none."""
    text, error = parse(completion)
    return Translation(
        id=completion.key,
        source=direction.source,
        target=direction.target,
        text=text,
        error=error,
        finish_reason=completion.finish_reason,
        attempts=attempt,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
    )


def without_source(answer: Answer, direction: Direction) -> Translation:
    """Return the row of an answer that has no text to translate."""
    return Translation(
        id=answer.id,
        source=direction.source,
        target=direction.target,
        text=None,
        error="noSource",
        finish_reason="overlong" if answer.finish_reason == "overlong" else "stop",
        attempts=0,
        prompt_tokens=0,
        completion_tokens=0,
    )


def parse(completion: Completion) -> tuple[str | None, str | None]:
    """Return the text between the first pair of tags, or None and the reason.

    The opening tag of the prefill counts as the first one, so an opening tag inside the
    completion is part of the text. A translation without any text is a text in this sense;
    the filter `empty` judges it.
    """
    if completion.finish_reason == "overlong":
        return None, "overlong"
    is_closed = completion.stop_text == CLOSING_TAG
    written = PREFILL + completion.text + (CLOSING_TAG if is_closed else "")
    found = _TRANSLATED.search(written)
    if found is None:
        return None, "truncated" if completion.finish_reason == "length" else "unclosed"
    return found.group(1).strip(), None


def needs_retry(row: Translation, spec: Spec) -> bool:
    """Return whether another attempt may give a text that this one did not."""
    may_retry = row.attempts <= spec.translation.retries
    return may_retry and row.error not in ("noSource", "overlong") and not row.text


def next_attempt(answer: Answer, earlier: Translation | None, spec: Spec) -> int | None:
    """Return the number of the attempt that an answer needs, None where it needs none."""
    if earlier is None:
        return 1 if has_source(answer) else None
    return earlier.attempts + 1 if needs_retry(earlier, spec) else None


def in_rounds(attempts: Mapping[str, int]) -> dict[str, int]:
    """Return the attempts of one round: the earliest ones, so first all first attempts."""
    earliest = min(attempts.values(), default=0)
    return {name: attempt for name, attempt in attempts.items() if attempt == earliest}


def counts(rows: Sequence[Translation]) -> dict[str, int]:
    """Return how many translations have no text and how many needed a second attempt."""
    return {
        "untranslated": sum(row.text is None for row in rows),
        "retried": sum(row.attempts > 1 for row in rows),
    }
