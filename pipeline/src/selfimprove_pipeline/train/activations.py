"""Whether activations are kept for the backward pass or computed again: gradient checkpointing.

Kept, they save a forward pass, a quarter of the work. It is decided on the device, changes no
byte of the result and stands in no key. The figures are rough on the safe side: those of a layer
of a decoder with a gated MLP, as Llama's.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from selfimprove_pipeline.recipe.training import Training

BYTES_OF_A_TOKEN: Final = 7.5e6
"""Activations of a token in bf16 without checkpointing: 32 layers of 4096 dimensions."""
SHARE: Final = 0.9
"""Share of the free memory that may be planned for."""
BESIDE: Final = 4 * 2**30
"""Bytes of buckets, NCCL and a CUDA context."""


def recomputes(
    training: Training, model: Mapping[str, Any], *, tokens: int, parameters: int, world: int
) -> bool:
    """Say whether a training must compute activations again; a recipe's own word goes first.

    `model` is M_t's config.json, `tokens` are those of the largest pass. A model whose config does
    not tell its size computes them again.
    """
    if training.gradient_checkpointing is not None:
        return training.gradient_checkpointing
    inner = model.get("text_config")
    text = inner if isinstance(inner, Mapping) else model
    hidden, layers, vocabulary = (
        text.get(name) for name in ("hidden_size", "num_hidden_layers", "vocab_size")
    )
    if not (hidden and layers and vocabulary):
        return True
    width = 2 if training.precision == "fp32" else 1
    needed = (
        width * BYTES_OF_A_TOKEN * (hidden / 4096) * (layers / 32) * tokens
        + 6 * vocabulary * hidden
        + parameters * _bytes_of_a_parameter(training, world)
        + (BESIDE if torch.cuda.is_available() else 0)
    )
    return bool(needed > SHARE * _free())


def _bytes_of_a_parameter(training: Training, world: int) -> float:
    """Return the bytes of a device for weights, gradients, fp32 masters and Adam's two moments."""
    weight = 4 if training.precision == "fp32" else 2
    if training.method == "lora":
        return weight / world if training.zero_stage == 3 else weight  # noqa: PLR2004  ZeRO's
    moved = 0 if training.offload != "none" and torch.cuda.is_available() else 12 / world
    by_stage = {
        0: 16.0,
        1: weight + 4 + moved,
        2: weight + 4 / world + moved,
        3: (weight + 4) / world + moved,
    }
    return by_stage[training.zero_stage]


def _free() -> float:
    """Return the free bytes of this rank's device."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
