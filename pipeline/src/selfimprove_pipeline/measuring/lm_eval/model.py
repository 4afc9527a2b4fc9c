"""Our engines as a model of lm-eval: its requests become ours, our completions its answers.

Tokens, windows, truncation and stops are those of lm-eval's own backends, from its own functions
where it has them. The model holds no engine: it hands its requests to a function and waits. Only
this package imports lm-eval.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import digest
from selfimprove_pipeline.contract.rows import Message
from selfimprove_pipeline.engine import Completion, Request, row_seed
from selfimprove_pipeline.method.rendering import Renderer

Answer = Callable[[Sequence[Request]], Mapping[str, Completion]]
"""What answers requests, all of them, by their key."""

MAX_GEN_TOKS: Final = 256
"""Tokens of a text whose task names no limit, as in lm-eval's own backends."""
SAMPLING: Final = frozenset({"top_p", "top_k", "min_p"})
"""Arguments without meaning when the likeliest token is taken."""
UNDERSTOOD: Final = frozenset(
    {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "repetition_penalty"}
)

_Scored = tuple[tuple[str, str] | None, list[int], list[int]]


class EngineLM(TemplateLM):  # type: ignore[misc]  # theirs has no types
    """A model of lm-eval that asks `answer`."""

    def __init__(self, renderer: Renderer, answer: Answer, *, max_length: int, group: str) -> None:
        """Take the tokenizer's side of a model and what answers for the model itself.

        `max_length` is the longest prompt that can be scored, in tokens: one less than the
        engine's longest, which has room for a new token. `group` is that of every request.
        """
        super().__init__()
        self.max_length = max_length
        self._renderer = renderer
        self._answer = answer
        self._group = group
        self.written: dict[str, Completion] = {}
        """written is the first completion that each context got a text with."""

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        return self._renderer.end_id

    @property
    def prefix_token_id(self) -> int:
        """The id that stands before a text without context."""
        return self._renderer.first_id

    @property
    def tokenizer_name(self) -> str:
        """The digest of template and tokens."""
        return self._renderer.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the chat template in use; there are no others to choose from."""
        return self._renderer.template if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as text."""
        messages = [Message.model_validate(message) for message in chat_history]
        return self._renderer.history_text(messages, is_open=add_generation_prompt)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the ids of a text."""
        return list(self._renderer.text_ids(string, is_marked=add_special_tokens))

    def loglikelihood(self, requests: list[Instance], **_: Any) -> list[tuple[float, bool]]:
        """Return what a continuation's tokens come to in nats, and whether they are greedy."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], **_: Any) -> list[float]:
        """Return what all tokens of a text come to in nats, window by window."""
        windows = [self._windows(request) for request in requests]
        found = iter(self._loglikelihood_tokens([(None, *one) for some in windows for one in some]))
        return [sum(next(found)[0] for _ in some) for some in windows]

    def generate_until(self, requests: list[Instance], **_: Any) -> list[str]:
        """Return the text that follows each context, up to what ends it."""
        asked = self._distinct(self._text(instance) for instance in requests)
        completions = self._answer(asked)
        texts = []
        for instance, request in zip(requests, asked, strict=True):
            completion = completions[request.key]
            self.written.setdefault(instance.args[0], completion)
            texts.append(
                postprocess_generated_text(
                    completion.text, list(request.stop), think_end_token=None
                )
            )
        return texts

    def _loglikelihood_tokens(
        self, requests: Sequence[_Scored], **_: Any
    ) -> list[tuple[float, bool]]:
        asked = [self._score(context, continuation) for _, context, continuation in requests]
        completions = self._answer(asked)
        return [_likelihood(completions[request.key]) for request in asked]

    def _windows(self, request: Instance) -> list[tuple[list[int], list[int]]]:
        """Return context and scored tokens of each window; a window fills the longest prompt."""
        (text,) = request.args
        windows = utils.get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length - 1,
            context_len=1,
        )
        return [utils.make_disjoint_window(window) for window in windows]

    def _score(self, context: list[int], continuation: list[int]) -> Request:
        """Return the request for a continuation; a context too long loses its beginning."""
        prompt = tuple((context + continuation)[-self.max_length :])
        if not 0 < len(continuation) < len(prompt):
            self._refuse(f"an option of 1 to {self.max_length - 1} tokens", str(len(continuation)))
        return self._keyed(
            Request(
                key="", group=self._group, prompt=prompt, max_tokens=1, scored=len(continuation)
            )
        )

    def _text(self, instance: Instance) -> Request:
        """Return the request for a text; its context keeps the end that leaves room for it."""
        context, given = instance.args
        arguments: dict[str, Any] = {**normalize_gen_kwargs(given, MAX_GEN_TOKS)}
        is_sampled = bool(arguments["do_sample"])
        understood = UNDERSTOOD if is_sampled else UNDERSTOOD | SAMPLING
        if unknown := sorted(arguments.keys() - understood):
            self._refuse(f"generation_kwargs among {', '.join(sorted(UNDERSTOOD))}", unknown[0])
        room = self.max_length - arguments["max_gen_toks"]
        if room <= 0:
            self._refuse(f"max_gen_toks below {self.max_length}", str(arguments["max_gen_toks"]))
        stops = handle_stop_sequences(arguments["until"], eos=self._renderer.end_text)
        request = Request(
            key="",
            group=self._group,
            prompt=tuple(self.tok_encode(context)[-room:]),
            max_tokens=arguments["max_gen_toks"],
            temperature=arguments.get("temperature", 1.0) if is_sampled else 0.0,
            top_p=arguments.get("top_p", 1.0) if is_sampled else 1.0,
            repetition_penalty=arguments.get("repetition_penalty", 1.0),
            stop=tuple(stop for stop in stops if stop),
        )
        return self._keyed(request)

    def _distinct(self, requests: Iterable[Request]) -> list[Request]:
        """Give each repetition of a sampled request a seed, and so a key, of its own."""
        times: Counter[str] = Counter()
        distinct = []
        for request in requests:
            times[request.key] += 1
            seed = row_seed(0, request.key, str(times[request.key]))
            is_sampled = request.temperature > 0
            distinct.append(self._keyed(replace(request, seed=seed)) if is_sampled else request)
        return distinct

    def _keyed(self, request: Request) -> Request:
        """Return a request under the digest of all that decides its completion."""
        content = {
            "prompt": request.prompt,
            "scored": request.scored,
            "maxTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "repetitionPenalty": request.repetition_penalty,
            "seed": request.seed,
            "stop": request.stop,
        }
        return replace(request, key=digest(content)[:32])

    def _refuse(self, expected: str, found: str) -> NoReturn:
        msg = (
            f"expected {expected}, found {found}; change the task's YAML, or raise "
            "inference.maxModelLen if the model can"
        )
        raise InputError(msg)


def _likelihood(completion: Completion) -> tuple[float, bool]:
    if completion.log_likelihood is None or completion.is_greedy is None:
        msg = f"expected a log-likelihood of request {completion.key}, found none"
        raise RuntimeError(msg)
    return completion.log_likelihood, completion.is_greedy
