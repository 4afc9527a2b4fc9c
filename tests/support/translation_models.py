"""Tiny translation models with random weights, with the tokenizers that their families have."""

import io
import json
from pathlib import Path
from typing import Any, Final

import sentencepiece
import torch
import transformers

POSITIONS: Final = 48

_SENTENCES: Final = (
    "the dog sees the cat",
    "a cat runs",
    "we read two books",
    "der hund sieht die katze",
    "eine katze rennt",
    "wir lesen zwei buecher",
)
_SHAPE: Final[dict[str, Any]] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": POSITIONS,
    # Wider than the usual 0.02, so that greedy choices are far apart and vary.
    "init_std": 0.5,
}


def tiny_marian(
    folder: Path, source: str | None, target: str | None, *, seed: int = 0, end_bias: float = 3.0
) -> Path:
    """Write a Marian model whose tokenizer states one direction.

    `end_bias` is added to the logit of the end: at 3 some of its texts end, at -1e4 none does.
    """
    folder.mkdir(parents=True)
    pieces, words = _pieces()
    vocabulary = ["</s>", "<unk>", *words, "<pad>"]
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces)
    numbered = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbered))
    config = {"source_lang": source, "target_lang": target, "tokenizer_class": "MarianTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    padding = numbered["<pad>"]
    model = _random(
        transformers.MarianMTModel,
        transformers.MarianConfig(
            vocab_size=len(vocabulary),
            eos_token_id=0,
            pad_token_id=padding,
            decoder_start_token_id=padding,
            forced_eos_token_id=0,
            **_SHAPE,
        ),
        seed,
    )
    model.final_logits_bias[0, 0] = end_bias
    model.final_logits_bias[0, padding] = -1e4
    model.save_pretrained(folder)
    return folder


def tiny_nllb(folder: Path, *, seed: int = 0) -> Path:
    """Write a model of NLLB's architecture with its 202 languages and the letters a to z."""
    letters = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *map(chr, range(97, 123))]
    tokenizer = transformers.NllbTokenizer(
        vocab={token: number for number, token in enumerate(letters)}, merges=[]
    )
    tokenizer.save_pretrained(folder)
    _m2m100(len(tokenizer), seed).save_pretrained(folder)
    return folder


def tiny_m2m100(folder: Path, *, seed: int = 0) -> Path:
    """Write a model of M2M100's architecture with its hundred languages."""
    folder.mkdir(parents=True)
    pieces, words = _pieces()
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *words]
    files = folder / "vocab.json", folder / "sentencepiece.bpe.model"
    files[0].write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
    files[1].write_bytes(pieces)
    kind: Any = transformers.M2M100Tokenizer
    tokenizer = kind(*map(str, files))
    tokenizer.save_pretrained(folder)
    languages = tokenizer.lang_token_to_id.values()
    _m2m100(max(languages) + 1, seed).save_pretrained(folder)
    return folder


def _pieces() -> tuple[bytes, list[str]]:
    """Return a SentencePiece model of the sentences, and its pieces but the special ones."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES * 20),
        model_writer=trained,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    known = [pieces.id_to_piece(number) for number in range(pieces.get_piece_size())]
    return trained.getvalue(), [p for p in known if p not in ("<s>", "</s>", "<unk>")]


def _m2m100(size: int, seed: int) -> Any:
    return _random(
        transformers.M2M100ForConditionalGeneration,
        transformers.M2M100Config(
            vocab_size=size,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            **_SHAPE,
        ),
        seed,
    )


def _random(kind: Any, config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    return kind(config)
