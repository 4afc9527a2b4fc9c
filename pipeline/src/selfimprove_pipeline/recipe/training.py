"""How pairs become the next model.

The reference pass runs in the micro-batches, precision and ZeRO stage of its training, so the
fields that decide about those affect the stage `reference` too. Later epochs do not.
"""

from typing import Annotated, Literal

from pydantic import Field

from selfimprove_pipeline.recipe.base import Name, Part, Rule, affects, by_profile
from selfimprove_pipeline.recipe.sampling import Seed, TokenCount


class Lora(Part):
    """The low-rank adapter when `training.method` is `lora`."""

    r: Annotated[int, Field(ge=1, le=1024), affects("train")] = 16
    """r is the rank."""

    alpha: Annotated[int, Field(ge=1, le=4096), affects("train")] = 32
    """alpha scales the adapter by alpha / r."""

    dropout: Annotated[float, Field(ge=0, lt=1), affects("train")] = 0.0
    """dropout on the adapter's input."""

    target_modules: Annotated[tuple[Name, ...], Field(max_length=64), affects("train")] = ()
    """targetModules by name. Empty means all linear layers but the head."""


class Training(Part):
    """DPO (sigmoid) with an NLL term on the chosen completion."""

    rules = (
        Rule(
            "!has(self.zeroStage) || self.offload == 'none' || self.zeroStage == 3"
            " || (self.offload == 'optimizer' && self.zeroStage > 0)",
            "expected zeroStage 1 or more with offload optimizer, 3 with offload all",
            lambda self: (
                str(self.zero_stage)
                if self.zero_stage is not None
                and self.zero_stage < {"none": 0, "optimizer": 1, "all": 3}[self.offload]
                else None
            ),
        ),
    )

    method: Annotated[Literal["full", "lora"], affects("reference", "train")] = by_profile()
    """method trains all weights or a low-rank adapter, which is merged at the end."""

    lora: Lora = Field(default_factory=Lora)
    """lora describes the adapter; only used with method lora."""

    beta: Annotated[float, Field(gt=0, le=10), affects("train")] = by_profile()
    """beta of DPO: the weight of the log-ratio to the reference model M_t."""

    nll_weight: Annotated[float, Field(ge=0, le=100), affects("train")] = by_profile()
    """nllWeight is alpha, the weight of the NLL of the chosen completion."""

    nll_normalization: Annotated[Literal["sequence", "token"], affects("train")] = by_profile()
    """nllNormalization averages the NLL over each sequence and then over pairs, as LLaMA-Factory's
    pref_ftx does, or over all chosen tokens of the global batch."""

    learning_rate: Annotated[float, Field(gt=0, le=1), affects("train")] = by_profile()
    """learningRate at its peak (AdamW)."""

    lr_scheduler: Annotated[
        Literal["cosine", "linear", "constant", "constant_with_warmup"], affects("train")
    ] = by_profile()
    """lrScheduler by its name in transformers."""

    warmup_ratio: Annotated[float, Field(ge=0, lt=1), affects("train")] = by_profile()
    """warmupRatio is the share of the steps in which the learning rate rises."""

    weight_decay: Annotated[float, Field(ge=0, le=1), affects("train")] = by_profile()
    """weightDecay of AdamW."""

    max_grad_norm: Annotated[float, Field(gt=0, le=1000), affects("train")] = by_profile()
    """maxGradNorm clips the gradient's norm."""

    epochs: Annotated[int, Field(ge=1, le=100), affects("train")] = by_profile()
    """epochs over the pairs."""

    global_batch_size: Annotated[int, Field(ge=1, le=65_536), affects("reference", "train")] = (
        by_profile()
    )
    """globalBatchSize is the number of pairs of a step, over all ranks and accumulation."""

    micro_batch_size: Annotated[int, Field(ge=1, le=4096), affects("reference", "train")] = (
        by_profile()
    )
    """microBatchSize is the number of pairs that one rank computes at once where they are padded;
    packed passes do not read it. It changes memory and speed; the loss is the same within
    rounding, which still makes other weights."""

    layout: Annotated[Literal["packed", "padded"] | None, affects("reference", "train")] = None
    """layout of a pass: pairs one behind another without padding (`packed`), or padded to the
    longest of them. Unset means packed, unless the model's attention cannot be."""

    tokens_per_device: Annotated[
        int, Field(ge=128, le=1_048_576), affects("reference", "train")
    ] = by_profile()
    """tokensPerDevice is the most tokens of a packed pass; a longer pair has one of its own. On
    processors small passes are faster: 1024."""

    max_length: Annotated[TokenCount, affects("reference", "train")] = by_profile()
    """maxLength of prompt and completion in tokens. Longer rows are counted drops, never cut."""

    precision: Annotated[Literal["bf16", "fp32"], affects("reference", "train")] = by_profile()
    """precision of the computation. The optimizer's master weights are fp32 either way."""

    save_dtype: Annotated[Literal["bfloat16", "float16", "float32"], affects("train")] = (
        by_profile()
    )
    """saveDtype of the weights in the model folder."""

    gradient_checkpointing: bool | None = None
    """gradientCheckpointing computes activations again instead of keeping them. Unset means: where
    those of the largest pass would not fit beside the model."""

    zero_stage: Annotated[Literal[0, 1, 2, 3] | None, affects("reference", "train")] = None
    """zeroStage of DeepSpeed. Unset means 2 where the model fits so on the GPUs that
    `pods.training` declares, or else on eight of 80 GB, and 3 where it does not: decided once,
    when the run begins."""

    offload: Annotated[Literal["none", "optimizer", "all"], affects("reference", "train")] = "none"
    """offload moves optimizer state, or parameters too, to the CPU's memory."""

    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """checkpointSteps is the number of steps from one checkpoint to the next. Unset means by time:
    none in the first 20 minutes, then as often as costs at most a tenth of the time."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """nodes that train together. On one machine there is one."""

    seed: Annotated[Seed, affects("reference", "train")] = by_profile()
    """seed of the order of pairs and of dropout."""

    report_to: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...], Field(max_length=4)
    ] = ()
    """reportTo are TRL's trackers. Empty means none; metrics are in the artifact either way."""
