"""A translator behind an OpenAI-compatible endpoint: the only importer of the openai package.

It is asked with the template of `translate`, without a prefill, because chat endpoints do not
continue a begun turn. Eight passages are under way at a time. The key comes from the
environment alone, and no message repeats it, not even where the endpoint does.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Final

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from selfimprove_pipeline.artifacts import FinishReason, Message
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.errors import InputError, SelfImproveError, TryAgainError
from selfimprove_pipeline.translate import CLOSING_TAG, PREFILL, Passage

CONCURRENCY: Final = 8
RETRIES: Final = 6
"""Retries of one request, by the client: half a second, doubled up to eight, or Retry-After."""

KEY: Final = "OPENAI_API_KEY"
NO_KEY: Final = "none"

_OPENING_TAG: Final = PREFILL.strip()
_PASSING: Final = (408, 409, 429)
"""Statuses besides 5xx that the same request may outlive."""
_LONGEST_TOLD: Final = 300


class OpenAITranslator:
    """Translates with the chat completions of one model of one endpoint."""

    def __init__(self, base_url: str, model: str, *, retries: int = RETRIES) -> None:
        """Make the client; the endpoint is first asked by `complete`."""
        began = time.perf_counter()
        self._base_url = base_url
        self._model = model
        self._key = os.environ.get(KEY) or NO_KEY
        self._client = openai.OpenAI(base_url=base_url, api_key=self._key, max_retries=retries)
        self._start_seconds = time.perf_counter() - began

    @property
    def start_seconds(self) -> float:
        """Seconds that making the client took."""
        return self._start_seconds

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of the openai package."""
        return {"openai": openai.__version__}

    def complete(self, requests: Iterable[Passage]) -> Iterator[Completion]:
        """Yield each passage's completion as it finishes.

        At the first error no more passages are sent; those under way are still yielded, because
        they are paid for, and then the error is raised.
        """
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="translator") as pool:
            futures = [pool.submit(self._ask, passage) for passage in requests]
            try:
                yield from _results(futures)
            finally:
                pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, passage: Passage) -> Completion:
        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                messages=[_turn(message) for message in passage.messages],
                temperature=passage.temperature,
                max_tokens=passage.max_tokens,
                seed=passage.seed,
            )
        except openai.OpenAIError as error:
            if _is_overlong(error):
                return _completion(passage.key, "", "overlong")
            # Not chained: what the endpoint answered may hold the key.
            raise self._error(error) from None
        return self._read(passage.key, answer)

    def _read(self, key: str, answer: ChatCompletion) -> Completion:
        """Return what stands between the tags; without the opening one there is no text."""
        # The client passes on whatever a server answers with status 200.
        if not isinstance(answer, ChatCompletion) or not answer.choices:
            found = self._expected("to answer with a chat completion", "something else")
            message = f"{found}; check baseUrl, which ends in /v1 with most servers"
            raise InputError(message)
        choice = answer.choices[0]
        opened = (choice.message.content or "").partition(_OPENING_TAG)[2]
        text, closing, _ = opened.partition(CLOSING_TAG)
        is_cut = choice.finish_reason == "length" and not closing
        return _completion(
            key,
            text,
            "length" if is_cut else "stop",
            stop_text=closing or None,
            prompt_tokens=answer.usage.prompt_tokens if answer.usage else 0,
            completion_tokens=answer.usage.completion_tokens if answer.usage else 0,
        )

    def _error(self, error: openai.OpenAIError) -> SelfImproveError:
        """Return the error with its one line: who may act, and on what."""
        if not isinstance(error, openai.APIStatusError):
            found = self._expected("to answer", type(error).__name__)
            return TryAgainError(f"{found}; run it again when the endpoint can be reached")
        status = error.status_code
        found = f"HTTP {status}"
        if status in _PASSING or status >= 500:  # noqa: PLR2004  5xx: the server's own failure
            return TryAgainError(f"{self._expected('to answer', found)}; run it again later")
        if status in (401, 403):
            message = self._expected(f"to accept the key in {KEY}", found)
            return InputError(f"{message}; set {KEY} to a key that may use {self._model}")
        if status == 404:  # noqa: PLR2004  its number is its name
            message = self._expected(f"to serve {self._model}", found)
            return InputError(f"{message}; check model and baseUrl")
        message = self._expected("to accept the request", f"{found}: {self._told(error)}")
        return InputError(message)

    def _expected(self, what: str, found: str) -> str:
        return f"translation.external: expected {self._base_url} {what}, found {found}"

    def _told(self, error: openai.APIStatusError) -> str:
        """Return what the endpoint says, in one line and without the key."""
        told = " ".join(error.message.replace(self._key, "***").split())
        return told[:_LONGEST_TOLD]


def _results(futures: list[Future[Completion]]) -> Iterator[Completion]:
    failure: BaseException | None = None
    for future in as_completed(futures):
        if future.cancelled():
            continue
        error = future.exception()
        if error is None:
            yield future.result()
        elif failure is None:
            failure = error
            for other in futures:
                other.cancel()
    if failure is not None:
        raise failure


def _turn(message: Message) -> ChatCompletionMessageParam:
    if message.role == "system":
        return {"role": "system", "content": message.content}
    return {"role": "user", "content": message.content}


def _is_overlong(error: openai.OpenAIError) -> bool:
    """Return whether the prompt did not fit, which OpenAI tells by code and vLLM by message."""
    if not isinstance(error, openai.BadRequestError):
        return False
    return error.code == "context_length_exceeded" or "maximum context length" in error.message


def _completion(  # noqa: PLR0913  one for each field of a completion
    key: str,
    text: str,
    finish_reason: FinishReason,
    *,
    stop_text: str | None = None,
    prompt_tokens: int = 0,
    completion_tokens: int = 0,
) -> Completion:
    return Completion(
        key=key,
        text=text,
        finish_reason=finish_reason,
        stop_text=stop_text,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )
