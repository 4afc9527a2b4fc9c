"""A translator behind an OpenAI-compatible endpoint.

It is asked with the template of `translate`, without a prefill, because chat endpoints do not
continue a begun turn. Eight passages are under way at a time. The key comes from the
environment alone.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.external.endpoint import (
    KEY,
    NO_KEY,
    RETRIES,
    VERSIONS,
    Endpoint,
    Place,
    in_window,
)
from selfimprove_pipeline.method.translate import CLOSING_TAG, PREFILL, Passage

CONCURRENCY: Final = 8

_OPENING_TAG: Final = PREFILL.strip()


class OpenAITranslator:
    """Translates with the chat completions of one model of one endpoint."""

    def __init__(self, base_url: str, model: str, *, retries: int = RETRIES) -> None:
        """Make the client; the endpoint is first asked by `complete`."""
        place = Place(
            field="translation.external",
            base_url=base_url,
            model=model,
            key=os.environ.get(KEY) or NO_KEY,
        )
        self._endpoint = Endpoint(place, retries=retries)

    @property
    def start_seconds(self) -> float:
        """Seconds that making the client took."""
        return self._endpoint.start_seconds

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of the openai package."""
        return VERSIONS

    def complete(self, requests: Iterable[Passage]) -> Iterator[Completion]:
        """Yield each passage's completion as it finishes, those before an error too."""
        yield from in_window(self._ask, requests, concurrency=CONCURRENCY)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _ask(self, passage: Passage) -> Completion:
        """Return what stands between the tags; without the opening one there is no text."""
        reply = self._endpoint.ask(
            passage.messages,
            temperature=passage.temperature,
            max_tokens=passage.max_tokens,
            seed=passage.seed,
        )
        if not reply.has_choice:
            raise self._endpoint.no_completion()
        text, closing, _ = reply.text.partition(_OPENING_TAG)[2].partition(CLOSING_TAG)
        return Completion(
            key=passage.key,
            text=text,
            # A closed translation is whole, wherever the rest was cut.
            finish_reason="stop" if closing else reply.finish_reason,
            stop_text=closing or None,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        )
