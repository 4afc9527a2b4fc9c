"""Trains M0 from scratch: a 0.66 million parameter Qwen2, one pass, a few minutes on one core.

Muon for the matrices is what makes the budget suffice; with AdamW alone English stays far below
the accuracy the premise needs. The loss covers the reply only, and the output head is applied at
those positions alone. `corpus` gives the examples, `bpe` the ids, `make` the folder.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import torch
from bpe import END, MAX_LENGTH, PAD, encode, save
from corpus import examples
from muon import Muon
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

SEED: Final = 2
EXAMPLES: Final = 110_000
_BATCH: Final = 32
_MATRIX: Final = 2
_SORTED_BATCHES: Final = 64
_MUON_RATE: Final = 0.02
_ADAM_RATE: Final = 4e-3
_DECAY: Final = 0.1
_WARM_UP: Final = 100
_REPORT_EVERY: Final = 100
_IGNORED: Final = -100

log = logging.getLogger("miniature")

Batch = tuple[torch.Tensor, torch.Tensor]


def _id(tokenizer: Tokenizer, token: str) -> int:
    return cast("int", tokenizer.token_to_id(token))


def config(tokenizer: Tokenizer) -> Qwen2Config:
    """Describe the model: 3 layers, width 128, 4 heads over 2 key-value heads, tied embeddings."""
    return Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=_id(tokenizer, END),
        pad_token_id=_id(tokenizer, PAD),
    )


def _collate(rows: list[tuple[list[int], list[int]]], *, pad: int) -> Batch:
    """Right-pad to (rows, length); labels are shifted here, so position t predicts label t."""
    length = max(len(prompt) + len(reply) for prompt, reply in rows) - 1
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), _IGNORED)
    for i, (prompt, reply) in enumerate(rows):
        tokens = torch.tensor(prompt + reply)
        ids[i, : len(tokens) - 1] = tokens[:-1]
        labels[i, len(prompt) - 1 : len(tokens) - 1] = tokens[len(prompt) :]
    return ids, labels


def _batches(tokenizer: Tokenizer, *, count: int, seed: int) -> Iterator[Batch]:
    """Yield batches of like length: sort within a window, then shuffle the window's batches."""
    rows = [encode(tokenizer, example) for example in examples(count, seed=seed)]
    order = torch.Generator().manual_seed(seed)
    pad = _id(tokenizer, PAD)
    window = _BATCH * _SORTED_BATCHES
    for start in range(0, count, window):
        near = sorted(rows[start : start + window], key=lambda row: len(row[0]) + len(row[1]))
        groups = [near[i : i + _BATCH] for i in range(0, len(near), _BATCH)]
        for i in torch.randperm(len(groups), generator=order).tolist():
            yield _collate(groups[i], pad=pad)


def _new_model(shape: Qwen2Config) -> Any:
    return cast("Any", Qwen2ForCausalLM)(shape).float().train()


def _optimizers(model: PreTrainedModel) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == _MATRIX and "embed" not in n]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=_MUON_RATE, weight_decay=_DECAY),
        torch.optim.AdamW(others, lr=_ADAM_RATE, weight_decay=0.0),
    ]


def _rate(step: int, *, steps: int) -> float:
    warm = min(1.0, (step + 1) / _WARM_UP)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def _loss(model: Any, batch: Batch) -> torch.Tensor:
    ids, labels = batch
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    counted = labels != _IGNORED
    return cross_entropy(model.lm_head(hidden[counted]), labels[counted])


def train(tokenizer: Tokenizer, *, count: int = EXAMPLES, seed: int = SEED) -> PreTrainedModel:
    """Train one pass over `count` examples on one thread and report the loss as it goes."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = _new_model(config(tokenizer))
    optimizers: list[Any] = list(_optimizers(model))
    steps = math.ceil(count / _BATCH)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, steps=steps))
        for o in optimizers
    ]
    started = time.monotonic()
    log.info("encoding %d examples", count)
    for step, batch in enumerate(_batches(tokenizer, count=count, seed=seed), start=1):
        loss: Any = _loss(model, batch)
        loss.backward()
        for part in (*optimizers, *schedules):
            part.step()
        model.zero_grad()
        if step % _REPORT_EVERY == 0 or step == steps:
            seconds = time.monotonic() - started
            log.info("step %d/%d  loss %.3f  %.0f s", step, steps, loss.item(), seconds)
    return cast("PreTrainedModel", model.eval())


def write(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the Hugging Face folder, readable by everyone whatever safetensors chose."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = cast("Any", GenerationConfig)(
        eos_token_id=_id(tokenizer, END),
        pad_token_id=_id(tokenizer, PAD),
        do_sample=False,
    )
    model.save_pretrained(folder)
    save(tokenizer, folder)
    for path in folder.iterdir():
        path.chmod(0o644)
