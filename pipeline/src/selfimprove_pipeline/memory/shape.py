"""The shape of a language model: what its `config.json` says, as numbers.

A config is somebody's file: a value that cannot be is an `InputError`, and a model whose config
says too little has no shape (None), for then nothing can be told of its memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from selfimprove_pipeline.contract.errors import InputError

BYTES: Final[Mapping[str, int]] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a weight by the name of its type."""

COUNTED: Final = frozenset(
    {"llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"}
)
"""Model types whose parameters the formula counts to within their norms."""

HYBRID: Final = ("ssm_cfg", "mamba_d_state", "mamba_d_ssm", "linear_num_value_heads", "state_size")
"""Keys of models with layers that are no attention."""

EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts")
"""Keys that tell the number of a layer's experts."""

DEFAULTS: Final[Mapping[str, Mapping[str, int]]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256},
    "gemma3_text": {
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262_208,
    },
    "qwen3": {"head_dim": 128},
}
"""Values that published configs of a type leave out, as transformers has them."""

MOST: Final[Mapping[str, int]] = {
    "hidden_size": 2**18,
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**14,
    "intermediate_size": 2**22,
    "moe_intermediate_size": 2**22,
    "vocab_size": 2**26,
    "max_position_embeddings": 2**28,
    "sliding_window": 2**28,
    "kv_lora_rank": 2**18,
    "qk_rope_head_dim": 2**14,
    "num_experts": 2**14,
    "num_local_experts": 2**14,
    "n_routed_experts": 2**14,
    "num_experts_per_tok": 2**14,
}
"""Whole numbers of a config with the most that is believed."""


@dataclass(frozen=True)
class ModelShape:
    """A causal language model of stacked attention and gated feed-forward layers."""

    parameters: int
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    feed_forward: int
    """feed_forward is the width that a token passes, over all its experts."""
    vocabulary: int
    context: int | None
    """context in tokens, None where the config has no limit."""
    is_tied: bool
    """is_tied is true if head and embedding are one matrix."""
    stored: int
    """stored bytes of a weight, as the config has them."""
    active: int
    """active parameters of a token; fewer than all where there are experts."""
    cached: int
    """cached numbers that one token leaves behind in all layers (keys and values)."""

    @property
    def head(self) -> int:
        """The weights of the output projection, tied or not."""
        return self.vocabulary * self.hidden


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config that describes the language model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def shape_of(
    config: Mapping[str, Any], *, where: str, weights: int | None = None
) -> ModelShape | None:
    """Return the shape that a config describes, None where it says too little.

    `weights` are the bytes of the model's safetensors, which count where the formula does not
    know the type of the model. `where` names the config in an `InputError`.
    """
    text = _Text(text_of(config), config, where)
    hidden, layers = text.number("hidden_size"), text.number("num_hidden_layers")
    heads, vocabulary = text.number("num_attention_heads"), text.number("vocab_size")
    if hidden is None or layers is None or heads is None or vocabulary is None:
        return None
    if any(name in text.own for name in HYBRID):
        return None
    head_size = text.number("head_dim") or max(1, hidden // heads)
    key_value_heads = text.number("num_key_value_heads") or heads
    dense = text.number("intermediate_size") or 4 * hidden
    experts = next(filter(None, map(text.number, EXPERTS)), None)
    a_token = text.number("num_experts_per_tok") or 1
    feed_forward = (text.number("moe_intermediate_size") or dense) * a_token if experts else dense
    attention = hidden * head_size * (2 * heads + 2 * key_value_heads)
    layer = attention + 3 * hidden * feed_forward + text.biases(heads, key_value_heads, head_size)
    ends = vocabulary * hidden * (1 if text.is_tied else 2) + hidden
    active = ends + layers * (layer + text.norms * hidden)
    parameters = _parameters(text, active, experts, weights)
    if parameters is None:
        return None
    return ModelShape(
        parameters=parameters,
        hidden=hidden,
        layers=layers,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        feed_forward=feed_forward,
        vocabulary=vocabulary,
        context=text.number("max_position_embeddings"),
        is_tied=text.is_tied,
        stored=text.stored,
        active=min(active, parameters),
        cached=layers * text.cached(key_value_heads, head_size),
    )


def _parameters(
    text: "_Text", counted: int, experts: int | None, weights: int | None
) -> int | None:
    """Return the number of parameters: counted where the formula holds, else from the files."""
    if not experts and (text.kind in COUNTED or weights is None):
        return counted
    return None if weights is None or text.is_quantized else weights // text.stored


@dataclass(frozen=True)
class _Text:
    """The part of a config that describes the language model."""

    own: Mapping[str, Any]
    whole: Mapping[str, Any]
    where: str

    @property
    def kind(self) -> str:
        return str(self.own.get("model_type", ""))

    @property
    def is_quantized(self) -> bool:
        return "quantization_config" in self.whole or "quantization_config" in self.own

    @property
    def is_tied(self) -> bool:
        default = self.kind.startswith(("gemma", "cohere"))
        found = self.own.get("tie_word_embeddings", self.whole.get("tie_word_embeddings", default))
        return found is True

    @property
    def stored(self) -> int:
        for part in (self.own, self.whole):
            for name in ("dtype", "torch_dtype"):
                if (found := BYTES.get(str(part.get(name)).removeprefix("torch."))) is not None:
                    return found
        return 2

    @property
    def norms(self) -> int:
        """The number of norms of a layer that are as wide as the model."""
        return 4 if self.kind in {"gemma2", "gemma3_text"} else 2

    def biases(self, heads: int, key_value_heads: int, size: int) -> int:
        """Return the numbers of a layer's biases and of its norms of single heads."""
        heads_norms = 2 * size if self.kind in {"qwen3", "gemma3_text"} else 0
        has_bias = self.own.get("attention_bias", self.kind == "qwen2") is True
        return heads_norms + ((heads + 2 * key_value_heads) * size if has_bias else 0)

    def cached(self, key_value_heads: int, size: int) -> int:
        """Return the numbers that a token leaves in the cache of one layer."""
        rank = self.number("kv_lora_rank")
        if rank is not None:  # multi-head latent attention keeps one compressed vector
            return rank + (self.number("qk_rope_head_dim") or 0)
        return 2 * key_value_heads * size

    def number(self, name: str) -> int | None:
        """Return a whole number of the config, None where it has none."""
        found = self.own.get(name)
        if found is None:
            return DEFAULTS.get(self.kind, {}).get(name)
        if type(found) is not int or not 1 <= found <= MOST[name]:
            message = (
                f"{self.where}: expected {name} as a whole number from 1 to {MOST[name]}, "
                f"found {str(found)[:80]}; correct the file"
            )
            raise InputError(message)
        return found
