"""How long the stages of a run take on named GPUs: a model of the hardware, not a measurement.

Decoding reads the weights once a step for all rows at once and each row's cache (it is bound by
the memory's bandwidth); reading prompts and training are bound by matrix products: 2 operations
a parameter and token forward, 6 with the backward half (Kaplan et al. 2020, section 2.1), 8 where
activations are computed again. The shares of the data sheet's figures that are reached are
assumptions, and the table says so.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from selfimprove_pipeline.contract.recipe import Spec, Stage
from selfimprove_pipeline.local.forecast import Step
from selfimprove_pipeline.memory import inference
from selfimprove_pipeline.memory.gpus import Gpu
from selfimprove_pipeline.memory.shape import BYTES, ModelShape

BANDWIDTH_SHARE: Final = 0.5
PROMPT_SHARE: Final = 0.4
TRAINING_SHARE: Final = 0.3
ANSWER_TOKENS: Final = 450
"""Tokens of an answer in the mean, where its limit is not below: the pairs of the paper."""
SEQUENCE_TOKENS: Final = 492
"""Tokens of a training sequence in the mean: a prompt and an answer."""
MOST_ROWS: Final = 512
"""Rows that an engine works on at once."""
ENGINE_START: Final = 90.0
TRAINING_START: Final = 80.0
DISK_BANDWIDTH: Final = 0.5e9
"""Bytes a second at which a model is fetched, written and uploaded."""


@dataclass(frozen=True)
class Stretch:
    """One stage of one iteration: seconds expected and the throughput that they rest on."""

    index: int
    stage: Stage
    seconds: float
    throughput: str


def stretches(
    found: Iterable[Step], shape: ModelShape, spec: Spec, gpu: Gpu, count: int
) -> Iterator[Stretch]:
    """Yield what each stage takes on `count` GPUs; a stage that a judge decides has no figure."""
    for step in found:
        if step.stage in ("evaluate", "generate", "translate"):
            yield _inferred(step, shape, spec, gpu, count)
        elif step.stage == "train":
            yield _trained(step, shape, spec, gpu, count)


def _inferred(step: Step, shape: ModelShape, spec: Spec, gpu: Gpu, count: int) -> Stretch:
    parts = spec.inference.tensor_parallel_size
    engines = max(1, count // parts)
    tokens = min(step.completion_tokens, step.rows * ANSWER_TOKENS)
    rate = engines * decode_rate(shape, spec, gpu)
    reading = engines * parts * gpu.teraflops * 1e12 * PROMPT_SHARE / (2 * shape.active)
    seconds = tokens / rate + step.prompt_tokens / reading
    return Stretch(step.index, step.stage, seconds, f"{rate:,.0f} tokens/s written")


def decode_rate(shape: ModelShape, spec: Spec, gpu: Gpu) -> float:
    """Return the tokens a second that one engine writes when it is full."""
    parts = spec.inference.tensor_parallel_size
    width = BYTES.get(spec.inference.dtype or spec.model.dtype, shape.stored)
    at_once = inference.rows_at_once(shape, spec, memory=gpu.memory, tokens=2 * ANSWER_TOKENS)
    rows = max(1, min(MOST_ROWS, at_once))
    read = shape.parameters * width + rows * ANSWER_TOKENS * shape.cached * inference.CACHE_BYTES
    reading = read / (parts * gpu.bandwidth * 1e9 * BANDWIDTH_SHARE)
    products = rows * 2 * shape.active / (parts * gpu.teraflops * 1e12 * PROMPT_SHARE)
    return rows / max(reading, products)


def _trained(step: Step, shape: ModelShape, spec: Spec, gpu: Gpu, count: int) -> Stretch:
    recipe = spec.training
    pairs = spec.prompts.per_iteration * len(spec.languages.all())
    tokens = pairs * 2 * min(SEQUENCE_TOKENS, recipe.max_length)
    backward = 8 if recipe.gradient_checkpointing else 6
    products = 2 + backward * recipe.epochs
    rate = count * gpu.teraflops * 1e12 * TRAINING_SHARE / (backward * shape.active)
    seconds = tokens * products / backward / rate
    return Stretch(
        step.index, step.stage, step.num_artifacts * seconds, f"{rate:,.0f} tokens/s trained"
    )


def table(found: Iterable[Stretch], shape: ModelShape, gpu: Gpu, count: int) -> Table:
    """Return the minutes for a terminal, each iteration's starts and copies of models with them."""
    made = Table(
        title=f"expected minutes on {count} x {gpu.name}",
        caption=(
            f"assumed: {BANDWIDTH_SHARE:.0%} of {gpu.bandwidth:,} GB/s, {PROMPT_SHARE:.0%} "
            f"(prompts) and {TRAINING_SHARE:.0%} (training) of {gpu.teraflops:,} TFLOP/s, "
            f"{ANSWER_TOKENS} tokens an answer, {DISK_BANDWIDTH / 1e9:g} GB/s to the store; "
            "no tasks of lm-eval, no judge"
        ),
    )
    for name in ("model", "stage", "minutes", "throughput assumed"):
        made.add_column(name, justify="right" if name == "minutes" else "left")
    copies = 3 * shape.parameters * shape.stored / DISK_BANDWIDTH
    total, known = 0.0, list(found)
    for stretch in known:
        total += stretch.seconds
        row = (f"M{stretch.index}", stretch.stage, _minutes(stretch.seconds), stretch.throughput)
        made.add_row(*row)
    for index in sorted({stretch.index for stretch in known}):
        is_trained = any(one.index == index and one.stage == "train" for one in known)
        fixed = ENGINE_START + ((TRAINING_START + copies) if is_trained else 0)
        total += fixed
        made.add_row(f"M{index}", "starts, models copied", _minutes(fixed), "")
    made.add_row("", "all", _minutes(total), "")
    return made


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"
