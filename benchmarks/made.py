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
from typing import TYPE_CHECKING, Final

from selfimprove_pipeline.contract.rows import Message, Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MINIATURE: Final = Path(__file__).resolve().parents[1] / "examples" / "miniature"
WORD: Final = " the"
"""One token of the miniature's tokenizer."""


@dataclass(frozen=True)
class Size:
    """The shape of a model; unless told, heads have 64 dimensions, and four share one of keys."""

    hidden: int
    layers: int
    vocabulary: int
    intermediate: int | None = None
    """intermediate size of the feed-forward layers; unset means 4 x hidden."""
    heads: int | None = None
    key_value_heads: int | None = None
    tied: bool = True
    """tied says that the head shares the embedding's weights."""
    longest: int = 8192
    """longest sequence in tokens."""


def in_memory(size: Size, *, dtype: str = "float32") -> "PreTrainedModel":
    """Return a seeded model of a size, on the GPU where there is one."""
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
            "num_attention_heads": size.heads or size.hidden // 64,
            "num_key_value_heads": size.key_value_heads or max(1, size.hidden // 256),
            "max_position_embeddings": size.longest,
            "tie_word_embeddings": size.tied,
        }
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        made: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=getattr(torch, dtype)
        )
    return made


def model(folder: Path, size: Size, *, dtype: str = "float32") -> Path:
    """Write a seeded model of a size with the miniature's tokenizer; return the folder."""
    in_memory(size, dtype=dtype).save_pretrained(folder)
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


def lengths(count: int, *, scale: float = 1.0, seed: int = 0) -> list[tuple[int, int, int]]:
    """Return tokens of prompts, chosen and rejected texts, as long as the authors' data.

    They are log-normal, 492 tokens a sequence with its prompt on average: prompts short, answers
    long with a long tail, a translation as long as its answer give or take. `scale` shortens all.
    """
    source = random.Random(seed)  # noqa: S311  lengths, no secrets

    def length(median: float, spread: float, most: int) -> int:
        drawn = source.lognormvariate(math.log(median), spread)
        return min(int(drawn), most)

    drawn = []
    for _ in range(count):
        chosen = length(300, 0.75, 1900)
        prompt, rejected = length(45, 0.5, 500), length(1.1 * chosen, 0.35, 1900)
        drawn.append((_scaled(prompt, scale), _scaled(chosen, scale), _scaled(rejected, scale)))
    return drawn


def pairs(count: int, *, scale: float = 1.0, seed: int = 0) -> tuple[Pair, ...]:
    """Return pairs of such lengths; the template adds about ten tokens to each sequence."""
    return tuple(
        Pair(
            prompt=(_said("user", prompt),),
            chosen=(_said("assistant", chosen),),
            rejected=(_said("assistant", rejected),),
            id=str(number),
            language="de",
            partner="en",
        )
        for number, (prompt, chosen, rejected) in enumerate(lengths(count, scale=scale, seed=seed))
    )


def _scaled(tokens: int, scale: float) -> int:
    return max(1, int(scale * tokens))


def _said(role: str, tokens: int) -> Message:
    return Message.model_validate({"role": role, "content": (WORD * tokens).strip()})
