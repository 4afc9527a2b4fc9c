"""Models beside the run's own: a translator for the translate stage, a judge for the suites.

`Translator` is to texts what `engine.Engine` is to token ids, and has two implementations:
`openai` and `transformers_model`. `openai_judge` answers the questions of `contests`; it and
`openai` ask by `endpoint`, the only importer of the openai package. All are imported when a recipe
asks for one; `versions` has what keys need of a translator, without. What they yield is parsed and
kept like the model's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from selfimprove_pipeline.contract.recipe import Judge, Spec
from selfimprove_pipeline.contract.recipe.evaluation import JudgeBudget
from selfimprove_pipeline.contract.recipe.sampling import External
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.external.versions import fingerprint
from selfimprove_pipeline.measuring.judged.questions import Opinion, Question
from selfimprove_pipeline.method.translate import Direction, Passage

__all__ = ["Questioned", "Spent", "Translator", "fingerprint", "judge", "translator"]


class Translator(Protocol):
    """A translator that is ready, or becomes so at its first passage."""

    @property
    def start_seconds(self) -> float:
        """Seconds until it was made, without weights that are loaded later."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that determine its output on this side."""

    def complete(self, requests: Iterable[Passage]) -> Iterator[Completion]:
        """Yield each passage's completion as it finishes, in any order.

        A completion whose stop text is the closing tag holds a whole translation; another one
        has none, and its finish reason says why.
        """

    def close(self) -> None:
        """End its connections and free its memory."""


@dataclass
class Spent:
    """What a judge has cost so far."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of questions and answers."""
        return self.prompt_tokens + self.completion_tokens

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one more answer."""
        self.requests += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def count(self, counts: Mapping[str, int]) -> None:
        """Count the answers that a manifest tells of, if it tells of any."""
        self.requests += counts.get("questions", 0)
        if "questions" in counts:
            self.prompt_tokens += counts["promptTokens"]
            self.completion_tokens += counts["completionTokens"]

    def money(self, budget: JudgeBudget) -> float:
        """Return the price of all tokens, 0 where the budget has no prices."""
        prompt, completion = budget.prompt_price or 0.0, budget.completion_price or 0.0
        return (self.prompt_tokens * prompt + self.completion_tokens * completion) / 1e6


class Questioned(Protocol):
    """A judge that is ready, or becomes so at its first question."""

    @property
    def start_seconds(self) -> float:
        """Seconds until it was made."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that ask it."""

    def complete(self, requests: Iterable[Question]) -> Iterator[Opinion]:
        """Yield each question's answer as it comes; an `InputError` tells of a spent budget."""

    def close(self) -> None:
        """End its connections."""


def judge(spec: Spec | None, described: Judge, spent: Spent) -> Questioned:
    """Return a judge that has spent something already; without a run there is no spec."""
    from selfimprove_pipeline.external import openai_judge  # noqa: PLC0415  most runs need none

    return openai_judge.OpenAIJudge(described, openai_judge.key_of(spec), spent)


def translator(external: External, spec: Spec) -> Translator:
    """Return the recipe's translator; one that cannot do a direction of the run is refused."""
    if external.kind == "openai":
        from selfimprove_pipeline.external import openai  # noqa: PLC0415  most runs need none

        return openai.OpenAITranslator(str(external.base_url), external.model)
    from selfimprove_pipeline.external import transformers_model  # noqa: PLC0415  heavy

    directions = [Direction(source, target) for source, target in spec.languages.directions()]
    return transformers_model.TransformersTranslator(external.model, directions)
