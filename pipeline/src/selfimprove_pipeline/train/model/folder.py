"""The model folder of M_(t+1): an ordinary Hugging Face folder that vLLM and others load.

Weights come from the fp32 masters, not from the bf16 copy that trained. Rank 0 loads M_t once
more, puts the masters in and saves it, so names, ties and sharding are those of M_t. Each is
compared with M_t's and cast on the device, so the CPU never holds fp32 copies of all. Tokenizer
files are copied byte by byte.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-untyped]
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from selfimprove_pipeline.contract.manifests import TOKENIZER_FILES

GENERATION = "generation_config.json"

Masters = Iterable[tuple[str, Tensor]]
"""Trained parameters by name, in fp32 on the device, gathered one at a time."""


@dataclass(frozen=True)
class Target:
    """Where and how the model is saved."""

    folder: Path
    dtype: torch.dtype
    end_of_turn_ids: tuple[int, ...]
    """end_of_turn_ids end a generation, see `rendering.Renderer`."""


@dataclass
class Changed:
    """How many weights differ from where training started."""

    total: int = 0
    masters: int = 0
    """masters differ in fp32."""
    saved: int = 0
    """saved differ in the type they are saved in."""

    def count(self, *, start: Tensor, master: Tensor, dtype: torch.dtype) -> None:
        """Add a parameter; `start` and `master` are fp32."""
        self.total += master.numel()
        self.masters += int((master != start).sum())
        self.saved += int((master.to(dtype) != start.to(dtype)).sum())

    def shares(self) -> dict[str, float]:
        """Return both as shares of all trained weights."""
        return {
            "changedWeights": self.masters / self.total,
            "changedSavedWeights": self.saved / self.total,
        }


def masters(model: torch.nn.Module) -> Masters:
    """Yield the trained parameters; every rank must take them all, in step with the others."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            full = safe_get_full_fp32_param(parameter)
            yield name, (parameter.data if full is None else full).float()
            del full  # before the next one is gathered


def save_full(
    model: Path,
    trained: Masters,
    *,
    start_dtype: torch.dtype,
    target: Target,
) -> Changed:
    """Write M_t with all its weights replaced; training started from them in `start_dtype`."""
    changed = Changed()
    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    left = dict(base.named_parameters())
    for name, master in trained:
        parameter = left.pop(name)
        start = parameter.data.to(master.device).to(start_dtype).float()
        changed.count(start=start, master=master, dtype=target.dtype)
        parameter.data = master.to(target.dtype).to("cpu", copy=True)
        del start, master  # before the next one is gathered
    if left:
        msg = f"expected every parameter of the model among those trained, found no {min(left)}"
        raise RuntimeError(msg)
    _save(base, model, target)
    return changed


def save_merged(
    model: Path,
    adapter: Masters,
    *,
    lora: LoraConfig,
    target: Target,
) -> Changed:
    """Write M_t with the adapter merged in fp32, and the adapter itself in `adapter/`."""
    changed = Changed()
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    wrapped = get_peft_model(base, lora)
    for name, value in adapter:
        wrapped.get_parameter(name).data = value.to("cpu", copy=True)
    for start, merged in _merged_weights(wrapped):
        changed.count(start=start, master=merged, dtype=target.dtype)
    _save_adapter(wrapped, target.folder / "adapter")
    _save(cast("PreTrainedModel", wrapped.merge_and_unload()), model, target)
    return changed


def copy_tokenizer(model: Path, output: Path, *, template: str | None) -> None:
    """Copy the tokenizer's files; `template` replaces the chat template."""
    for file in sorted({file for name in TOKENIZER_FILES for file in model.glob(name)}):
        if file.is_file():
            copy = output / file.relative_to(model)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
    if template is None:
        return
    (output / "chat_template.jinja").write_text(template)
    config = output / "tokenizer_config.json"
    values = json.loads(config.read_text())
    if values.pop("chat_template", None) is not None:
        config.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n")


def forget_generation(model: PreTrainedModel) -> None:
    """Put transformers' defaults in place of the generation config.

    Saving refuses what loading took, such as a temperature without do_sample.
    """
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]


def open_to_readers(output: Path) -> None:
    """Make every file readable for other users: safetensors writes weights with mode 0600."""
    for path in (output, *output.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _merged_weights(model: PeftModel) -> Iterable[tuple[Tensor, Tensor]]:
    for module in model.modules():
        if isinstance(module, LoraLayer):
            start = cast("Tensor", module.get_base_layer().weight)
            delta = cast("Callable[[str], Tensor]", module.get_delta_weight)("default")
            yield start.data, (start + delta).data


def _save_adapter(model: PeftModel, folder: Path) -> None:
    # The path that M_t was loaded from means nothing to the adapter's readers.
    model.peft_config["default"].base_model_name_or_path = ""
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)


def _save(model: PreTrainedModel, origin: Path, target: Target) -> None:
    model.to(target.dtype)  # type: ignore[arg-type]  # theirs is wrapped untyped
    model.config.use_cache = True
    generation = _generation(model, origin / GENERATION)
    forget_generation(model)
    model.save_pretrained(target.folder, max_shard_size="5GB")
    generation |= {"eos_token_id": list(target.end_of_turn_ids), "use_cache": True}
    (target.folder / GENERATION).write_text(json.dumps(generation, indent=2) + "\n")


def _generation(model: PreTrainedModel, file: Path) -> dict[str, Any]:
    """Return M_t's generation config as it is written, else what its config says of it."""
    if not file.exists():
        return model.generation_config.to_diff_dict()
    values: dict[str, Any] = json.loads(file.read_text())
    return values
