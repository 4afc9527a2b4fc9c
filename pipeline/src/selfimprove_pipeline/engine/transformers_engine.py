"""transformers as an `Engine`: fixed batches on the CPU, in this process, for tiny models.

A second implementation beside `vllm_engine`, slow and plain, whose results do not depend on what
else runs: a batch holds consecutive requests of one group in the order they came, so a row meets
the same neighbours whenever its artifact is made again.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tokenizers
import torch
import transformers
from tokenizers.decoders import DecodeStream

from selfimprove_pipeline.contract.rows import FinishReason
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.engine.batches import BATCH_SIZE, batches

_PADDING: Final = 0


class TransformersEngine:
    """A model in this process that decodes one fixed batch after the other."""

    def __init__(
        self,
        model: Path,
        *,
        stop_token_ids: Iterable[int],
        dtype: str = "float32",
        max_model_len: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Load a model's folder with the weights in `dtype`, a name of torch's.

        `max_model_len` is the longest prompt and completion together in tokens; None means the
        model's own limit.
        """
        began = time.perf_counter()
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype), local_files_only=True
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
        self._stop_token_ids = frozenset(stop_token_ids)
        self._max_model_len: int = max_model_len or self._model.config.max_position_embeddings
        self._batch_size = batch_size
        self._start_seconds = time.perf_counter() - began

    @property
    def start_seconds(self) -> float:
        """Seconds that loading the weights took."""
        return self._start_seconds

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of torch, transformers and tokenizers."""
        modules = (torch, transformers, tokenizers)
        return {module.__name__: str(module.__version__) for module in modules}

    @property
    def max_model_len(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self._max_model_len

    @property
    def has_fixed_batches(self) -> bool:
        """True: left padding and the width of a batch are part of its sums."""
        return True

    @property
    def engines(self) -> int:
        """One."""
        return 1

    @property
    def window(self) -> int:
        """Two batches: one to work on, and the next."""
        return 2 * self._batch_size

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Yield the completions of a whole batch at once, in the order of the requests."""
        for batch in batches(requests, self._batch_size):
            rows = [self._row(request) for request in batch]
            fitting = [row for row in rows if row.finish_reason is None]
            if fitting:
                (self._score if batch[0].scored else self._decode)(fitting)
            yield from (row.completion() for row in rows)

    def close(self) -> None:
        """Do nothing: no process was started, and memory goes with the object."""

    def _row(self, request: Request) -> "_Row":
        room = self._max_model_len - len(request.prompt)
        return _Row(
            request=request,
            room=min(request.max_tokens, room),
            stream=DecodeStream(ids=list(request.prompt), skip_special_tokens=True),
            generator=torch.Generator().manual_seed(request.seed),
            finish_reason=None if room > 0 else "overlong",
        )

    @torch.inference_mode()
    def _score(self, rows: Sequence["_Row"]) -> None:
        """Finish rows with the log-likelihood of their prompts' last tokens, in one pass.

        What comes after a token is told in its place, so the last token of a prompt is not read,
        and prompts that differ in it alone are read once.
        """
        read = list(dict.fromkeys(row.request.prompt[:-1] for row in rows))
        tokens, mask = _padded(read)
        logits = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=max(row.request.scored for row in rows),
        ).logits
        of_prompt = dict(zip(read, logits, strict=True))
        for row in rows:
            row.take_likelihood(of_prompt[row.request.prompt[:-1]])

    @torch.inference_mode()
    def _decode(self, rows: Sequence["_Row"]) -> None:
        """Decode rows until the last is finished; finished ones are carried along unread."""
        tokens, mask = _padded([row.request.prompt for row in rows])
        seen = _seen(tokens, mask, vocabulary=self._model.config.vocab_size)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        cache = None
        while True:
            output = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            chosen = [
                row.choose(logits)
                for row, logits in zip(
                    rows, _penalized(output.logits[:, -1].float(), seen, rows), strict=True
                )
            ]
            for row, token in zip(rows, chosen, strict=True):
                row.take(token, tokenizer=self._tokenizer, stop_token_ids=self._stop_token_ids)
            if all(row.finish_reason for row in rows):
                return
            tokens = torch.tensor(chosen).unsqueeze(1)
            seen.scatter_(1, tokens, value=True)
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
            positions = positions[:, -1:] + 1


