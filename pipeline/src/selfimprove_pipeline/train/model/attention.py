"""Attention over packed sequences, under a name that transformers knows.

On CUDA it is torch's own variable-length attention (FlashAttention: causal, with a window, with
fewer key than query heads). That has kernels for 16-bit types alone, so all else, and processors,
computes one sequence after another with SDPA. A pass needs no mask: the mask of this name is None.
"""

from itertools import pairwise
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME: Final = "selfimprove_varlen"
_LARGEST_HEAD: Final = 256
_AMPERE: Final = (8, 0)


def register() -> None:
    """Make the attention known to transformers; more than once does no harm."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _attend(  # noqa: PLR0913, PLR0917  transformers' names and order
    module: torch.nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return the attention of one packed row, of shape (1, tokens, heads, head dimension).

    Queries, keys and values are of shape (1, heads, tokens, head dimension). `cu_seq_lens_q` of
    shape (sequences + 1,) tells where sequences begin and the last one ends; without it there is
    one. `sliding_window` is the number of tokens that a token sees, itself included.
    """
    if query.is_cuda and torch.is_autocast_enabled("cuda"):
        # Rotary positions leave fp32 behind under autocast, which casts SDPA's inputs alone.
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    ends = cu_seq_lens_q
    if ends is not None and max_length_q is not None and not dropout and _has_kernel(query, value):
        left = -1 if sliding_window is None else sliding_window - 1
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        found = varlen_attn(
            *(q, k, v, ends, ends, max_length_q, max_length_q),
            scale=scaling,
            window_size=(left, 0),
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return cast("Tensor", found)[None], None  # a tuple where more is asked for
    bounds = [0, query.shape[2]] if ends is None else ends.tolist()
    parts = [
        functional.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            attn_mask=_band(end - start, sliding_window, query.device),
            dropout_p=dropout,
            is_causal=not _is_cut(end - start, sliding_window),
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for start, end in pairwise(bounds)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _has_kernel(query: Tensor, value: Tensor) -> bool:
    size = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and size == value.shape[-1] <= _LARGEST_HEAD
        and size % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= _AMPERE
    )


def _is_cut(length: int, window: int | None) -> bool:
    return window is not None and window < length


def _band(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return which keys each query sees, None where those are all up to its own."""
    if window is None or not _is_cut(length, window):
        return None
    sees = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return sees.triu(1 - window)
