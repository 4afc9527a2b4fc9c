"""A translation model of transformers: Marian, NLLB, M2M100 or mBART-50, in this process.

Such models read sentences and know no line feeds, so a text is translated line by line and
its empty lines stay. Tokenizers are loaded at once, because they know the languages and a
direction that does not fit must be refused before an engine starts; weights are loaded with
the first passage, when no engine holds the GPU.
"""

import contextlib
import gc
import itertools
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.rows import FinishReason
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.method.translate import CLOSING_TAG, Direction, Passage
from selfimprove_pipeline.text import languages

BATCH: Final = 16

_CODE: Final = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
"""How NLLB (`deu_Latn`) and mBART-50 (`de_DE`) write their languages among the tokens."""


@dataclass(frozen=True)
class _Route:
    """The model of one direction, and how it is told its languages."""

    name: str
    tokenizer: Any
    source: str | None = None
    """source is the tokenizer's code; None where the model has one direction alone."""
    first_token: int | None = None
    """first token of the translation, which names its language; None likewise."""


@dataclass(frozen=True)
class _Line:
    """The translation of one line."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class TransformersTranslator:
    """Translates with one multilingual model, or with one model per direction."""

    def __init__(self, model: str, directions: Sequence[Direction]) -> None:
        """Find the model of each direction: a folder or a hub name.

        `{source}` and `{target}` in the name stand for the languages of a direction, without
        script and region.
        """
        began = time.perf_counter()
        names = {direction: _name(model, direction) for direction in directions}
        tokenizers = {name: _tokenizer(name) for name in dict.fromkeys(names.values())}
        self._routes = {
            direction: _route(name, tokenizers[name], direction)
            for direction, name in names.items()
        }
        self._weights: tuple[str, Any] | None = None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._start_seconds = time.perf_counter() - began

    @property
    def start_seconds(self) -> float:
        """Seconds that the tokenizers took."""
        return self._start_seconds

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of torch and transformers."""
        return {module.__name__: str(module.__version__) for module in (torch, transformers)}

    def complete(self, requests: Iterable[Passage]) -> Iterator[Completion]:
        """Yield the completions in the order of the passages, 16 at a time.

        At temperature 0 the model's own generation config decides, beams included. Otherwise
        each passage is sampled alone with its seed. The token limit holds for each line.
        """
        for (direction, temperature), alike in itertools.groupby(requests, key=_likeness):
            size = BATCH if temperature == 0 else 1
            while batch := tuple(itertools.islice(alike, size)):
                yield from self._translate(batch, self._routes[direction])

    def close(self) -> None:
        """Free the weights."""
        self._weights = None
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _model(self, name: str) -> Any:
        """Return a model; the one before it goes, because every direction may have its own."""
        if self._weights is None or self._weights[0] != name:
            self.close()
            with _loading(name):
                model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(name)
            self._weights = (name, model.to(self._device).eval())
        return self._weights[1]

    def _translate(self, batch: Sequence[Passage], route: _Route) -> Iterator[Completion]:
        model = self._model(route.name)
        texts = [line for passage in batch for line in _lines(passage) if line]
        made: list[_Line] = []
        for start in range(0, len(texts), BATCH):
            made += _decode(model, route, texts[start : start + BATCH], batch[0])
        lines = iter(made)
        for passage in batch:
            yield _joined(passage, [next(lines) if line else None for line in _lines(passage)])


def _name(model: str, direction: Direction) -> str:
    source, target = languages.base(direction.source), languages.base(direction.target)
    return model.replace("{source}", source).replace("{target}", target)


def _tokenizer(name: str) -> Any:
    with _loading(name):
        config = transformers.AutoConfig.from_pretrained(name)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
    if not config.is_encoder_decoder:
        message = (
            "translation.external.model: expected a translation model with encoder and decoder, "
            f"found {config.model_type} in {name}"
        )
        raise InputError(message)
    return tokenizer


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    """Say in one line what is wrong with a model that does not load."""
    try:
        yield
    except (OSError, ValueError) as error:
        if _is_unreachable(error):
            message = f"{name}: the hub did not answer ({type(error).__name__}); try again later"
            raise TryAgainError(message) from error
        told = " ".join(str(error).split())
        message = (
            "translation.external.model: expected the folder or hub name of a translation "
            f"model, found none that loads in {name}: {told}"
        )
        raise InputError(message) from error


