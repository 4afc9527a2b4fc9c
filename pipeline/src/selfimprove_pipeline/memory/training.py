"""Memory of a training, in bytes a device and a node.

States: DeepSpeed's ZeRO keeps weights, fp32 gradients, fp32 masters and AdamW's two moments,
each whole or shared by the ranks (Rajbhandari et al. 2020, section 3; the fp32 gradients are
those of `grad_accum_dtype`). Activations: what autograd keeps of a decoder layer of a Llama
(Korthikanti et al. 2022, section 4, for attention whose scores are never stored and with a gated
feed-forward part). The head: TRL's fused head has no logits but tiles of them, and a gradient in
fp32 beside the one in the weights' type.
"""

from dataclasses import dataclass
from typing import Final

from selfimprove_pipeline.contract.recipe import Training
from selfimprove_pipeline.memory.shape import BYTES, ModelShape

GIB: Final = 2**30
TILE_TOKENS, TILE_WORDS = 4096, 32_768
"""Logits of one tile of TRL's fused head."""
REDUCE_BUCKET: Final = 500_000_000
"""Elements of DeepSpeed's buffer for gradients on their way (`reduce_bucket_size`)."""
LIVE: Final = 1_000_000_000
"""Parameters that ZeRO-3 keeps gathered at most (`stage3_max_live_parameters`)."""
SHARE: Final = 0.92
"""Share of a device that may be planned for; the rest is lost between blocks of the allocator."""
CONTEXT: Final = 2 * GIB
"""What CUDA, NCCL and cuBLAS take of a GPU before the first tensor: an estimate."""
PROCESS: Final = 4 * GIB
"""Host memory of a rank with CUDA, torch, TRL and DeepSpeed loaded: an estimate."""
MASTER, MOMENTS, GRADIENT = 4, 8, 4
"""Bytes of a parameter's fp32 master, of AdamW's two moments and of its fp32 gradient."""


@dataclass(frozen=True)
class States:
    """Bytes of what training keeps of the parameters between two passes, of one rank."""

    device: int
    host: int


@dataclass(frozen=True)
class DeviceMemory:
    """The peak of one device, by what takes it, in bytes."""

    states: int
    """states are weights, gradients, masters and moments."""
    activations: int
    head: int
    buffers: int
    context: int

    @property
    def total(self) -> int:
        """The peak."""
        return self.states + self.activations + self.head + self.buffers + self.context


@dataclass(frozen=True)
class HostMemory:
    """The memory and the disk of one node, in bytes."""

    running: int
    """running are the processes and what is offloaded."""
    saving: int
    """saving is what the first rank holds beside that while it writes the model."""
    disk: int
    """disk is the model that is read, the one that is written and two checkpoints."""

    @property
    def memory(self) -> int:
        """The peak of the node's memory."""
        return self.running + self.saving


def device(
    shape: ModelShape,
    training: Training,
    *,
    ranks: int,
    tokens: int,
    on_gpu: bool = True,
) -> DeviceMemory:
    """Return the peak of one of `ranks` devices whose passes have `tokens` tokens at most.

    `training` is resolved. A processor has no context, and of a buffer only what is written to.
    """
    element = element_bytes(training)
    trained, _ = trained_and_frozen(shape, training)
    gathered = shape.parameters if training.method == "full" else 0
    return DeviceMemory(
        states=states(shape, training, ranks=ranks).device,
        activations=activations(
            shape,
            tokens,
            is_checkpointed=training.gradient_checkpointing is not False,
            element=element,
        ),
        head=_head(shape, training, tokens, on_gpu=on_gpu),
        buffers=_buffers(training, trained, gathered, ranks=ranks, on_gpu=on_gpu),
        context=CONTEXT if on_gpu else 0,
    )


def host(shape: ModelShape, training: Training, *, ranks: int, nodes: int) -> HostMemory:
    """Return memory and disk of the first node of a training by `ranks` ranks on `nodes`."""
    here = ranks // nodes
    offloaded = here * states(shape, training, ranks=ranks).host
    model = shape.parameters * shape.stored
    saved = shape.parameters * BYTES[training.save_dtype]
    trained, _ = trained_and_frozen(shape, training)
    return HostMemory(
        running=here * PROCESS + offloaded,
        saving=saving(shape, training),
        disk=model + saved + 2 * checkpoint(training, trained),
    )


def saving(shape: ModelShape, training: Training) -> int:
    """Return what the first rank holds on the host while it writes the next model.

    The weights that are saved: masters are cast one by one. With an adapter also M_t in fp32, which
    it is merged into.
    """
    merged = MASTER if training.method == "lora" else 0
    return shape.parameters * (merged + BYTES[training.save_dtype])


