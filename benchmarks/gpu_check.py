"""Does training work on this GPU, and how fast? Four minutes on one large GPU.

    .venv/bin/python benchmarks/gpu_check.py --out build/gpu
    .venv/bin/python benchmarks/gpu_check.py --out build/gpu --tiny      # on processors

Random weights of real shapes, and the project's own attention, batches, loss and stage. Each line
is JSON, also in OUT/check.jsonl; `ok` is the verdict where a line has one, and a false one ends
the check with 1. `attention`: packed attention and its gradients against plain attention row by
row. `costs`: what Triton needs, and what hashing and the optimizer take. `layouts`: padded passes
against packed ones at 8 B. `stage`: whole trainings at 3 B, packed and padded, at ZeRO 2 and 3.
"""

import argparse
import gc
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import made
import torch
from torch import Tensor
from torch.nn import functional
from training_rank import Measured, Work
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.trainer.utils import add_fused_lm_head, hash_module

from selfimprove_pipeline.contract.recipe.profiles import LIDR_PAPER
from selfimprove_pipeline.contract.recipe.training import Training
from selfimprove_pipeline.contract.rows import lines
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.memory import shape as shapes
from selfimprove_pipeline.memory import training as memory
from selfimprove_pipeline.train.data.batches import SlotRows, collator, columns, logps
from selfimprove_pipeline.train.data.plan import Batches, Plan, packed, padded
from selfimprove_pipeline.train.data.rows import TokenRow
from selfimprove_pipeline.train.loop.objective import PreferenceObjective
from selfimprove_pipeline.train.model import attention
from selfimprove_pipeline.train.processes.launch import launch

Row = dict[str, Any]
Given = tuple[dict[int, tuple[float, float]], Tensor]
"""Log-probabilities (chosen, rejected) by row, and the watched gradients in one line."""

ON_GPU: Final = torch.cuda.is_available()
DEVICE: Final = torch.device("cuda" if ON_GPU else "cpu")
RANK: Final = Path(__file__).with_name("training_rank.py")
EIGHT_B: Final = made.Size(
    4096, 32, 128_256, intermediate=14_336, heads=32, key_value_heads=8, tied=False
)
THREE_B: Final = made.Size(2048, 36, 151_936, intermediate=11_008, heads=16, key_value_heads=2)
TINY: Final = made.Size(128, 2, 2000, heads=4, key_value_heads=2)
WATCHED: Final = ("layers.0.self_attn.q_proj.weight", "layers.1.mlp.down_proj.weight")
"""Ends of the names of the parameters whose gradients are compared, few for want of memory."""
EXACT: Final = 1e-6
"""How far the DPO term may be from ln 2 in the first step, in nats."""
OFF: Final = 0.15
"""Share by which the peak may differ from the estimate."""
HEAD_WITHOUT_COMPILER: Final = """
import torch
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
states, head = (torch.randn(n, 256, device="cuda", dtype=torch.bfloat16, requires_grad=True)
                for n in (64, 1000))
labels = torch.arange(64, device="cuda")
found = ChunkedLogProbFunction.apply(
    states, head, None, labels, 1.0, 512, None, 1.0, ("log_probs",))
found[0].sum().backward()
"""


def main() -> None:
    """Run the parts and end with 1 if one of them is not as it should be."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
        "attention": attention_part,
        "costs": costs_part,
        "layouts": layouts_part,
        "stage": stage_part,
    }
    is_well = True
    with (arguments.out / "check.jsonl").open("w") as log:
        for name in arguments.parts or parts:
            for row in _explained(parts[name](arguments)):
                is_well = is_well and row.get("ok", True)
                line = json.dumps({"part": name, **row}, default=str)
                print(line, flush=True)
                log.write(f"{line}\n")
    sys.exit(not is_well)


def _explained(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows, and one of the failure that ends them: the other parts are worth their time."""
    try:
        yield from rows
    except Exception as error:  # noqa: BLE001  whatever a machine may come up with
        yield {"ok": False, "error": f"{type(error).__name__}: {error}"[:300]}