def _is_unreachable(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _route(name: str, tokenizer: Any, direction: Direction) -> _Route:
    """Return how a model translates a direction, or refuse it."""
    tokens = _language_tokens(tokenizer)
    if not tokens:
        _check_single_direction(name, tokenizer, direction)
        return _Route(name, tokenizer)
    codes = [languages.code_for(tag, tokens) for tag in (direction.source, direction.target)]
    for tag, code in zip((direction.source, direction.target), codes, strict=True):
        if code is None:
            message = (
                f"translation.external.model: expected a model that knows {tag}, found {name} "
                "without it; choose another model or leave the language out"
            )
            raise InputError(message)
    source, target = (str(code) for code in codes)
    return _Route(name, tokenizer, source, tokenizer.convert_tokens_to_ids(tokens[target]))


def _language_tokens(tokenizer: Any) -> dict[str, str]:
    """Return the token of each language code, none for a model of one direction."""
    known: Mapping[str, str] | None = getattr(tokenizer, "lang_code_to_token", None)
    if known:
        return dict(known)
    return {token: token for token in tokenizer.get_added_vocab() if _CODE.fullmatch(token)}


def _check_single_direction(name: str, tokenizer: Any, direction: Direction) -> None:
    """Refuse a model whose tokenizer states another direction, or none."""
    stated = (getattr(tokenizer, "source_lang", None), getattr(tokenizer, "target_lang", None))
    wanted = (direction.source, direction.target)
    fits = (
        code is not None and languages.code_for(tag, [code]) is not None
        for tag, code in zip(wanted, stated, strict=True)
    )
    if not all(fits):
        message = (
            f"translation.external.model: expected a model from {wanted[0]} to {wanted[1]}, found "
            f"{name} from {stated[0]} to {stated[1]}; a name with {{source}} and {{target}} "
            "gives each direction a model of its own"
        )
        raise InputError(message)


def _likeness(passage: Passage) -> tuple[Direction, float]:
    return passage.direction, passage.temperature


def _lines(passage: Passage) -> list[str]:
    return [line.strip() for line in passage.text.split("\n")]


@torch.inference_mode()
def _decode(model: Any, route: _Route, texts: Sequence[str], like: Passage) -> list[_Line]:
    """Translate lines in one batch; a line that the encoder has no room for is overlong."""
    if route.source is not None:
        route.tokenizer.src_lang = route.source
    limit = model.config.max_position_embeddings
    sizes = [len(ids) for ids in route.tokenizer(list(texts), verbose=False)["input_ids"]]
    fitting = [text for text, size in zip(texts, sizes, strict=True) if size <= limit]
    outputs = iter(_generate(model, route, fitting, like) if fitting else ())
    max_new_tokens = _max_new_tokens(model, like)
    return [
        _line(route.tokenizer, next(outputs), size, max_new_tokens)
        if size <= limit
        else _Line("", "overlong", size, 0)
        for size in sizes
    ]


def _max_new_tokens(model: Any, like: Passage) -> int:
    # One position is the token that the decoder starts with.
    return min(like.max_tokens, int(model.config.max_position_embeddings) - 1)


def _generate(model: Any, route: _Route, texts: list[str], like: Passage) -> list[list[int]]:
    """Return the tokens of each translation, without the one that the decoder starts with."""
    inputs = route.tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
    options: dict[str, Any] = {"max_new_tokens": _max_new_tokens(model, like)}
    if route.first_token is not None:
        options["forced_bos_token_id"] = route.first_token
    if like.temperature > 0:
        options |= {"do_sample": True, "temperature": like.temperature, "num_beams": 1}
    with torch.random.fork_rng():
        torch.manual_seed(like.seed)
        made = model.generate(**inputs, **options)
    return [row[1:] for row in made.tolist()]


def _line(tokenizer: Any, tokens: list[int], size: int, max_new_tokens: int) -> _Line:
    """Return the line that tokens write, padding and the end of sequence left out."""
    end = tokenizer.eos_token_id
    count = tokens.index(end) + 1 if end in tokens else len(tokens)
    # At the limit Marian's generation config forces the end, which ends no sentence.
    reason: FinishReason = "length" if count >= max_new_tokens else "stop"
    text = tokenizer.decode(tokens[:count], skip_special_tokens=True).strip()
    return _Line(text, reason, size, count)


def _joined(passage: Passage, lines: Sequence[_Line | None]) -> Completion:
    """Return the translation of a passage, whole if each of its lines is; None is an empty one."""
    made = [line for line in lines if line is not None]
    reasons = {line.finish_reason for line in made}
    reason: FinishReason = "overlong" if "overlong" in reasons else "stop"
    if "length" in reasons and reason == "stop":
        reason = "length"
    text = "\n".join(line.text if line else "" for line in lines)
    return Completion(
        key=passage.key,
        text="" if reason == "overlong" else text,
        finish_reason=reason,
        stop_text=CLOSING_TAG if reason == "stop" else None,
        prompt_tokens=sum(line.prompt_tokens for line in made),
        completion_tokens=sum(line.completion_tokens for line in made),
    )