def checkpoint(training: Training, trained: int) -> int:
    """Return the bytes of one checkpoint: masters and moments, below ZeRO-3 the weights too."""
    if training.zero_stage == 0:
        return trained * (MASTER + MOMENTS)
    weights = 0 if training.zero_stage == 3 else element_bytes(training)  # noqa: PLR2004  a stage
    return trained * (MASTER + MOMENTS + weights)


def states(shape: ModelShape, training: Training, *, ranks: int) -> States:
    """Return the bytes of weights, gradients, masters and moments of one of `ranks` ranks."""
    trained, frozen = trained_and_frozen(shape, training)
    element = element_bytes(training)
    stage = training.zero_stage
    if stage == 0:
        cast = element if training.precision == "bf16" else 0  # autocast keeps what it has cast
        buckets = GRADIENT if ranks > 1 else 0  # DDP's, beside the gradients
        own = MASTER + MOMENTS + GRADIENT + cast + buckets
        return States(device=trained * own + frozen * element, host=0)
    weights = (trained + frozen) * element
    shared = trained * (MASTER + MOMENTS + GRADIENT) // ranks
    if stage == 1:
        whole = trained * (GRADIENT + element)
        kept = States(device=weights + whole, host=shared)
    elif stage == 2:  # noqa: PLR2004  a stage
        kept = States(device=weights, host=shared)
    else:
        kept = States(device=weights // ranks, host=shared)
    if training.offload == "none":
        return States(device=kept.device + kept.host, host=0)
    if training.offload == "all":
        return States(device=0, host=kept.device + kept.host)
    return kept


def activations(shape: ModelShape, tokens: int, *, is_checkpointed: bool, element: int) -> int:
    """Return the bytes that a pass of `tokens` tokens keeps for its backward half, at its peak.

    With checkpointing each layer keeps its input, and one layer at a time is computed again.
    """
    layer = _layer(shape, element) + _temporaries(shape, element)
    kept = shape.hidden * element if is_checkpointed else _layer(shape, element)
    ends = shape.hidden * (2 * element + 3 * 4)  # embedding, last norm, gradient of the states
    return tokens * (shape.layers * kept + (layer if is_checkpointed else 0) + ends)


def _layer(shape: ModelShape, element: int) -> int:
    """Return the bytes that autograd keeps of one token in one decoder layer.

    Two norms keep their input in fp32, its normalised value and, as the input of the next
    matrix, their output; attention its queries, keys, values and output; the gated part the gate,
    its SiLU, the other half and their product.
    """
    attention = shape.head_size * (2 * shape.heads + 2 * shape.key_value_heads)
    norms = 2 * shape.hidden * (4 + 2 * element)
    statistics = 4 * shape.heads
    return norms + statistics + element * (attention + 4 * shape.feed_forward)


def _temporaries(shape: ModelShape, element: int) -> int:
    """Return the bytes of a token's gradients while one layer goes backward."""
    return element * (3 * shape.feed_forward + 2 * shape.hidden)


def _head(shape: ModelShape, training: Training, tokens: int, *, on_gpu: bool) -> int:
    element = element_bytes(training)
    # Without Triton a tile goes backward in torch: seven copies of it in fp32 and a mask.
    number = element if on_gpu else element + 29
    tile = min(TILE_TOKENS, tokens) * min(TILE_WORDS, shape.vocabulary) * number
    if training.method == "lora":
        return tile
    return tile + shape.head * (GRADIENT + (0 if element == GRADIENT else element))


def _buffers(training: Training, trained: int, gathered: int, *, ranks: int, on_gpu: bool) -> int:
    if training.zero_stage == 0:
        return 0
    element = element_bytes(training)
    bucket = REDUCE_BUCKET if on_gpu else min(REDUCE_BUCKET, trained)
    is_gathered = training.zero_stage == 3 and (ranks > 1 or training.offload == "all")  # noqa: PLR2004  a stage
    return element * (bucket + (min(LIVE, gathered) if is_gathered else 0))


def element_bytes(training: Training) -> int:
    """Return the bytes of a number that matrix products are computed in."""
    return 4 if training.precision == "fp32" else 2


def trained_and_frozen(shape: ModelShape, training: Training) -> tuple[int, int]:
    """Return how many parameters a training changes, and how many it only reads."""
    if training.method == "full":
        return shape.parameters, 0
    rank = training.lora.r
    kv = shape.key_value_heads * shape.head_size
    queries = shape.heads * shape.head_size
    widths = (
        2 * (shape.hidden + queries)  # queries and output
        + 2 * (shape.hidden + kv)
        + 3 * (shape.hidden + shape.feed_forward)
    )
    return shape.layers * rank * widths, shape.parameters