def attention_part(_: argparse.Namespace) -> Iterator[Row]:
    """Compare packed attention with plain attention in fp32, results and gradients."""
    heads, groups, size = (32, 8, 128) if ON_GPU else (4, 2, 16)
    sizes = [384, 1200, 91, 700, 512, 1900, 60, 333] if ON_GPU else [12, 5, 20]
    dtype, tolerance = (torch.bfloat16, 2e-2) if ON_GPU else (torch.float32, 1e-5)
    ends = torch.tensor([0, *sizes], device=DEVICE).cumsum(0).to(torch.int32)
    torch.manual_seed(0)
    parts = [
        torch.randn(1, count, sum(sizes), size, device=DEVICE, dtype=dtype, requires_grad=True)
        for count in (heads, groups, groups)
    ]
    weight = torch.randn(1, sum(sizes), heads, size, device=DEVICE)
    attention.register()
    attend = ALL_ATTENTION_FUNCTIONS[attention.NAME]
    for window in (None, 64 if ON_GPU else 4):
        own, _ = attend(
            torch.nn.Identity(),
            *parts,
            None,
            cu_seq_lens_q=ends,
            max_length_q=max(sizes),
            scaling=size**-0.5,
            sliding_window=window,
        )
        plain = _plain_attention(parts, sizes, window)
        errors = [
            float((one.float() - other.float()).norm().detach() / other.float().norm().detach())
            for one, other in zip(
                (own, *torch.autograd.grad((own.float() * weight).sum(), parts)),
                (plain, *torch.autograd.grad((plain * weight).sum(), parts)),
                strict=True,
            )
        ]
        found = dict(zip(("output", "query", "key", "value"), errors, strict=True))
        yield {"window": window, "relative errors": found, "ok": max(errors) < tolerance}


def _plain_attention(parts: Sequence[Tensor], sizes: Sequence[int], window: int | None) -> Tensor:
    """Return causal attention row by row in fp32, written out with its mask."""
    found = []
    rows = (torch.split(part, list(sizes), dim=2) for part in parts)
    for query, key, value in zip(*rows, strict=True):
        tokens = query.shape[2]
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=DEVICE).tril()
        mask = mask if window is None else mask.triu(1 - window)
        row = (query.float(), key.float(), value.float())
        found.append(functional.scaled_dot_product_attention(*row, attn_mask=mask, enable_gqa=True))
    return torch.cat(found, dim=2).transpose(1, 2)


def costs_part(arguments: argparse.Namespace) -> Iterator[Row]:
    """Tell of the machine, of the compiler that Triton needs, of hashing and the optimizer."""
    yield {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if ON_GPU else "cpu",
        "compilers": {name: shutil.which(name) for name in ("gcc", "nvcc")},
    }
    layer = torch.nn.Linear(4096, 128 if arguments.tiny else 14_336, bias=False)
    began = time.perf_counter()
    hash_module(layer)
    whole = (time.perf_counter() - began) * 8.03e9 / layer.weight.numel()
    yield {"TRL's hash of 8 B weights, which we leave out, seconds": round(whole)}
    if not ON_GPU:
        return
    environment = {**os.environ, "PATH": "/nonexistent"}
    environment |= {"TRITON_CACHE_DIR": str(arguments.out / "no-compiler")}
    environment.pop("CC", None)
    command = [sys.executable, "-c", HEAD_WITHOUT_COMPILER]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  ours
    yield {"head without a compiler": ran.stderr[-160:], "ok": "C compiler" in ran.stderr}
    weights = torch.nn.Parameter(torch.randn(1_000_000_000, device=DEVICE))
    weights.grad = torch.randn_like(weights)
    for kind in ("fused", "foreach"):
        optimizer = torch.optim.AdamW(
            [weights], lr=5e-7, fused=kind == "fused", foreach=kind == "foreach"
        )
        seconds = [_seconds(optimizer.step) for _ in range(4)]
        yield {f"AdamW {kind}, seconds of 1 G parameters": round(min(seconds), 4)}


def _seconds(work: Callable[[], Any]) -> float:
    began = _now()
    work()
    return _now() - began


def _now() -> float:
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class Way:
    """One way to compute a global batch."""

    name: str
    plan: Plan
    attention: str
    is_checkpointed: bool = True


