"""Whether a run fits its devices, in one line each: what does not, by how much, and what would.

`zero_stage` decides from the model and what the recipe declares, never from the machine that
asks, so that every process of a run comes to the same. `findings` judges: a run is refused where
what is counted exactly is too much, and warned of where estimates say so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from selfimprove_pipeline.contract.recipe import Spec, Training
from selfimprove_pipeline.memory import gpus, inference, training
from selfimprove_pipeline.memory.shape import ModelShape
from selfimprove_pipeline.memory.training import GIB

MOST_GPUS: Final = 512
VENDORS: Final = ("nvidia.com/gpu", "amd.com/gpu")
UNITS: Final[Mapping[str, int]] = {
    **{f"{letter}i": 1024**n for n, letter in enumerate("KMGTPE", 1)},
    **{letter: 1000**n for n, letter in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    "m": 0,
    "": 1,
}
"""Units of a quantity of Kubernetes; thousandths of a byte are none."""


@dataclass(frozen=True)
class Place:
    """Where a run computes, as far as it is known."""

    gpus: int
    """gpus that train, over all nodes; 0 is a processor."""
    nodes: int = 1
    memory: int | None = None
    """memory of each GPU in bytes."""
    host: int | None = None
    """host memory of each node in bytes."""
    disk: int | None = None
    """disk of each node in bytes."""


@dataclass(frozen=True)
class Finding:
    """One thing that does not fit."""

    line: str
    is_certain: bool


def declared(spec: Spec) -> Place | None:
    """Return what a recipe declares of the pods that train, None where it names no GPU."""
    limits = (spec.pods.training.resources or {}).get("limits", {})
    counts = [_quantity(limits[name]) for name in VENDORS if name in limits]
    if not any(counts):
        return None
    nodes = spec.training.nodes
    return Place(
        gpus=sum(filter(None, counts)) * nodes,
        nodes=nodes,
        host=_quantity(limits.get("memory")),
        disk=_quantity(limits.get("ephemeral-storage")),
    )


def _quantity(value: Any) -> int | None:
    """Return a quantity of Kubernetes as a whole number, None where it is none."""
    text = str(value)
    number = text.rstrip("".join(UNITS))
    unit = text[len(number) :]
    try:
        return None if value is None else int(float(number) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        return None


def zero_stage(shape: ModelShape | None, spec: Spec) -> Literal[2, 3]:
    """Return ZeRO 2 where it fits the devices that the recipe declares, else 3.

    A recipe that declares none is taken for one node of eight 80 GB devices. Stage 2 gathers
    nothing in a pass; of a model without a shape nothing is known, and 3 is the careful choice.
    """
    if shape is None or spec.training.offload == "all":
        return 3
    place = declared(spec) or Place(gpus=gpus.NODE)
    candidate = spec.training.model_copy(update={"zero_stage": 2})
    needed = _device(shape, candidate, place.gpus).total
    return 2 if needed <= gpus.ASSUMED.memory * training.SHARE else 3


def pass_tokens(recipe: Training) -> int:
    """Return the most tokens of one pass: each pair has two sequences of maxLength at most."""
    pair = 2 * recipe.max_length
    if recipe.layout == "packed":
        return max(recipe.tokens_per_device, pair)
    return recipe.micro_batch_size * pair


def _device(shape: ModelShape, recipe: Training, ranks: int) -> training.DeviceMemory:
    return training.device(shape, recipe, ranks=max(1, ranks), tokens=pass_tokens(recipe))


def estimates(shape: ModelShape, spec: Spec, place: Place) -> list[str]:
    """Return what training and inference need, a line each."""
    recipe, ranks = spec.training, max(1, place.gpus)
    found = _device(shape, recipe, ranks)
    node = training.host(shape, recipe, ranks=ranks, nodes=place.nodes)
    engine = inference.engine(shape, spec)
    parts = ", ".join(
        f"{name} {_gib(value)}" for name, value in vars(found).items() if value >= GIB // 10
    )
    train = (
        f"training of {shape.parameters / 1e6:,.0f} M parameters ({_manner(recipe, ranks)}): "
        f"{_gib(found.total)} GiB a GPU ({parts}), {_gib(node.memory)} GiB of memory and "
        f"{_gib(node.disk)} GiB of disk a node"
    )
    engines = _count(spec.inference.tensor_parallel_size, "GPU")
    infer = (
        f"inference ({engines} an engine): at least {_gib(engine.total)} GiB a GPU (weights "
        f"{_gib(engine.weights)}, one row of {engine.row_tokens:,} tokens {_gib(engine.row)})"
    )
    return [train, infer]


def findings(shape: ModelShape, spec: Spec, place: Place) -> list[Finding]:
    """Return what does not fit where a run computes; what is not known of the place is passed."""
    if not place.gpus:
        return []
    found = (_training(shape, spec, place), _engine(shape, spec, place))
    return [*filter(None, found), *_node(shape, spec, place)]


def _training(shape: ModelShape, spec: Spec, place: Place) -> Finding | None:
    recipe = spec.training
    needed = _device(shape, recipe, place.gpus)
    if place.memory is None or needed.total <= place.memory:
        return None
    states = needed.states
    is_certain = states > place.memory
    what = "weights, gradients and optimizer alone" if is_certain else "a training at its peak"
    amount = states if is_certain else needed.total
    line = (
        f"spec.training: expected at most {_gib(place.memory)} GiB a GPU, found {_gib(amount)} GiB "
        f"of {what} ({_manner(recipe, place.gpus)}), {_gib(amount - place.memory)} GiB too many; "
        f"what fits: {', '.join(_remedies(shape, spec, place)) or 'a smaller model'}"
    )
    return Finding(line, is_certain)


def _remedies(shape: ModelShape, spec: Spec, place: Place) -> Iterator[str]:
    """Yield what would fit, the least change first; all of it keeps activations small."""
    limit = (place.memory or 0) * training.SHARE
    pair = 2 * spec.training.max_length
    small = {"gradient_checkpointing": True, "micro_batch_size": 1, "tokens_per_device": pair}
    recipe = spec.training.model_copy(update=small)
    single = f"tokensPerDevice {pair}" if recipe.layout == "packed" else "microBatchSize 1"
    means: tuple[tuple[str, dict[str, Any], int], ...] = (
        (f"gradientCheckpointing and {single}", {}, place.gpus),
        ("zeroStage 3", {"zero_stage": 3}, place.gpus),
        ("method lora", {"method": "lora", "zero_stage": 2}, place.gpus),
        *((f"{_count(n, 'GPU')} with zeroStage 3", {"zero_stage": 3}, n) for n in _more(place)),
    )
    has_more = False
    for name, change, count in means:
        changed = recipe.model_copy(update=change)
        needed = _device(shape, changed, count).total
        is_new = (changed, count) != (spec.training, place.gpus)
        if is_new and needed <= limit and not (has_more and count > place.gpus):
            yield f"{name} ({_gib(needed)} GiB)"
            has_more = count > place.gpus
    changed = recipe.model_copy(update={"zero_stage": 3, "offload": "optimizer"})
    if spec.training.offload == "none" and _device(shape, changed, place.gpus).total <= limit:
        node = training.host(shape, changed, ranks=place.gpus, nodes=place.nodes)
        yield f"offload optimizer with {_gib(node.memory)} GiB of host memory a node"


def _more(place: Place) -> Iterator[int]:
    count = place.gpus
    while (count := 2 ** count.bit_length()) <= MOST_GPUS:
        yield count


def _engine(shape: ModelShape, spec: Spec, place: Place) -> Finding | None:
    needed = inference.engine(shape, spec)
    if place.memory is None:
        return None
    room = int(place.memory * spec.inference.gpu_memory_utilization)
    if needed.total <= room:
        return None
    is_certain = needed.weights > room
    parts = spec.inference.tensor_parallel_size
    wanted = (n for n in (2, 4, 8, 16) if n > parts and _halved(shape, spec, n) <= room)
    amount = needed.weights if is_certain else needed.total
    enough = next(wanted, None)
    advice = [f"tensorParallelSize {enough}"] if enough else []
    if not is_certain:
        advice.append(f"maxModelLen below {needed.row_tokens:,}")
    line = (
        f"spec.inference: expected at most {_gib(room)} GiB a GPU (gpuMemoryUtilization "
        f"{spec.inference.gpu_memory_utilization:g}), found {_gib(amount)} GiB of "
        f"{'weights' if is_certain else 'weights and the cache of one row'}, "
        f"{_gib(amount - room)} GiB too many; what fits: {' or '.join(advice) or 'a larger GPU'}"
    )
    return Finding(line, is_certain)


def _halved(shape: ModelShape, spec: Spec, parts: int) -> int:
    changed = spec.inference.model_copy(update={"tensor_parallel_size": parts})
    return inference.engine(shape, spec.model_copy(update={"inference": changed})).total


def _node(shape: ModelShape, spec: Spec, place: Place) -> Iterator[Finding]:
    """Yield what a node's memory or disk has no room for."""
    recipe = spec.training
    needed = training.host(shape, recipe, ranks=place.gpus, nodes=place.nodes)
    if place.host is not None and needed.memory > place.host:
        kept = training.states(shape, recipe, ranks=place.gpus).host * place.gpus // place.nodes
        line = (
            f"spec.pods.training.resources.limits.memory: expected at least {_gib(needed.memory)} "
            f"GiB for {_manner(recipe, place.gpus)} and for saving, found {_gib(place.host)} GiB; "
            "raise it"
        )
        yield Finding(line, is_certain=kept > place.host)
    if place.disk is not None and needed.disk > place.disk:
        line = (
            "spec.pods.training.resources.limits.ephemeral-storage: expected at least "
            f"{_gib(needed.disk)} GiB for two models and two checkpoints, found "
            f"{_gib(place.disk)} GiB; raise it"
        )
        yield Finding(line, is_certain=False)


def _manner(recipe: Training, ranks: int) -> str:
    """Return how a training is spread: `ZeRO 3 on 8 GPUs, LoRA, offload optimizer`."""
    parts = [f"ZeRO {recipe.zero_stage} on {_count(ranks, 'GPU')}"]
    parts += [recipe.layout] if recipe.layout else []
    parts += ["LoRA"] if recipe.method == "lora" else []
    parts += [f"offload {recipe.offload}"] if recipe.offload != "none" else []
    return ", ".join(parts)


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _gib(amount: int) -> str:
    """Return an amount in GiB, whole where it is large."""
    value = amount / GIB
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004  two digits
