"""The recipe's training fields as the settings of TRL, DeepSpeed and PEFT.

Master weights are fp32 in every configuration: at a learning rate of 5e-7 an update is below
what bf16 can represent. ZeRO 1 to 3 train bf16 weights with DeepSpeed's fp32 masters; stage 0
is PyTorch's DistributedDataParallel on fp32 weights under autocast. `trainer` uses the result.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl.trainer.dpo_config import DPOConfig

from selfimprove_pipeline.contract.recipe.training import Training
from selfimprove_pipeline.train.data.plan import Plan
from selfimprove_pipeline.train.model.layout import has_soft_cap

DTYPES = {
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}

COLLECTIVE_SECONDS = 4 * 3600
"""Seconds that ranks wait for each other; transformers' own 30 minutes are short for the
download of a checkpoint: 12 bytes a parameter, and the other ranks wait for it in a gather."""


def compute_dtype(training: Training) -> torch.dtype:
    """Return the type that matrix products are computed in."""
    return DTYPES[training.precision]


def load_dtype(training: Training) -> torch.dtype:
    """Return the type that M_t's weights are loaded in; stage 0 trains them in place as masters."""
    in_place = training.zero_stage == 0 and training.method == "full"
    return torch.float32 if in_place else compute_dtype(training)


def dpo_config(
    training: Training, *, folder: Path, model: Mapping[str, Any], plan: Plan
) -> DPOConfig:
    """Return TRL's settings; making them starts the process group.

    `model` is M_t's config.json. Gradient checkpointing is left to whoever knows all ranks' memory.
    The plan covers all epochs, so for transformers there is one. Rows are never cut
    (`max_length`), and checkpoints are asked for by `checkpoints.Checkpoints`.
    """
    cpu = not torch.cuda.is_available()
    return DPOConfig(
        output_dir=str(folder),
        use_cpu=cpu,
        bf16=training.precision == "bf16",
        deepspeed=deepspeed_config(training),
        ddp_find_unused_parameters=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=plan.micro,
        gradient_accumulation_steps=plan.accumulation,
        num_train_epochs=1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        beta=training.beta,
        max_length=None,
        precompute_ref_log_probs=True,
        router_aux_loss_coef=0.0,
        seed=training.seed,
        model_init_kwargs={
            "dtype": str(load_dtype(training)).removeprefix("torch."),
            # SDPA leaves a soft cap out without a word; the engine that generates applies it.
            **({"attn_implementation": "eager"} if has_soft_cap(model) else {}),
        },
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # nor is one deleted but by `checkpoints`: it may be on its way
        ddp_timeout=COLLECTIVE_SECONDS,
        report_to=list(training.report_to) or "none",
        disable_tqdm=True,
        log_level="warning",
    )


def deepspeed_config(training: Training) -> dict[str, Any] | None:
    """Return DeepSpeed's settings, None at ZeRO stage 0."""
    if training.zero_stage == 0:
        return None
    zero: dict[str, Any] = {
        "stage": training.zero_stage,
        "stage3_gather_16bit_weights_on_model_save": False,
    }
    to_cpu = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if training.offload != "none":
        zero["offload_optimizer"] = to_cpu
    if training.offload == "all":
        zero["offload_param"] = to_cpu
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": training.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "gradient_clipping": training.max_grad_norm,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        # PyTorch's own AdamW steps on the CPU too; DeepSpeed's would compile C++ in the image.
        "zero_force_ds_cpu_optimizer": False,
    }


def lora_config(training: Training) -> LoraConfig | None:
    """Return PEFT's settings, None when all weights train."""
    if training.method == "full":
        return None
    lora = training.lora
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or "all-linear",
    )


def label(training: Training, plan: Plan) -> str:
    """Return what a checkpoint's files depend on; one of another label cannot be resumed."""
    parts = {
        "world": plan.batches.world,
        "zero": training.zero_stage,
        "offload": training.offload,
        "precision": training.precision,
        "method": training.method,
        "layout": plan.layout,
        "micro": plan.micro,
        "accumulation": plan.accumulation,
        **{name: version(name) for name in ("trl", "transformers", "deepspeed", "torch")},
    }
    return " ".join(f"{name}={value}" for name, value in parts.items())
