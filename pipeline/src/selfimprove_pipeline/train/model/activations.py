"""Whether activations are kept for the backward pass or computed again: gradient checkpointing.

Kept, they save a forward pass, a quarter of the work. It is decided by the memory of the device,
changes no byte of the result and stands in no key.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from selfimprove_pipeline.contract.recipe.training import Training
from selfimprove_pipeline.memory import training as memory
from selfimprove_pipeline.memory.shape import shape_of


def recomputes(
    training: Training, model: Mapping[str, Any], *, tokens: int, parameters: int, world: int
) -> bool:
    """Say whether a training must compute activations again; a recipe's own word goes first.

    `model` is M_t's config.json with so many `parameters`, `tokens` are those of the largest pass.
    A model whose config does not tell its size computes them again.
    """
    if training.gradient_checkpointing is not None:
        return training.gradient_checkpointing
    told = shape_of(model, where="config.json", weights=parameters)
    if told is None:
        return True
    shape = replace(told, parameters=parameters)  # counted, where a config only tells of some types
    kept = training.model_copy(update={"gradient_checkpointing": False})
    on_gpu = torch.cuda.is_available()
    needed = memory.device(shape, kept, ranks=world, tokens=tokens, on_gpu=on_gpu)
    return needed.total > memory.SHARE * _free()


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
