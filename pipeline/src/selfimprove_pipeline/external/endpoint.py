"""A model behind an OpenAI-compatible endpoint: the only importer of the openai package.

`openai` asks it for translations and `openai_judge` for verdicts. The client retries what passes,
with back-off or after as long as Retry-After says, up to two minutes. No message repeats the key,
not even where the endpoint does.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from openai.types.chat.chat_completion import Choice

from selfimprove_pipeline.contract.errors import InputError, SelfImproveError, TryAgainError
from selfimprove_pipeline.contract.rows import FinishReason, Message

RETRIES: Final = 6
"""Retries of one request, by the client: half a second, doubled up to eight, or Retry-After."""
TIMEOUT: Final = 600.0
"""Seconds without an answer after which a request is lost."""
CANDIDATES: Final = 20
"""Likeliest first tokens that are asked for, the most that such endpoints give."""

VERSIONS: Final[Mapping[str, str]] = {"openai": openai.__version__}
KEY: Final = "OPENAI_API_KEY"
NO_KEY: Final = "none"

_PASSING: Final = (408, 409, 429)
"""Statuses besides 5xx that the same request may outlive."""
_LONGEST_TOLD: Final = 300

AskedT = TypeVar("AskedT")
MadeT = TypeVar("MadeT")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model answered."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    has_choice: bool = True
    """has_choice is false if the reply holds no answer of the model."""
    first_token: Mapping[str, float] = field(default_factory=dict)
    """first_token holds the probabilities of the likeliest first tokens, if the endpoint gives
    them."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which model is asked where, and which field of the recipe says so."""

    field: str
    base_url: str
    model: str
    key: str = NO_KEY
    key_name: str = KEY
    """key_name is the environment variable that the key is from."""


