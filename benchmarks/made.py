"""Models with random weights and pairs of real lengths: loads where nothing can be downloaded.

Speed depends on shapes and lengths alone. The architecture is Qwen2's and the tokenizer is the
miniature's, whatever the size of the vocabulary; the weights mean nothing.
"""

import json
import math
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from selfimprove_pipeline.artifacts import Message, Pair

MINIATURE: Final = Path(__file__).resolve().parents[1] / "examples" / "miniature"
WORD: Final = " the"
"""One token of the miniature's tokenizer."""


@dataclass(frozen=True)
class Size:
    """The shape of a model; heads have 64 dimensions, and four share one of the keys."""

    hidden: int
    layers: int
    vocabulary: int
    intermediate: int | None = None
    """intermediate size of the feed-forward layers; unset means 4 x hidden."""
    tied: bool = True
    """tied says that the head shares the embedding's weights."""
    longest: int = 8192
    """longest sequence in tokens."""


def model(folder: Path, size: Size, *, dtype: str = "float32") -> Path:
    """Write a seeded model of a size with the miniature's tokenizer; return the folder."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(MINIATURE / "m0")
    config.update(
        {
            "vocab_size": size.vocabulary,
            "hidden_size": size.hidden,
            "intermediate_size": size.intermediate or 4 * size.hidden,
            "num_hidden_layers": size.layers,
            "layer_types": ["full_attention"] * size.layers,
            "num_attention_heads": size.hidden // 64,
            "num_key_value_heads": max(1, size.hidden // 256),
            "max_position_embeddings": size.longest,
            "tie_word_embeddings": size.tied,
        }
    )
    made = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    made.to(getattr(torch, dtype)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MINIATURE / "m0" / name, folder / name)
    return folder


def parameters(folder: Path) -> int:
    """Return how many weights a model's folder has, from the headers of its files."""
    count = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        count += sum(math.prod(shape) for shape in shapes)
    return count


def pairs(count: int, *, scale: float = 1.0, seed: int = 0) -> tuple[Pair, ...]:
    """Return pairs as long as the authors' data: 492 tokens a sequence with its prompt, on average.

    Lengths are log-normal: prompts short, answers long with a long tail, a translation as long as
    its answer give or take. `scale` shortens them all, for a try.
    """
    source = random.Random(seed)  # noqa: S311  lengths, no secrets

    def length(median: float, spread: float, most: int) -> int:
        drawn = source.lognormvariate(math.log(median * scale), spread)
        return max(1, min(int(drawn), int(most * scale)))

    made = []
    for number in range(count):
        chosen = length(300, 0.75, 1900)
        rejected = length(1.1 * chosen / scale, 0.35, 1900)
        texts = {
            "chosen": (_said("assistant", chosen),),
            "rejected": (_said("assistant", rejected),),
        }
        prompt = (_said("user", length(45, 0.5, 500)),)
        made.append(Pair(prompt=prompt, **texts, id=str(number), language="de", partner="en"))
    return tuple(made)


def _said(role: str, tokens: int) -> Message:
    return Message.model_validate({"role": role, "content": (WORD * tokens).strip()})
