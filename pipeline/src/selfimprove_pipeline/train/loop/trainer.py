"""TRL's DPOTrainer with our rows, our order, our loss and stored reference log-probabilities.

What is TRL's stays TRL's: loading the model, PEFT, the fused head that gives log-probabilities
without logits, DeepSpeed, the loop and the trackers. Four hooks differ: dataset preparation
(`rows` has tokenised), the data loader (`plan` has ordered), the loss (`objective`) and the
reference pass, which computes or takes what `stage` hands over, unless the objective compares
with nothing. A pass is padded or packed, see `batches`; before packed ones are trusted with a
model, two rows go through both layouts. Written against TRL 1.16.
"""

import functools
import gc
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

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
from trl.trainer import dpo_trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import add_fused_lm_head
from typing_extensions import override

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.train.data.batches import Batch, SlotRows, collator, columns, logps
from selfimprove_pipeline.train.data.plan import Plan, Slot
from selfimprove_pipeline.train.loop.objective import Objective
from selfimprove_pipeline.train.model import attention
from selfimprove_pipeline.train.model.folder import forget_generation
from selfimprove_pipeline.train.model.layout import Layout
from selfimprove_pipeline.train.processes import ranks

References = dict[int, tuple[float, float]]
"""Reference log-probabilities (chosen, rejected) by row index."""
_LAYOUTS: Final[tuple[Layout, ...]] = ("padded", "packed")


@dataclass(frozen=True)
class Work:
    """What this rank trains on."""

    plan: Plan
    most_apart: float | None
    """most_apart is how many nats a token the layouts may differ, None when this was settled."""
    references: References | None
    """references, None when this trainer has to compute them."""
    buffers: dict[str, Tensor]
    """buffers of M_t in fp32, see `skeleton_of`."""


def _no_hash(_: torch.nn.Module) -> str:
    return ""


# It would name TRL's cache of reference log-probabilities, which is never used here: 92 s of every
# rank for a model of 8 billion parameters.
vars(dpo_trainer)["hash_module"] = _no_hash


class Skeleton(NamedTuple):
    """What a model tells of itself without its weights."""

    buffers: dict[str, Tensor]
    """buffers that it computes rather than loads, such as rotary frequencies, in fp32."""
    parameters: int


def skeleton_of(model: str) -> Skeleton:
    """Return what M_t tells of itself.

    Call it before DeepSpeed is configured, else the buffers come out in bf16.
    """
    with init_empty_weights(include_buffers=False):
        skeleton = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(model)
        )
    stored = skeleton.state_dict().keys()
    buffers = {name: value for name, value in skeleton.named_buffers() if name not in stored}
    return Skeleton(buffers, sum(parameter.numel() for parameter in skeleton.parameters()))


