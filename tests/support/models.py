"""Tiny tokenizers and models made on the spot, so that no test downloads anything.

The byte-level tokenizer numbers bytes by their value, then a few merged pieces, then the special
tokens: expected ids can be written down by hand. The templates are those that the model families
publish, written out.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

CHATML: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML_CONFIG: Final = {"eos_token": "<|im_end|>", "chat_template": CHATML}

LLAMA3: Final = (
    "{% set loop_messages = messages %}"
    "{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
LLAMA3_SPECIAL: Final = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA3_CONFIG: Final = {
    "bos_token": "<|begin_of_text|>",
    "eos_token": "<|end_of_text|>",
    "chat_template": LLAMA3,
}

LLAMA2: Final = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}"
    "{% endfor %}"
)
LLAMA2_CONFIG: Final = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": LLAMA2}

PIECES: Final = ("ll", "\n\n")
FIRST_SPECIAL: Final = 256 + len(PIECES)


def byte_level(folder: Path, *, special: Sequence[str], config: Mapping[str, str]) -> Path:
    """Write a tokenizer: ids 0-255 are bytes, then PIECES, then the special tokens in order.

    `config` goes into tokenizer_config.json; its `chat_template` becomes chat_template.jinja.
    """
    letters = _byte_letters()
    pieces = ["".join(letters[byte] for byte in piece.encode()) for piece in PIECES]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate([*letters, *pieces])},
            merges=[(piece[0], piece[1]) for piece in pieces],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _write(tokenizer, folder, special=special, config=config)


def sentencepiece(folder: Path, *, config: Mapping[str, str]) -> Path:
    """Write a tokenizer like Llama-2's: `<unk> <s> </s>`, 256 bytes, then `_` and ASCII letters.

    A space becomes U+2581 and one is put before every text, so tokenizing a continuation alone
    differs from tokenizing it in its place.
    """
    characters = ["\u2581", *map(chr, range(33, 127))]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(vocabulary)},
            merges=[],
            unk_token="<unk>",  # noqa: S106 - a token of a vocabulary, no secret
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _write(tokenizer, folder, special=("<unk>", "<s>", "</s>"), config=config)


def tiny_qwen2(folder: Path, *, seed: int = 0, max_length: int = 256) -> Path:
    """Write a random Qwen2 of 2 layers and 64 dimensions with a byte-level ChatML tokenizer."""
    byte_level(folder, special=CHATML_SPECIAL, config=CHATML_CONFIG)
    torch.manual_seed(seed)
    model = transformers.Qwen2ForCausalLM(  # type: ignore[no-untyped-call]  # theirs is untyped
        transformers.Qwen2Config(
            vocab_size=304,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=max_length,
            tie_word_embeddings=False,
            # Wider than the usual 0.02, so that greedy choices are far apart and vary.
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=FIRST_SPECIAL + CHATML_SPECIAL.index("<|im_end|>"),
        )
    )
    model.save_pretrained(folder)
    return folder


def _byte_letters() -> list[str]:
    """Return the letter that byte-level BPE writes for each byte.

    Printable bytes stand for themselves; the others take the letters from U+0100 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _write(
    tokenizer: Tokenizer, folder: Path, *, special: Sequence[str], config: Mapping[str, str]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    if bos := config.get("bos_token"):
        # As published: whoever tokenizes with special tokens gets one more than the template's.
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    if (template := settings.pop("chat_template", None)) is not None:
        (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
