"""The loss written out a second time: plain torch, one unpadded sequence after another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from selfimprove_pipeline.contract.rows import Pair


class Ids(NamedTuple):
    """A pair's tokens."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer side."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def load(folder: Path) -> PreTrainedModel:
    """Return a saved model in fp32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def ids(folder: Path, pair: Pair) -> Ids:
    """Return the tokens of ChatML written by hand."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = f"<|im_start|>user\n{pair.prompt[0].content}<|im_end|>\n<|im_start|>assistant\n"
    sides = (f"{side[0].content}<|im_end|>" for side in (pair.chosen, pair.rejected))
    return Ids(*(tokenizer(text)["input_ids"] for text in (prompt, *sides)))


def logp(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> Tensor:
    """Return the summed log-probability of a completion."""
    whole = torch.tensor([prompt + completion])
    logits = model(input_ids=whole).logits[0, len(prompt) - 1 : -1]
    of_tokens = torch.log_softmax(logits, dim=-1)
    return of_tokens.gather(1, whole[0, len(prompt) :, None]).sum()


def loss(
    model: PreTrainedModel,
    pairs: Sequence[Ids],
    references: Sequence[tuple[float, float]],
    recipe: Mapping[str, float],
    *,
    normalization: str,
) -> Tensor:
    """Return DPO + nllWeight x NLL of a global batch."""
    dpo, nll = torch.zeros(()), torch.zeros(())
    tokens = sum(len(pair.chosen) for pair in pairs)
    for pair, (chosen_reference, rejected_reference) in zip(pairs, references, strict=True):
        chosen = logp(model, pair.prompt, pair.chosen)
        rejected = logp(model, pair.prompt, pair.rejected)
        ratio = (chosen - chosen_reference) - (rejected - rejected_reference)
        dpo = dpo + torch.log1p(torch.exp(-recipe["beta"] * ratio)) / len(pairs)
        share = len(pairs) * len(pair.chosen) if normalization == "sequence" else tokens
        nll = nll - chosen / share
    return dpo + recipe["nllWeight"] * nll


def margin(folder: Path, pairs: Sequence[Pair]) -> float:
    """Return the mean of log p(chosen) - log p(rejected)."""
    model = load(folder)
    with torch.no_grad():
        margins = [
            logp(model, one.prompt, one.chosen) - logp(model, one.prompt, one.rejected)
            for one in (ids(folder, pair) for pair in pairs)
        ]
    return float(torch.stack(margins).mean())
