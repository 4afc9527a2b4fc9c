"""The judge of the recipe: it answers the questions of `contests`, within its budget.

It takes an engine's place when the engine has ended. Its key comes from the environment, and its
budget counts what earlier processes have spent, which `tasks.judge` knows.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from selfimprove_pipeline.contract.environment import JUDGE
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Judge, Spec
from selfimprove_pipeline.external import Spent
from selfimprove_pipeline.external.endpoint import (
    KEY,
    NO_KEY,
    RETRIES,
    TIMEOUT,
    VERSIONS,
    Endpoint,
    Place,
    in_window,
)
from selfimprove_pipeline.measuring.judged.questions import Opinion, Question

OWN_KEY: Final = f"{JUDGE}OPENAI_API_KEY"
"""Environment variable with the judge's key where it is not that of the translator."""


class OpenAIJudge:
    """Judges with the chat completions of one model of one endpoint."""

    def __init__(
        self,
        judge: Judge,
        key: tuple[str, str],
        spent: Spent,
        *,
        retries: int = RETRIES,
        timeout: float = TIMEOUT,
    ) -> None:
        """Make the client; `key` is the name of its variable and its value."""
        name, value = key
        place = Place(
            field="evaluation.judge",
            base_url=judge.base_url,
            model=judge.model,
            key=value,
            key_name=name,
        )
        self._judge = judge
        self._spent = spent
        self._under_way = 0
        self._endpoint = Endpoint(place, retries=retries, timeout=timeout)

    @property
    def start_seconds(self) -> float:
        """Seconds that making the client took."""
        return self._endpoint.start_seconds

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of the openai package."""
        return VERSIONS

    def complete(self, requests: Iterable[Question]) -> Iterator[Opinion]:
        """Yield each question's answer as it comes; an `InputError` tells of a spent budget."""
        waiting = iter(requests)
        concurrency = self._judge.max_concurrency
        for opinion in in_window(self._ask, self._affordable(waiting), concurrency=concurrency):
            self._under_way -= 1
            self._spent.add(opinion.prompt_tokens, opinion.completion_tokens)
            yield opinion
        left = sum(1 for _ in waiting)
        if left:
            raise InputError(self._too_much(left))

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _affordable(self, requests: Iterator[Question]) -> Iterator[Question]:
        """Yield questions while there is budget for one more."""
        while self._has_budget():
            question = next(requests, None)
            if question is None:
                return
            self._under_way += 1
            yield question

    def _has_budget(self) -> bool:
        budget, spent = self._judge.budget, self._spent
        limited = (
            (budget.requests, spent.requests + self._under_way),
            (budget.tokens, spent.tokens),
            (budget.money, spent.money(budget)),
        )
        return all(limit is None or found < limit for limit, found in limited)

    def _too_much(self, left: int) -> str:
        budget, spent = self._judge.budget, self._spent
        limits = {"requests": budget.requests, "tokens": budget.tokens, "of money": budget.money}
        shown = " and ".join(f"{limit} {name}" for name, limit in limits.items() if limit)
        return (
            f"evaluation.judge.budget: expected {shown} to be enough, found {spent.requests} "
            f"requests and {spent.tokens} tokens{_price(spent.money(budget))} spent and {left} "
            "questions left; verdicts are kept, raise the budget and run again"
        )

    def _ask(self, question: Question) -> Opinion:
        reply = self._endpoint.ask(
            question.messages,
            wants_candidates=True,
            temperature=0.0,
            max_tokens=question.max_tokens,
        )
        return Opinion(
            key=question.key,
            text=reply.text,
            finish_reason=reply.finish_reason,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            first_token=reply.first_token,
        )


def _price(money: float) -> str:
    return f" for {money:.2f}" if money else ""


def key_of(spec: Spec | None, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the variable of the judge's key and its value.

    The plain variable counts unless it is the key of a translator at another endpoint.
    """
    external = spec.translation.external if spec else None
    judge = spec.evaluation.judge if spec else None
    translators = external.base_url if external else None
    is_shared = judge is None or translators in (None, judge.base_url)
    name = KEY if is_shared and not environment.get(OWN_KEY) else OWN_KEY
    return name, environment.get(name) or NO_KEY
