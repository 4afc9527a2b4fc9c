"""TRL's DPOTrainer with our rows, our order, our loss and stored reference log-probabilities.

What is TRL's stays TRL's: loading the model, PEFT, the fused head that gives log-probabilities
without logits, DeepSpeed, the loop and the trackers. Four hooks differ: dataset preparation
(`rows` has tokenised), the data loader (`plan` has ordered), the loss (`objective`) and the
reference pass, which computes or takes what `stage` hands over, unless the objective compares
with nothing. Written against TRL 1.16.
"""

import functools
import gc
import math
import time
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from datasets import Dataset  # type: ignore[import-untyped]
from deepspeed import DeepSpeedEngine  # type: ignore[import-untyped]
from deepspeed.runtime.zero.parameter_offload import (  # type: ignore[import-untyped]
    FWD_MODULE_STACK,
)
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PrinterCallback,
)
from trl.models.utils import prepare_deepspeed
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from typing_extensions import override

from selfimprove_pipeline.errors import InputError
from selfimprove_pipeline.train.batches import Collator, SlotRows, columns
from selfimprove_pipeline.train.model_folder import forget_generation
from selfimprove_pipeline.train.objective import Objective
from selfimprove_pipeline.train.plan import Slot
from selfimprove_pipeline.train.rows import TokenRow

References = dict[int, tuple[float, float]]
"""Reference log-probabilities (chosen, rejected) by row index."""


@dataclass(frozen=True)
class Work:
    """What this rank trains on."""

    rows: tuple[TokenRow, ...]
    slots: list[list[Slot]]
    """slots of this rank's micro-batches, over all steps."""
    first_pass: int
    """first_pass is the number of micro-batches in which every row occurs once."""
    references: References | None
    """references, None when this trainer has to compute them."""
    buffers: dict[str, Tensor]
    """buffers of M_t in fp32, see `fp32_buffers`."""


def fp32_buffers(model: str) -> dict[str, Tensor]:
    """Return the buffers that M_t computes rather than loads, such as rotary frequencies.

    Call it before DeepSpeed is configured, else they come out in bf16.
    """
    with init_empty_weights(include_buffers=False):
        skeleton = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(model)
        )
    stored = skeleton.state_dict().keys()
    return {name: value for name, value in skeleton.named_buffers() if name not in stored}