@dataclass
class _Row:
    """One request of a batch and what has been decoded of it."""

    request: Request
    room: int
    stream: DecodeStream
    generator: torch.Generator
    finish_reason: FinishReason | None
    text: str = ""
    stop_text: str | None = None
    tokens: list[int] = field(default_factory=list)
    log_likelihood: float | None = None
    is_greedy: bool | None = None

    def choose(self, logits: torch.Tensor) -> int:
        """Return the next token: the likeliest, or one sampled with this row's own generator."""
        if self.request.temperature == 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits / self.request.temperature, dim=-1)
        kept = _nucleus(probabilities, top_p=self.request.top_p)
        return int(torch.multinomial(kept, 1, generator=self.generator))

    def take(
        self, token: int, *, tokenizer: tokenizers.Tokenizer, stop_token_ids: frozenset[int]
    ) -> None:
        """Add a token and see whether it ends the row, by itself, by its text or by number."""
        if self.finish_reason is not None:
            return
        self.tokens.append(token)
        if token in stop_token_ids:
            self.finish_reason = "stop"
            return
        if len(self.tokens) >= self.room:
            self.finish_reason = "length"
        self.text += self.stream.step(tokenizer, token) or ""
        if stops := [stop for stop in self.request.stop if stop in self.text]:
            first = min(stops, key=lambda stop: self.text.index(stop) + len(stop))
            self.text = self.text[: self.text.index(first)]
            self.finish_reason = "stop"
            self.stop_text = first

    def take_likelihood(self, logits: torch.Tensor) -> None:
        """Finish the row with the log-likelihood of its scored tokens, told in the last places."""
        scored = self.request.scored
        tokens = torch.tensor(self.request.prompt[-scored:])
        told = torch.log_softmax(logits[-scored:].float(), dim=-1)
        self.log_likelihood = float(told.gather(1, tokens.unsqueeze(1)).sum())
        self.is_greedy = bool((logits[-scored:].argmax(dim=-1) == tokens).all())
        self.finish_reason = "length"

    def completion(self) -> Completion:
        """Return the finished row as a completion."""
        if self.finish_reason is None:
            msg = f"request {self.request.key} is not finished"
            raise RuntimeError(msg)
        return Completion(
            key=self.request.key,
            text=self.text,
            finish_reason=self.finish_reason,
            stop_text=self.stop_text,
            prompt_tokens=len(self.request.prompt),
            completion_tokens=len(self.tokens),
            log_likelihood=self.log_likelihood,
            is_greedy=self.is_greedy,
        )


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return left-padded token ids and their mask, both (rows, longest prompt)."""
    longest = max(map(len, prompts))
    gaps = [longest - len(prompt) for prompt in prompts]
    pairs = list(zip(gaps, prompts, strict=True))
    tokens = torch.tensor([[_PADDING] * gap + list(prompt) for gap, prompt in pairs])
    mask = torch.tensor([[0] * gap + [1] * len(prompt) for gap, prompt in pairs])
    return tokens, mask


def _seen(tokens: torch.Tensor, mask: torch.Tensor, *, vocabulary: int) -> torch.Tensor:
    """Return which tokens each prompt holds, (rows, vocabulary); padding is not one of them."""
    counts = torch.zeros(len(tokens), vocabulary, dtype=torch.long)
    return counts.scatter_add_(1, tokens, mask) > 0


def _penalized(logits: torch.Tensor, seen: torch.Tensor, rows: Sequence[_Row]) -> torch.Tensor:
    """Apply the repetition penalty of CTRL (Keskar et al. 2019) to tokens of prompt and text."""
    penalty = rows[0].request.repetition_penalty
    if penalty == 1:
        return logits
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _nucleus(probabilities: torch.Tensor, *, top_p: float) -> torch.Tensor:
    """Zero what lies outside the smallest set of tokens with probability `top_p`."""
    ordered, indices = probabilities.sort(descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= top_p
    return probabilities.index_fill(-1, indices[outside], 0.0)
