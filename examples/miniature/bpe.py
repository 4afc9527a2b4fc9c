"""The tokenizer of the miniature model: Qwen2's byte-level BPE with ChatML turns.

The fixed segments of the translation template are added tokens: the template is long and the
model tiny, so this makes a translation as short as an answer. Rendering a chat and tokenizing the
text gives the same ids as `encode`, which training uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

from corpus import CLOSING, PREFILL, TEMPLATE, Example
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

START: Final = "<|im_start|>"
END: Final = "<|im_end|>"
PAD: Final = "<|endoftext|>"
_VOCABULARY: Final = 1700
MAX_LENGTH: Final = 512

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _segments() -> list[str]:
    before, rest = TEMPLATE.split("{lang}")
    between, after = rest.split("{text}")
    return [before, between, after, PREFILL, CLOSING]


def _without_segments(text: str) -> str:
    for segment in _segments():
        text = text.replace(segment, "\n")
    return text


def train(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges from what surrounds the template's segments, which become tokens whole."""
    tokenizer = Tokenizer(models.BPE())
    # Loading a Qwen2 folder puts Qwen2's own splitting in place of the file's: they must agree.
    qwen2 = cast("Any", Qwen2Tokenizer)().backend_tokenizer
    tokenizer.normalizer, tokenizer.pre_tokenizer = qwen2.normalizer, qwen2.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    segments = _segments()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY - len(segments),
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(_without_segments, texts), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in segments])
    return tokenizer


def prompt_text(example: Example) -> str:
    """Render the user turn, the generation prompt and the prefilled text."""
    return f"{START}user\n{example.user}{END}\n{START}assistant\n{example.prefill}"


def encode(tokenizer: Tokenizer, example: Example) -> tuple[list[int], list[int]]:
    """Return the ids of the prompt and of the reply with its end of turn; only the reply counts."""
    prompt = tokenizer.encode(prompt_text(example), add_special_tokens=False)
    reply = tokenizer.encode(example.reply + END, add_special_tokens=False)
    return list(prompt.ids), list(reply.ids)


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": PAD,
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
