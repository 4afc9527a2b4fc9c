"""Memory of one engine's devices: weights, and the cache of keys and values of one row.

vLLM takes `gpuMemoryUtilization` of each device, puts the weights there and makes of the rest
its cache; it does not start where one row of `maxModelLen` tokens has no room (Kwon et al. 2023).
"""

from dataclasses import dataclass
from typing import Final

from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.memory.shape import BYTES, ModelShape

WORKING: Final = 2 * 2**30
"""What the engine's own buffers and the context take of a device: an estimate."""
CACHE_BYTES: Final = 2
"""Bytes of a number in the cache."""


@dataclass(frozen=True)
class EngineMemory:
    """What each device of an engine needs at least, in bytes."""

    weights: int
    row: int
    """row is the cache of one row as long as may be."""
    working: int
    row_tokens: int

    @property
    def total(self) -> int:
        """The least that an engine starts with."""
        return self.weights + self.row + self.working


def engine(shape: ModelShape, spec: Spec) -> EngineMemory:
    """Return what one device of an engine needs to start."""
    inference = spec.inference
    width = BYTES.get(inference.dtype or spec.model.dtype, shape.stored)
    parts = inference.tensor_parallel_size
    tokens = inference.max_model_len or shape.context or LONGEST
    held = min(parts, shape.key_value_heads)
    return EngineMemory(
        weights=shape.parameters * width // parts,
        row=tokens * shape.cached * CACHE_BYTES // held,
        working=WORKING,
        row_tokens=tokens,
    )


LONGEST: Final = 4096
"""Tokens of a row where neither recipe nor config has a limit."""


def rows_at_once(shape: ModelShape, spec: Spec, *, memory: int, tokens: int) -> int:
    """Return how many rows of `tokens` tokens the cache of an engine on such devices holds."""
    needed = engine(shape, spec)
    room = int(memory * spec.inference.gpu_memory_utilization) - needed.weights - needed.working
    held = min(spec.inference.tensor_parallel_size, shape.key_value_heads)
    return max(0, room * held // (tokens * shape.cached * CACHE_BYTES))
