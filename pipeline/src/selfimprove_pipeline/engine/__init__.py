"""What the stages need of an inference engine, and nothing of what an engine is.

`Engine` has three implementations: `vllm_engine` (the only importer of vLLM), `transformers_engine`
(greedy and sampled decoding on processors, for tests and tiny models), and `pool`, several of one
of these, each in a process of its own. Prompts are token ids, made by `rendering`, so that no
engine renders or adds anything.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from selfimprove_pipeline.contract.rows import FinishReason


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt to complete."""

    key: str
    """key names the request in its completion; unique within one `complete` call."""

    group: str
    """group is the artifact that the row belongs to; a fixed-batch engine never mixes groups."""

    prompt: tuple[int, ...]
    """prompt as token ids."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    """seed of this row's sampling; without meaning at temperature 0."""

    stop: tuple[str, ...] = ()
    """stop are texts that end the completion and are not part of it."""

    scored: int = 0
    """scored is how many of the prompt's last tokens are asked for their log-likelihood, fewer than
    it has; nothing is written then, and what decides how text is made has no meaning."""

    @property
    def context(self) -> tuple[int, ...]:
        """The prompt without the tokens that are scored."""
        return self.prompt[: len(self.prompt) - self.scored]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The completion of one request."""

    key: str
    text: str
    """text without special tokens and without the stop text; empty when overlong."""

    finish_reason: FinishReason
    stop_text: str | None = None
    """stop_text is the text of `Request.stop` that ended it, None when the end of turn did."""

    prompt_tokens: int
    completion_tokens: int
    log_likelihood: float | None = None
    """log_likelihood is the sum of the scored tokens' log-probabilities in nats, each given all
    tokens before it; None where nothing was scored."""

    is_greedy: bool | None = None
    """is_greedy says whether each scored token is the likeliest one in its place."""


def row_seed(seed: int, *names: str) -> int:
    """Return the sampling seed of one row, the same whatever else runs beside it."""
    text = "\n".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


class Engine(Protocol):
    """A started engine that holds one model."""

    @property
    def start_seconds(self) -> float:
        """Seconds that the start took, imports and weights included."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that determine its output."""

    @property
    def max_model_len(self) -> int:
        """Longest prompt and completion together, in tokens."""

    @property
    def has_fixed_batches(self) -> bool:
        """Whether a row's bytes depend on the requests beside it.

        Requests then come in whole batches in an order that follows from the rows alone, and no
        None is among them.
        """

    @property
    def engines(self) -> int:
        """How many engines share the work: 1, or the children of a pool."""

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Yield each request's completion as it finishes, in any order.

        Requests are taken only as there is room for them. None means that there is none until
        another completion has been taken: the engine goes on with what it has and asks again, at
        the latest after that. None while nothing is under way raises RuntimeError.

        A prompt that leaves no room for a token yields `overlong` and stops nobody else, also
        where only the prompt is scored. A scored one yields no text and ends with `length`.
        """

    def close(self) -> None:
        """End the engine and every process it started."""
