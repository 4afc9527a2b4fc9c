"""Which layout a model's passes can have, read from its config.json alone, without torch.

Packed, pairs lie one behind another without padding, and attention is told where each sequence
begins. That needs attention that is causal softmax over a sequence and nothing else. What cannot
be seen in a config is found before training, see `trainer`: two rows go through both layouts.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from selfimprove_pipeline.memory.shape import text_of

Layout = Literal["packed", "padded"]

_CAUSAL_LAYERS: Final = {"full_attention", "sliding_attention", "attention"}
_BY_LAYER: Final = ("layer_types", "layers_block_type", "block_types", "hybrid_override_pattern")
_RECURRENT: Final = ("mamba_", "ssm_", "linear_", "conv_", "rnn_", "lru_", "time_step_", "slstm_")
"""Beginnings of names that only configs of state spaces, convolutions and linear attention have."""
_OWN_ATTENTION: Final = {
    *("bloom", "codegen", "cpmant", "ctrl", "falcon", "gpt_neo", "gpt_neox_japanese", "gptj"),
    *("mpt", "openai-gpt", "reformer", "rwkv", "xglm", "xlm", "xlnet"),
}
"""Attention written out in the model, which transformers cannot replace."""
_MORE_THAN_SOFTMAX: Final = {
    *("deepseek_v32", "deepseek_v4", "diffllama", "glm_moe_dsa", "gpt_oss", "granite_swa"),
    *("granitemoe_swa", "hy_v4", "mimo_v2_flash", "minimax_m3_vl_text"),
}
"""Sinks, chosen keys or differences of two attentions."""
_STATEFUL: Final = {
    *("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2"),
    *("lfm2_moe", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5"),
    *("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "recurrent_gemma"),
    *("xlstm", "zamba", "zamba2", "zaya"),
}
_WINDOW_IN_THE_MASK: Final = {"doge", "hrm_text", "moshi", "phimoe", "qwen2_moe"}
"""Models that tell the window to the mask alone, which a packed pass has not."""


def packable(config: Mapping[str, Any]) -> bool:
    """Say whether a model's passes can be packed; `config` is its config.json as it is."""
    text = text_of(config)
    kinds = {str(part.get("model_type")) for part in (config, text)}
    if kinds & (_OWN_ATTENTION | _MORE_THAN_SOFTMAX | _STATEFUL):
        return False
    if kinds & _WINDOW_IN_THE_MASK and _has_window(text):
        return False
    return not (has_soft_cap(config) or _is_not_causal(text) or _has_other_layers(text))


def has_soft_cap(config: Mapping[str, Any]) -> bool:
    """Say whether attention scores are capped, which neither SDPA nor packed attention does."""
    return text_of(config).get("attn_logit_softcapping") is not None


def _has_window(text: Mapping[str, Any]) -> bool:
    return bool(text.get("sliding_window")) and text.get("use_sliding_window") is not False


def _is_not_causal(text: Mapping[str, Any]) -> bool:
    return (
        text.get("is_causal") is False
        or text.get("is_decoder") is False
        or bool(text.get("is_encoder_decoder"))
        or bool(text.get("use_bidirectional_attention"))
        or bool(text.get("alibi"))
    )


def _has_other_layers(text: Mapping[str, Any]) -> bool:
    if text.get("attention_chunk_size"):
        return True
    if any(name.startswith(_RECURRENT) for name, value in text.items() if value is not None):
        return True
    layers = (text[name] for name in _BY_LAYER if text.get(name))
    return any(
        not isinstance(kinds, list) or set(map(str, kinds)) - _CAUSAL_LAYERS for kinds in layers
    )