class PairTrainer(DPOTrainer):
    """Trains on planned micro-batches with the loss of `objective`."""

    loss_is_scaled_for_ga = True  # the weights normalise; transformers must not divide again

    def __init__(
        self,
        model: str,
        *,
        args: DPOConfig,
        work: Work,
        objective: Objective,
        lora: LoraConfig | None = None,
    ) -> None:
        self.work = work
        self.references: References = work.references or {}
        self._objective = objective
        self._since = time.monotonic()
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        pad = tokenizer.pad_token_id
        super().__init__(
            model=model,
            args=args,
            train_dataset=columns(work.rows),
            data_collator=Collator(
                tokenizer.eos_token_id if pad is None else pad, with_rejected=objective.compares
            ),
            processing_class=tokenizer,
            peft_config=lora,
        )
        self._sums = self._no_sums()
        forget_generation(cast("PreTrainedModel", self.model))  # checkpoints save it too
        self.remove_callback(PrinterCallback)
        if lora is not None:
            self._restore_adapter_dropout(lora.lora_dropout)

    @property
    def policy(self) -> torch.nn.Module:
        """The model that trains, unwrapped."""
        return cast("torch.nn.Module", self.model)

    @override
    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    @override
    def _prepare_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        # transformers casts floats to bf16 under DeepSpeed: a sum of -155.49 nats becomes -155.
        return {name: value.to(self.args.device) for name, value in inputs.items()}

    @override
    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        self._restore_buffers()
        if not self._objective.compares:
            return dataset
        if not self.references:
            self.references = self._reference_pass(dataset)
        known = [self.references[index] for index in range(len(dataset))]
        chosen, rejected = ([row[side] for row in known] for side in (0, 1))
        with_chosen = dataset.add_column("ref_chosen_logps", chosen)
        return with_chosen.add_column("ref_rejected_logps", rejected)

    def _reference_pass(self, dataset: Dataset) -> References:
        """Compute every row once under M_t, in the very micro-batches that training will see."""
        model = self._reference_model()
        own: References = {}
        for batch in self._loader(dataset, self.work.slots[: self.work.first_pass]):
            inputs = self._prepare_inputs(batch)
            chosen, rejected = self.compute_ref_log_probs(  # type: ignore[no-untyped-call]
                model, _model_inputs(inputs)
            )
            real = inputs["weight"] > 0
            indices, *logps = (x[real].tolist() for x in (inputs["row"], chosen, rejected))
            own |= dict(zip(indices, zip(*logps, strict=True), strict=True))
        found = _merged(own)
        if not all(math.isfinite(logp) for logps in found.values() for logp in logps):
            msg = "expected finite log-probabilities of the model, found others; check its weights"
            raise InputError(msg)
        return found

    def _reference_model(self) -> torch.nn.Module:
        if self.is_deepspeed_enabled:
            engine: torch.nn.Module = prepare_deepspeed(self.policy, self.accelerator)
            return engine
        return self.policy.eval()

    @override
    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._loader(self.train_dataset, self.work.slots)

    def _loader(self, dataset: Dataset, slots: list[list[Slot]]) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            SlotRows(dataset),
            batch_sampler=slots,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    @override
    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return this micro-batch's part of the global loss, times the ranks.

        Gradients are averaged over ranks, so a rank's part counts `world_size` times.
        """
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=labels,
            use_cache=False,
            fused_lm_head=True,
        )
        terms = self._objective.terms(outputs.log_probs.float().sum(dim=1), inputs)
        real = (inputs["weight"] > 0).repeat(2 if self._objective.compares else 1)
        tokens = (inputs["attention_mask"].sum(dim=1) * real).sum()
        self._sums += torch.cat([terms.measures.double(), tokens.double()[None]])
        loss: Tensor = terms.loss * self.args.world_size
        return loss

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's measures, summed over ranks and micro-batches, to transformers' own."""
        if "loss" in logs:
            logs.update(self._step_measures())
            if not math.isfinite(logs["loss"]):
                msg = (
                    f"expected a finite loss, found {logs['loss']} in step "
                    f"{self.state.global_step}; lower training.learningRate"
                )
                raise InputError(msg)
        super().log(logs, start_time)

    def _step_measures(self) -> dict[str, float]:
        sums = self.accelerator.reduce(self._sums, "sum").tolist()
        self._sums = self._no_sums()
        before, self._since = self._since, time.monotonic()
        return {
            **dict(zip((*self._objective.measures, "tokens"), sums, strict=True)),
            "seconds": self._since - before,
        }

    def release(self) -> None:
        """Let go of the engine, so that another training of this process has the memory.

        ZeRO-3 keeps modules, and with them everything, in a global stack and in caches.
        """
        if not self.is_deepspeed_enabled:
            return
        cast("DeepSpeedEngine", self.model_wrapped).destroy()
        FWD_MODULE_STACK.clear()
        for cache in gc.get_objects():
            is_cache = type(cache) is functools._lru_cache_wrapper  # noqa: SLF001  has no public name
            if is_cache and cache.__module__.startswith("deepspeed.runtime.zero."):
                cache.cache_clear()

    def _no_sums(self) -> Tensor:
        size = len(self._objective.measures) + 1
        return torch.zeros(size, dtype=torch.float64, device=self.accelerator.device)

    def _restore_buffers(self) -> None:
        # deepspeed.zero.Init makes every float tensor bf16, rotary frequencies too: far positions
        # would be turned by other angles than in the engine that generates.
        base = self.policy
        if isinstance(base, PeftModel):
            base = base.get_base_model()
        for name, buffer in base.named_buffers():
            if name in self.work.buffers:
                buffer.data = self.work.buffers[name].to(buffer.device)

    def _restore_adapter_dropout(self, probability: float) -> None:
        # TRL's disable_dropout means the model's own; it also silences the adapter's.
        for name, module in self.policy.named_modules():
            if "lora_dropout" in name and isinstance(module, torch.nn.Dropout):
                module.p = probability

    @override
    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Leave weights out of checkpoints where DeepSpeed's own files already hold them."""
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)

    @override
    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: `model_folder` writes the card of the finished model."""


def _model_inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: inputs[name] for name in ("input_ids", "attention_mask", "completion_mask")}


def _merged(own: References) -> References:
    """Return the references of all ranks."""
    if not torch.distributed.is_initialized():
        return own
    parts: list[References] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {index: logps for part in parts for index, logps in part.items()}
