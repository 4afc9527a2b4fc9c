"""The rows that a recipe asks for, each with the four texts that meet in it.

For another language n and the dominant language d, text that began in d is preferred:

- prompt in n: the translation d->n of the dominant answer over the model's own answer in n;
- prompt in d: the model's own answer over the translation n->d of the other answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.contract.rows import Answer, Prompt, Translation

Direction = tuple[str, str]


@dataclass(frozen=True)
class Texts:
    """What an iteration has made, by language or (source, target), each by prompt id."""

    prompts: Mapping[str, Sequence[Prompt]]
    answers: Mapping[str, Mapping[str, Answer]]
    translations: Mapping[Direction, Mapping[str, Translation]]


@dataclass(frozen=True)
class Candidate:
    """A row that becomes a pair unless a reason speaks against it."""

    prompt: Prompt
    language: str
    """language of the prompt."""
    partner: str
    own: Answer
    """own is the answer to this prompt in its language."""
    source: Answer
    """source is the partner's answer, which was translated into this language."""
    translation: Translation
    opposite: Translation
    """opposite is the translation of the own answer into the partner's language."""
    is_dominant: bool
    is_about_translation: bool = False
    """is_about_translation rows keep the dominant answer untranslated."""

    @property
    def preferred(self) -> str | None:
        """The text that becomes chosen; None where there is none."""
        if self.is_dominant:
            return _text(self.own)
        return _text(self.source) if self.is_about_translation else self.translation.text

    @property
    def dispreferred(self) -> str | None:
        """The text that becomes rejected; None where there is none."""
        return self.translation.text if self.is_dominant else _text(self.own)

    @property
    def needs_translation(self) -> bool:
        """Whether one of its two texts is the translation."""
        return not self.is_about_translation


def candidates(texts: Texts, spec: Spec) -> Iterator[Candidate]:
    """Yield every row that the recipe asks for, language by language, in prompt order."""
    dominant = spec.languages.dominant
    for position, prompt in enumerate(texts.prompts[dominant]):
        for partner in partners(position, spec):
            yield _candidate(texts, prompt, dominant, partner, spec)
    for language in spec.languages.others:
        for prompt in texts.prompts[language]:
            yield _candidate(texts, prompt, language, dominant, spec)


def partners(position: int, spec: Spec) -> tuple[str, ...]:
    """Return the languages that give the dominant pairs of the prompt at a position."""
    others = spec.languages.others
    match spec.pairing.dominant_pairs:
        case "one":
            return (others[-1],)
        case "roundRobin":
            return (others[position % len(others)],)
        case "all":
            return others


def _candidate(texts: Texts, prompt: Prompt, language: str, partner: str, spec: Spec) -> Candidate:
    is_dominant = language == spec.languages.dominant
    return Candidate(
        prompt=prompt,
        language=language,
        partner=partner,
        own=texts.answers[language][prompt.id],
        source=texts.answers[partner][prompt.id],
        translation=texts.translations[partner, language][prompt.id],
        opposite=texts.translations[language, partner][prompt.id],
        is_dominant=is_dominant,
        is_about_translation=(not is_dominant and prompt.id in spec.pairing.translation_prompt_ids),
    )


def _text(answer: Answer) -> str | None:
    """Return the text of an answer, None when the prompt was too long to be answered."""
    return None if answer.finish_reason == "overlong" else answer.completion
