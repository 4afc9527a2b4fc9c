"""Evaluate: what a model answers to held-out prompts, and what can be measured on it.

No other stage reads what is made here. Answers are greedy, so that two models differ by
their weights alone.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.recipe import Spec, Suite
from selfimprove_pipeline.contract.rows import Evaluated, Prompt
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.inputs.suites import packages
from selfimprove_pipeline.method import conversation
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.text import final_answer, languages
from selfimprove_pipeline.text.languages import Identify
from selfimprove_pipeline.text.matching import is_match

EVASIVE: Final = re.compile(
    r"^\W*("
    r"i (do not|don't) know|i (cannot|can't|am unable to|'m unable to)|i'm sorry|as an ai"
    r"|no idea|(that|it)('s| is) hard to say"
    r"|no lo se|no (puedo|se )|lo siento|(no tengo )?ni idea|(eso )?es dificil (de )?decir"
    r"|ich weiss (es )?nicht|das weiss ich nicht|ich kann (das |es )?nicht|das kann ich nicht"
    r"|keine ahnung|das ist schwer zu sagen|es tut mir leid"
    r"|je ne sais pas|je ne peux pas|je suis desole|desole|c'est difficile a dire"
    r"|non lo so|non posso|mi dispiace|nao sei|nao posso|desculpe"
    r"|я не знаю|не знаю|я не могу|извините"
    r"|我不知道|我无法|对不起|抱歉|わかりません|申し訳|모르겠|죄송"
    r")",
    re.IGNORECASE,
)
"""Beginnings of answers that decline, without accents; a rough measure, in the larger languages."""

PLAIN: Final = str.maketrans({"ß": "ss", "\N{RIGHT SINGLE QUOTATION MARK}": "'"})


def request(  # noqa: PLR0913  what is asked, in which language, how
    row: Prompt,
    language: str,
    suite: Suite,
    spec: Spec,
    renderer: Renderer,
    *,
    baseline: str | None = None,
    before: Evaluated | None = None,
) -> Request:
    """Return the request for a prompt of a suite in one language, put as a baseline does.

    `before` is the answer that the prompt follows on.
    """
    text = _put(row.prompt, language, baseline)
    asked = text if before is None else _put(before.prompt, language, baseline)
    messages = conversation.of_prompt(asked, language, spec)
    if before is not None:
        messages = conversation.continued(messages, before.completion, text)
    return Request(
        key=row.id,
        group=f"evaluate/{keys.suite_part(suite.name, language, baseline)}",
        prompt=renderer.prompt_ids(messages),
        max_tokens=suite.max_tokens or spec.generation.max_tokens,
        repetition_penalty=spec.generation.repetition_penalty,
        seed=spec.generation.seed,
    )


def _put(prompt: str, language: str, baseline: str | None) -> str:
    """Return a prompt as a baseline puts it."""
    if baseline == "languageInstruction":
        return conversation.with_language_instruction(prompt, language)
    return prompt


def evaluated(  # noqa: PLR0913  an answer, to what, in which language, how it is read
    completion: Completion,
    row: Prompt,
    language: str,
    identify: Identify,
    *,
    has_numbers: bool = False,
    package: str | None = None,
) -> Evaluated:
    """Return the row of a completion with what was measured on it.

    With numbers, the gold answer is a canonical one, and the number of the text is compared. Of
    a kind from another package that one scores.
    """
    text = completion.text.strip()
    identified = identify(text)
    written = identified or language
    if written == languages.base(language):
        written = language
    # Whoever answers in another language writes numbers as that one does.
    said = final_answer.extract(text, written) if has_numbers else text
    if package is not None:
        score = packages.score(package, text, row, language)
    else:
        score = _score(said, row)
    return Evaluated(
        id=row.id,
        language=language,
        prompt=row.prompt,
        completion=text,
        finish_reason=completion.finish_reason,
        completion_tokens=completion.completion_tokens,
        score=score,
        extracted=said if has_numbers else None,
        identified=identified,
        is_off_target=is_off_target(identified, language),
        is_empty=not text,
        is_evasive=is_evasive(text),
    )


def _score(said: str | None, row: Prompt) -> float | None:
    """Return 1 for what is the gold answer, 0 for what is not, None where there is none."""
    if row.answer is None:
        return None
    return float(said is not None and is_match(said, row.answer))


def measures(rows: Sequence[Evaluated]) -> dict[str, float]:
    """Return the rates of a suite in one language, each between 0 and 1, and the mean length.

    `score` is absent where the suite has no gold answers; `characters` is the mean length of
    the answers.
    """
    if not rows:
        return {}
    scores = [row.score for row in rows if row.score is not None]
    rates = {
        "offTarget": _mean([row.is_off_target for row in rows]),
        "empty": _mean([row.is_empty for row in rows]),
        "evasive": _mean([row.is_evasive for row in rows]),
        "truncated": _mean([row.finish_reason == "length" for row in rows]),
        "characters": _mean([len(row.completion) for row in rows]),
    }
    return {"score": _mean(scores), **rates} if scores else rates


def is_off_target(identified: str | None, language: str) -> bool:
    """Return whether the language of a text is known and another one than it should be."""
    right = (None, language, languages.base(language))
    return languages.is_identifiable(language) and identified not in right


def is_evasive(text: str) -> bool:
    """Return whether an answer begins by declining."""
    plain = "".join(
        character
        for character in unicodedata.normalize("NFD", text.translate(PLAIN))
        if unicodedata.category(character) != "Mn"
    )
    return EVASIVE.match(unicodedata.normalize("NFC", plain)) is not None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