def layouts_part(arguments: argparse.Namespace) -> Iterator[Row]:
    """Compute the first step of 16 pairs padded and packed; compare time, memory and results."""
    size, scale = (TINY, 0.05) if arguments.tiny else (EIGHT_B, 1.0)
    attention.register()
    model = made.in_memory(size, dtype="float32" if arguments.tiny else "bfloat16")
    add_fused_lm_head(model)
    model.train()
    rows = _token_rows(16, size.vocabulary, scale)
    tokens = sum(row.tokens(with_rejected=True) for row in rows)
    known: dict[str, Given] = {}
    for way in _ways(rows, int(8192 * scale)):
        try:
            found, row = _measured(model, rows, way)
        except torch.OutOfMemoryError as error:
            yield {"name": way.name, "ok": False, "error": str(error)[:200]}
            continue
        known[way.name] = found
        yield {
            "name": way.name,
            "passes": way.plan.accumulation,
            "useful": round(tokens / row["slots"], 3),
            "seconds": round(row["seconds"], 2),
            "tokens a second": round(tokens / row["seconds"]),
            "peak GiB": round(row["peak"] / 2**30, 2),
        }
    (expected, gradient), *others = known.values()
    tolerance = 1e-4 if arguments.tiny else 5e-2
    for name, (own, own_gradient) in zip(list(known)[1:], others, strict=True):
        worst = max(
            abs(a - b) for row in expected for a, b in zip(expected[row], own[row], strict=True)
        )
        share = float((own_gradient - gradient).norm() / gradient.norm())
        yield {
            "compared": name,
            "worst difference in nats": round(worst, 4),
            "relative error of gradients": f"{share:.1e}",
            "ok": share < tolerance,
        }


def _ways(rows: Sequence[TokenRow], budget: int) -> Iterator[Way]:
    step = tuple(range(len(rows)))
    batches = Batches(rows=rows, steps=[step], first_epoch=1, world=1, normalization="sequence")
    yield Way("padded, one pair", padded(batches, micro=1), "sdpa")
    for times, is_checkpointed in ((1, True), (2, True), (1, False)):
        plan = packed(batches, budget=times * budget)
        name = f"packed {times * budget}{'' if is_checkpointed else ', no checkpointing'}"
        yield Way(name, plan, attention.NAME, is_checkpointed)


def _measured(
    model: PreTrainedModel, rows: Sequence[TokenRow], way: Way
) -> tuple[Given, dict[str, float]]:
    """Compute all passes twice; return what they give, and what the second time took."""
    model.set_attn_implementation(way.attention)
    if way.is_checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()  # type: ignore[no-untyped-call]
    dataset = SlotRows(columns(rows))
    collate = collator(way.plan.layout, 0, with_rejected=True)
    objective = PreferenceObjective(beta=0.5, nll_weight=1.0)
    kept: dict[int, tuple[float, float]] = {}
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats()
        began, slots = _now(), 0
        for one in way.plan.of_rank(0):
            batch = _on_device(collate([dataset[slot] for slot in one]))
            slots += batch["input_ids"].numel()
            found = logps(model, batch)
            chosen, rejected = found.detach().chunk(2)
            references = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
            objective.terms(found, {**batch, **references}).loss.backward()  # type: ignore[no-untyped-call]
            sides = zip(chosen.tolist(), rejected.tolist(), strict=True)
            kept |= dict(zip((slot.row for slot in one), sides, strict=True))
        seconds = _now() - began
    gradient = torch.cat(
        [
            parameter.grad.flatten().float()
            for name, parameter in model.named_parameters()
            if name.endswith(WATCHED) and parameter.grad is not None
        ]
    )
    peak = torch.cuda.max_memory_allocated() if ON_GPU else 0
    return (kept, gradient), {"seconds": seconds, "slots": slots, "peak": peak}


def _on_device(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v.to(DEVICE) if isinstance(v, Tensor) else v for n, v in batch.items()}


def _token_rows(count: int, vocabulary: int, scale: float) -> tuple[TokenRow, ...]:
    source = random.Random(0)  # noqa: S311  tokens, no secrets
    return tuple(
        TokenRow(
            (str(number), "de", "en"),
            *(tuple(source.randrange(5, vocabulary) for _ in range(length)) for length in lengths),
        )
        for number, lengths in enumerate(made.lengths(count, scale=scale))
    )