class Endpoint:
    """The chat completions of one model; its methods may be called from several threads."""

    def __init__(self, place: Place, *, retries: int = RETRIES, timeout: float = TIMEOUT) -> None:
        began = time.perf_counter()
        self._place = place
        self._retries = retries
        self._offers_candidates = True
        self._client = openai.OpenAI(
            base_url=place.base_url, api_key=place.key, max_retries=retries, timeout=timeout
        )
        self.start_seconds: Final = time.perf_counter() - began

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(
        self, messages: Sequence[Message], *, wants_candidates: bool = False, **sampling: Any
    ) -> Reply:
        """Return the answer to a conversation; one that is too long gives an `overlong` reply."""
        candidates = {"logprobs": True, "top_logprobs": CANDIDATES} if wants_candidates else {}
        try:
            if candidates and self._offers_candidates:
                with suppress(_NoCandidatesError):
                    return self._asked(messages, {**sampling, **candidates})
                self._offers_candidates = False
            return self._asked(messages, sampling)
        except openai.OpenAIError as error:
            if _is_overlong(error):
                return Reply(text="", finish_reason="overlong")
            # Not chained: what the endpoint answered may hold the key.
            raise self._error(error) from None

    def no_completion(self) -> InputError:
        """Return the error of an endpoint that answers with something else."""
        found = self._expected("to answer with a chat completion", "something else")
        return InputError(f"{found}; check baseUrl, which ends in /v1 with most servers")

    def _asked(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Reply:
        turns = [_turn(message) for message in messages]
        try:
            answer = self._created(turns, options)
        except openai.BadRequestError as error:
            if "logprobs" in options and "logprob" in error.message.lower():
                raise _NoCandidatesError from None
            raise
        # The client passes on whatever a server answers with status 200.
        if not isinstance(answer, ChatCompletion) or not isinstance(answer.choices, list):
            raise self.no_completion()
        return _reply(answer)

    def _created(self, turns: list[ChatCompletionMessageParam], options: Mapping[str, Any]) -> Any:
        """Return what the endpoint answers; broken JSON, which no client retries, is asked again.

        The client returns text where a server answers with a page.
        """
        for _ in range(self._retries + 1):
            with suppress(json.JSONDecodeError, UnicodeDecodeError):
                return self._client.chat.completions.create(
                    model=self._place.model, messages=turns, **options
                )
        found = self._expected("to answer with JSON", "broken JSON")
        message = f"{found}; run it again later"
        raise TryAgainError(message)

    def _error(self, error: openai.OpenAIError) -> SelfImproveError:
        """Return the error with its one line: who may act, and on what."""
        place = self._place
        if not isinstance(error, openai.APIStatusError):
            found = self._expected("to answer", type(error).__name__)
            return TryAgainError(f"{found}; run it again when the endpoint can be reached")
        status = error.status_code
        found = f"HTTP {status}"
        if status in _PASSING or status >= 500:  # noqa: PLR2004  5xx: the server's own failure
            return TryAgainError(f"{self._expected('to answer', found)}; run it again later")
        if status in (401, 403):
            message = self._expected(f"to accept the key in {place.key_name}", found)
            return InputError(
                f"{message}; set {place.key_name} to a key that may use {place.model}"
            )
        if status == 404:  # noqa: PLR2004  its number is its name
            message = self._expected(f"to serve {place.model}", found)
            return InputError(f"{message}; check model and baseUrl")
        message = self._expected("to accept the request", f"{found}: {self._told(error)}")
        return InputError(message)

    def _expected(self, what: str, found: str) -> str:
        return f"{self._place.field}: expected {self._place.base_url} {what}, found {found}"

    def _told(self, error: openai.APIStatusError) -> str:
        """Return what the endpoint says, in one line and without the key."""
        told = " ".join(error.message.replace(self._place.key, "***").split())
        return told[:_LONGEST_TOLD]


class _NoCandidatesError(Exception):
    """The endpoint refuses a request for the probabilities of tokens."""


def in_window(
    ask: Callable[[AskedT], MadeT], requests: Iterable[AskedT], *, concurrency: int
) -> Iterator[MadeT]:
    """Yield what each request gives, as it comes, from as many threads as may ask at a time.

    More is asked only when what came has been taken, so whoever keeps each at once loses at most
    `concurrency` of them. At the first error no more is asked; what is under way is still
    yielded, because it is paid for, and then the error is raised.
    """
    waiting = iter(requests)
    running: set[Future[MadeT]] = set()
    failure: BaseException | None = None
    with ThreadPoolExecutor(concurrency, thread_name_prefix="endpoint") as pool:
        try:
            while True:
                while failure is None and len(running) < concurrency:
                    request = next(waiting, None)
                    if request is None:
                        break
                    running.add(pool.submit(ask, request))
                if not running:
                    break
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    if error is None:
                        yield future.result()
                    else:
                        failure = failure or error
        finally:
            pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure


def _reply(answer: ChatCompletion) -> Reply:
    choice = answer.choices[0] if answer.choices else None
    is_cut = choice is not None and choice.finish_reason == "length"
    return Reply(
        text=(choice.message.content or "") if choice else "",
        finish_reason="length" if is_cut else "stop",
        prompt_tokens=answer.usage.prompt_tokens if answer.usage else 0,
        completion_tokens=answer.usage.completion_tokens if answer.usage else 0,
        has_choice=choice is not None,
        first_token=_first_token(choice) if choice else {},
    )


def _first_token(choice: Choice) -> dict[str, float]:
    """Return the probabilities of the first token's candidates."""
    tokens = choice.logprobs.content if choice.logprobs else None
    found: dict[str, float] = {}
    for candidate in tokens[0].top_logprobs or () if tokens else ():
        probability = math.exp(min(0.0, candidate.logprob))
        found[candidate.token] = found.get(candidate.token, 0.0) + probability
    return found


def _turn(message: Message) -> ChatCompletionMessageParam:
    if message.role == "system":
        return {"role": "system", "content": message.content}
    return {"role": "user", "content": message.content}


def _is_overlong(error: openai.OpenAIError) -> bool:
    """Return whether the prompt did not fit, which OpenAI tells by code and vLLM by message."""
    if not isinstance(error, openai.BadRequestError):
        return False
    return error.code == "context_length_exceeded" or "maximum context length" in error.message
