"""How pairs become the next model.

The reference pass runs in the micro-batches, precision and ZeRO stage of its training, so the
fields that decide about those affect the stage `reference` too. Later epochs do not.
"""

from typing import Annotated, Literal

from pydantic import Field

from selfimprove_pipeline.contract.recipe.base import Name, Part, Rule, affects, by_profile
from selfimprove_pipeline.contract.recipe.sampling import Seed, TokenCount


class Lora(Part):
    """The low-rank adapter that `training.method: lora` trains."""

    r: Annotated[int, Field(ge=1, le=1024), affects("train")] = 16
    """r is the rank of the adapter. Default: 16."""

    alpha: Annotated[int, Field(ge=1, le=4096), affects("train")] = 32
    """alpha scales the adapter by alpha / r. Default: 32."""

    dropout: Annotated[float, Field(ge=0, lt=1), affects("train")] = 0.0
    """dropout rate on the adapter's input. Default: 0."""

    target_modules: Annotated[tuple[Name, ...], Field(max_length=64), affects("train")] = ()
    """targetModules are the names of the modules to adapt. Empty: all linear layers but the
    head."""


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
    """method trains all weights (`full`), or a low-rank adapter that is merged at the end (`lora`).
    Default: full."""

    lora: Lora = Field(default_factory=Lora)
    """lora configures the adapter; only used with method `lora`."""

    beta: Annotated[float, Field(gt=0, le=10), affects("train")] = by_profile()
    """beta of DPO: the weight of the log-ratio to the reference model M_t. Default: 0.5."""

    nll_weight: Annotated[float, Field(ge=0, le=100), affects("train")] = by_profile()
    """nllWeight is alpha, the weight of the NLL of the chosen completion. Default: 1."""

    nll_normalization: Annotated[Literal["sequence", "token"], affects("train")] = by_profile()
    """nllNormalization averages the NLL over each sequence and then over pairs (`sequence`), as
    LLaMA-Factory's pref_ftx does, or over all chosen tokens of the global batch (`token`). Default:
    sequence."""

    learning_rate: Annotated[float, Field(gt=0, le=1), affects("train")] = by_profile()
    """learningRate is the peak learning rate of AdamW. Default: 5e-7."""

    lr_scheduler: Annotated[
        Literal["cosine", "linear", "constant", "constant_with_warmup"], affects("train")
    ] = by_profile()
    """lrScheduler is the learning rate schedule, by its name in transformers. Default: cosine."""

    warmup_ratio: Annotated[float, Field(ge=0, lt=1), affects("train")] = by_profile()
    """warmupRatio is the share of steps in which the learning rate rises. Default: 0.1."""

    weight_decay: Annotated[float, Field(ge=0, le=1), affects("train")] = by_profile()
    """weightDecay of AdamW. Default: 0."""

    max_grad_norm: Annotated[float, Field(gt=0, le=1000), affects("train")] = by_profile()
    """maxGradNorm is the norm that gradients are clipped to. Default: 1."""

    epochs: Annotated[int, Field(ge=1, le=100), affects("train")] = by_profile()
    """epochs is the number of passes over the pairs. Default: 1."""

    global_batch_size: Annotated[int, Field(ge=1, le=65_536), affects("reference", "train")] = (
        by_profile()
    )
    """globalBatchSize is the number of pairs per step, over all ranks and accumulation. Default:
    16."""

    micro_batch_size: Annotated[int, Field(ge=1, le=4096), affects("reference", "train")] = (
        by_profile()
    )
    """microBatchSize is the number of pairs that a rank computes at once in the padded layout. It
    affects memory and speed, and the weights only by rounding. Default: 1."""

    layout: Annotated[Literal["packed", "padded"] | None, affects("reference", "train")] = None
    """layout puts the pairs of a pass one behind another without padding (`packed`), or pads them
    to the longest (`padded`). Default: packed, if the model's attention allows it."""

    tokens_per_device: Annotated[
        int, Field(ge=128, le=1_048_576), affects("reference", "train")
    ] = by_profile()
    """tokensPerDevice is the maximum number of tokens in a packed pass; a longer pair gets its own
    pass. On CPUs small passes are faster: 1024. Default: 16384."""

    max_length: Annotated[TokenCount, affects("reference", "train")] = by_profile()
    """maxLength limits prompt and completion together, in tokens. Longer pairs are dropped and
    counted, never cut. Default: 2048."""

    precision: Annotated[Literal["bf16", "fp32"], affects("reference", "train")] = by_profile()
    """precision of the computation; the optimizer's master weights are always fp32. Default:
    bf16."""

    save_dtype: Annotated[Literal["bfloat16", "float16", "float32"], affects("train")] = (
        by_profile()
    )
    """saveDtype is the type of the weights in the model folder. Default: bfloat16."""

    gradient_checkpointing: bool | None = None
    """gradientCheckpointing recomputes activations instead of keeping them. Default: only if those
    of the largest pass would not fit beside the model."""

    zero_stage: Annotated[Literal[0, 1, 2, 3] | None, affects("reference", "train")] = None
    """zeroStage of DeepSpeed. Default: 2 if the model then fits on the GPUs that `pods.training`
    declares, or else on eight of 80 GB; otherwise 3. Decided once, when the run begins."""

    offload: Annotated[Literal["none", "optimizer", "all"], affects("reference", "train")] = "none"
    """offload moves the optimizer state (`optimizer`), or parameters too (`all`), to CPU memory.
    Default: none."""

    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """checkpointSteps is the number of steps between checkpoints. Default: by time, none in the
    first 20 minutes, then as often as costs at most a tenth of the time."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """nodes is the number of nodes that train together; on one machine always 1. Default: 1."""

    seed: Annotated[Seed, affects("reference", "train")] = by_profile()
    """seed of the order of pairs and of dropout. Default: 42."""

    report_to: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...], Field(max_length=4)
    ] = ()
    """reportTo lists TRL's trackers to send metrics to. Empty: none. The artifact has the metrics
    either way."""