class PairTrainer(DPOTrainer):
    """Trains on planned passes with the loss of `objective`.

    `refused` says that the model cannot be trusted with the packed ones: then nothing was computed
    and it must not train.
    """

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
        self._collators = {
            layout: collator(
                layout,
                tokenizer.eos_token_id if pad is None else pad,
                with_rejected=objective.compares,
            )
            for layout in _LAYOUTS
        }
        self.refused = False
        super().__init__(
            model=model,
            args=args,
            train_dataset=columns(work.plan.batches.rows),
            data_collator=self._collators[work.plan.layout],
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

    def _base(self) -> PreTrainedModel:
        """Return the model without an adapter around it."""
        found = self.policy
        base = found.get_base_model() if isinstance(found, PeftModel) else found
        return cast("PreTrainedModel", base)

    @override
    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    @override
    def _prepare_inputs(self, inputs: Batch) -> Batch:
        # transformers casts floats to bf16 under DeepSpeed: a sum of -155.49 nats becomes -155.
        return {
            name: value.to(self.args.device) if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }

    @override
    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        self._restore_buffers()
        base = self._base()
        add_fused_lm_head(base, outputs=("log_probs",))  # TRL asks for measures that we have not
        is_packed = self.work.plan.layout == "packed"
        needs_references = self._objective.compares and not self.references
        needs_verdict = is_packed and self.work.most_apart is not None
        if is_packed:
            attention.register()
        model = self._reference_model() if needs_references or needs_verdict else None
        if model is not None and needs_verdict:
            self.refused = not self._packing_holds(model, dataset)
        if is_packed and not self.refused:
            base.set_attn_implementation(attention.NAME)
        if self.refused or not self._objective.compares:
            return dataset
        if model is not None and needs_references:
            self.references = self._reference_pass(model, dataset)
        known = [self.references[index] for index in range(len(dataset))]
        chosen, rejected = ([row[side] for row in known] for side in (0, 1))
        with_chosen = dataset.add_column("ref_chosen_logps", chosen)
        return with_chosen.add_column("ref_rejected_logps", rejected)

    def _packing_holds(self, model: torch.nn.Module, dataset: Dataset) -> bool:
        """Say whether the two shortest rows have like log-probabilities in both layouts.

        Models whose attention does not heed the packing have others: tokens see their neighbours.
        """
        base, batches = self._base(), self.work.plan.batches
        shortest = sorted(range(len(dataset)), key=batches.tokens)[:2]
        examples = [SlotRows(dataset)[Slot(row, 1.0, 1.0)] for row in shortest]
        found = {}
        plain = base.config._attn_implementation  # noqa: SLF001  has no public name
        for layout, name in zip(_LAYOUTS, (plain, attention.NAME), strict=True):
            base.set_attn_implementation(name)
            inputs = self._prepare_inputs(self._collators[layout](examples))
            try:
                found[layout] = self._reference_logps(model, inputs)
            except TypeError:  # its forward does not take what packing has to tell
                return False
        sides = ("chosen_ids", "rejected_ids") if self._objective.compares else ("chosen_ids",)
        sizes = [len(example[side]) for side in sides for example in examples]
        tokens = torch.tensor(sizes, device=self.args.device)
        apart = float(((found["packed"] - found["padded"]).abs() / tokens).max())
        return ranks.from_first(lambda: apart <= cast("float", self.work.most_apart))

    def _reference_pass(self, model: torch.nn.Module, dataset: Dataset) -> References:
        """Compute every row once under M_t, in the very passes that training will see."""
        own: References = {}
        slots = self.work.plan.of_rank(ranks.rank())[: self.work.plan.first_epoch]
        for batch in self._loader(dataset, slots):
            inputs = self._prepare_inputs(batch)
            chosen, rejected = self._reference_logps(model, inputs).chunk(2)
            real = inputs["weight"] > 0
            indices, *found = (x[real].tolist() for x in (inputs["row"], chosen, rejected))
            own |= dict(zip(indices, zip(*found, strict=True), strict=True))
        merged = _merged(own)
        if not all(math.isfinite(logp) for both in merged.values() for logp in both):
            msg = "expected finite log-probabilities of the model, found others; check its weights"
            raise InputError(msg)
        return merged

    def _reference_logps(self, model: torch.nn.Module, inputs: Batch) -> Tensor:
        """Return what `logps` returns under M_t."""
        policy = self.policy
        adapter = policy.disable_adapter() if isinstance(policy, PeftModel) else nullcontext()
        with torch.no_grad(), adapter, self.accelerator.autocast():
            return logps(model, inputs)

    def _reference_model(self) -> torch.nn.Module:
        if self.is_deepspeed_enabled:
            engine: torch.nn.Module = prepare_deepspeed(self.policy, self.accelerator)
            return engine
        return self.policy.eval()

    @override
    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._loader(self.train_dataset, self.work.plan.of_rank(ranks.rank()))

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
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return this pass's part of the global loss, times the ranks.

        Gradients are averaged over ranks, so a rank's part counts `world_size` times.
        """
        terms = self._objective.terms(logps(model, inputs), inputs)
        tokens = (inputs["tokens"] * (inputs["weight"] > 0)).sum()
        self._sums += torch.cat([terms.measures.double(), tokens.double()[None]])
        loss: Tensor = terms.loss * self.args.world_size
        return loss

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's measures, summed over ranks and passes, to transformers' own."""
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
        if isinstance(self.model_wrapped, DeepSpeedEngine):
            self.model_wrapped.destroy()
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
        base = self._base()
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
        """Write none: `folder` writes the card of the finished model."""


def _merged(own: References) -> References:
    """Return the references of all ranks."""
    if not torch.distributed.is_initialized():
        return own
    parts: list[References] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {index: logps for part in parts for index, logps in part.items()}