def stage_part(arguments: argparse.Namespace) -> Iterator[Row]:
    """Train by the project's own stage, packed and padded, at ZeRO 2 and 3."""
    size, scale = (TINY, 0.05) if arguments.tiny else (THREE_B, 1.0)
    precision = "fp32" if arguments.tiny else "bf16"
    folder = arguments.out / "stage"
    shutil.rmtree(folder, ignore_errors=True)
    model = made.model(folder / "m0", size, dtype="float32" if arguments.tiny else "bfloat16")
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
    pairs = folder / "pairs.jsonl"
    pairs.write_bytes(lines(made.pairs(48 if ON_GPU else 16, scale=scale)))
    recipes = {
        f"{layout} ZeRO {stage}": {
            **LIDR_PAPER["training"],
            "maxLength": 8192,
            "precision": precision,
            "saveDtype": "float32" if arguments.tiny else "bfloat16",
            "zeroStage": stage,
            "layout": layout,
        }
        for stage in (2, 3)
        for layout in ("packed", "padded")
    }
    work = Work(model=model, pairs=pairs, batch=16, precision=precision, recipes=recipes)
    (folder / "work.json").write_text(work.model_dump_json())
    losses: dict[str, float] = {}
    for name, recipe in recipes.items():
        measured = _trained(folder, name)
        losses[name] = measured.first["loss"]
        yield _of_training(name, measured, _estimate(model, recipe, measured))
        saved = folder / f"{name}-scratch"
        loaded = AutoModelForCausalLM.from_pretrained(saved / "model")
        yield {"loads": name, "dtype": loaded.dtype}
        del loaded
        shutil.rmtree(saved)
    apart = max(losses.values()) - min(losses.values())
    yield {"first losses": losses, "apart": apart, "ok": apart < (1e-5 if arguments.tiny else 1e-2)}


def _trained(folder: Path, name: str) -> Measured:
    """Train on one rank in a process of its own."""
    environment = {**os.environ, **devices.environment(devices.usable_gpus())}
    argv = [str(RANK), str(folder / "work.json"), name, str(folder / name)]
    outcome = launch(argv, processes=1, environment=environment)
    if outcome.code:
        msg = f"{name} ended with {outcome.code}: {outcome.line}"
        raise RuntimeError(msg)
    return Measured(**json.loads((folder / f"{name}-0.json").read_text()))


def _estimate(model: Path, recipe: Mapping[str, Any], measured: Measured) -> int:
    """Return the peak that `plan` would tell, in bytes, without what CUDA itself takes."""
    shape = shapes.shape_of(json.loads((model / "config.json").read_text()), where="config.json")
    if shape is None:
        msg = "expected a config with a shape"
        raise RuntimeError(msg)
    training = Training.model_validate_json(json.dumps(recipe))
    found = memory.device(shape, training, ranks=1, tokens=max(measured.passes), on_gpu=ON_GPU)
    return found.total - found.context


def _of_training(name: str, measured: Measured, estimate: int) -> Row:
    from_ln_2 = abs(measured.first["dpo"] - math.log(2))
    ratio = measured.peak / estimate
    return {
        "name": name,
        "layout": measured.layout,
        "passes": len(measured.passes),
        "first loss": measured.first["loss"],
        "from ln 2": from_ln_2,
        "peak GiB": round(measured.peak / 2**30, 1),
        "estimated GiB": round(estimate / 2**30, 1),
        "tokens a second": round(measured.first["tokens"] / measured.first["seconds"]),
        "seconds": {part: round(value, 1) for part, value in measured.stage.items()},
        "ok": from_ln_2 < EXACT
        and name.startswith(measured.layout)
        and (not ON_GPU or abs(ratio - 1) < OFF),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for check.jsonl and models")
    parser.add_argument("--tiny", action="store_true", help="small shapes, also on processors")
    names = ("attention", "costs", "layouts", "stage")
    parser.add_argument("--parts", nargs="+", choices=names, help="unset means all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
