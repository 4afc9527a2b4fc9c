"""The miniature world: its rows are what its script makes, its splits hold, its M0 is as trained.

Nothing is trained here. The committed folder is measured against the generator that made it, and
the tokenizer against the ids that M0 saw, because one differing token in the translation prompt
would ruin the translations of every demonstration without any error.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MINIATURE = Path("examples/miniature")
ROWS = {
    MINIATURE / "prompts": 1200,
    MINIATURE / "suite": 300,
    MINIATURE / "core": 300,
    Path("tests/data/miniature/acceptance"): 300,
}
LANGUAGES = ("en", "es", "de")
M0 = REPOSITORY / MINIATURE / "m0"
TRANSLATION_TURN = (
    "Please translate the following sentences into {lang}. The input sentences are wrapped by "
    "<sentence> and </sentence>:\n\n<sentence>\n{text}\n</sentence>\n\n"
    "The translated result should be wrapped by <translated> and </translated>."
)


def read(folder: Path, language: str) -> list[dict[str, str]]:
    """Read the rows of one language of a set."""
    lines = (REPOSITORY / folder / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def asked(prompt: str) -> str:
    """Drop who asks: what is left holds the core."""
    return prompt.split(": ", 1)[1]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the miniature world, which is a folder of scripts and no package."""
    monkeypatch.syspath_prepend(str(REPOSITORY / MINIATURE))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Load M0's tokenizer the way every stage does."""
    transformers = importlib.import_module("transformers")
    return transformers.AutoTokenizer.from_pretrained(M0)


@pytest.fixture(scope="module")
def model() -> Any:
    """Load M0's weights the way every stage does."""
    transformers = importlib.import_module("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(M0).eval()


def test_the_committed_rows_are_what_the_script_makes(tmp_path: Path) -> None:
    """Making the data again gives the committed prompts and suites byte for byte."""
    script = REPOSITORY / MINIATURE / "make.py"
    subprocess.run([sys.executable, script, "--data-only", "--out", tmp_path], check=True)
    for folder in ROWS:
        for language in LANGUAGES:
            name = folder / f"{language}.jsonl"
            assert (tmp_path / name).read_bytes() == (REPOSITORY / name).read_bytes(), name


@pytest.mark.parametrize("folder", ROWS, ids=str)
def test_ids_are_parallel(folder: Path) -> None:
    """The languages hold the same distinct ids in the same order, under distinct texts."""
    ids = [row["id"] for row in read(folder, "en")]
    assert len(set(ids)) == len(ids) == ROWS[folder]
    for language in LANGUAGES:
        rows = read(folder, language)
        assert [row["id"] for row in rows] == ids
        assert len({row["prompt"] for row in rows}) == len(ids)


def test_the_sets_share_no_problem() -> None:
    """No problem of one set appears in another, by id and by text."""
    for field in ("id", "prompt"):
        held = [row[field] for folder in ROWS for row in read(folder, "de")]
        assert len(set(held)) == len(held) == sum(ROWS.values())


def test_training_meets_no_problem_of_the_sets(module: Any) -> None:
    """M0 is never asked a problem of any set, and in Spanish and German no core of `core`."""
    problems = {row["prompt"] for d in ROWS for lang in LANGUAGES for row in read(d, lang)}
    cores = {
        asked(row["prompt"]) for lang in ("es", "de") for row in read(MINIATURE / "core", lang)
    }
    questions = {e.user for e in module("corpus").examples(20_000, seed=2) if not e.prefill}
    assert len(questions) > 5_000
    assert not questions & problems
    assert not {asked(q) for q in questions} & cores


def test_the_prompts_meet_no_held_core() -> None:
    """The prompts of the method do not ask what `core` measures, whoever asks."""
    for language in LANGUAGES:
        cores = {asked(row["prompt"]) for row in read(MINIATURE / "core", language)}
        assert not {asked(row["prompt"]) for row in read(MINIATURE / "prompts", language)} & cores


def test_m0_is_a_small_folder_everyone_can_read() -> None:
    """M0 takes at most 3 MB and its files may be read by a pod of any user."""
    files = list(M0.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)


def test_m0_loads_as_an_ordinary_model(model: Any, tokenizer: Any) -> None:
    """The folder gives a float32 Qwen2 with room for a prompt and its end of turn as stop."""
    assert model.config.model_type == "qwen2"
    assert str(model.dtype) == "torch.float32"
    assert model.config.max_position_embeddings >= 256
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.decode([tokenizer.eos_token_id]) == "<|im_end|>"


def test_the_tokenizer_round_trips_every_text(tokenizer: Any) -> None:
    """Decoding the ids of any prompt or answer gives its text back."""
    for folder in ROWS:
        for language in LANGUAGES:
            texts = [row[key] for row in read(folder, language) for key in ("prompt", "answer")]
            ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
            assert tokenizer.batch_decode(ids) == texts


def test_the_loaded_tokenizer_is_the_trained_one(module: Any, tokenizer: Any) -> None:
    """Loading adds no token and splits foreign text as the file does (Qwen2's rules stand in)."""
    trained = module("bpe").Tokenizer.from_file(str(M0 / "tokenizer.json"))
    assert len(tokenizer) == trained.get_vocab_size()
    for text in ("don't SAY 1234, «x»\n\n  y\t-z", "¿Qué? ¡no! äöü-ß e\u0301", "日本語 🙂"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == trained.encode(text, add_special_tokens=False).ids


def test_a_chat_is_rendered_without_a_system_prompt(tokenizer: Any) -> None:
    """The chat template is plain ChatML, nothing added before the user's turn."""
    chat = [{"role": "user", "content": "Ana asks: Who?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nAna asks: Who?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("name", "language"), [("English", "en"), ("Spanish", "es"), ("German", "de")]
)
def test_translation_prompts_have_the_ids_of_training(
    module: Any, tokenizer: Any, name: str, language: str
) -> None:
    """Rendering the published template and its prefilled tag gives the ids M0 was trained on."""
    bpe, corpus = module("bpe"), module("corpus")
    trained = bpe.Tokenizer.from_file(str(M0 / "tokenizer.json"))
    for row in read(MINIATURE / "suite", "de")[:100]:
        turn = {"role": "user", "content": TRANSLATION_TURN.format(lang=name, text=row["answer"])}
        text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text + "<translated>\n", add_special_tokens=False)["input_ids"]
        example = corpus.translation(row["answer"], target=language, translated="")
        assert ids == bpe.encode(trained, example)[0]


def test_answering_prompts_have_the_ids_of_training(module: Any, tokenizer: Any) -> None:
    """Rendering a prompt as a chat gives the ids M0 was trained on, and so does its answer."""
    bpe, corpus = module("bpe"), module("corpus")
    trained = bpe.Tokenizer.from_file(str(M0 / "tokenizer.json"))
    for row in read(MINIATURE / "prompts", "es")[:100]:
        turn = {"role": "user", "content": row["prompt"]}
        prompt, reply = bpe.encode(trained, corpus.Example(row["prompt"], "", row["answer"]))
        text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == prompt
        answered = tokenizer(row["answer"] + "<|im_end|>", add_special_tokens=False)
        assert answered["input_ids"] == reply


def test_m0_answers_well_in_english_only(model: Any, tokenizer: Any) -> None:
    """The premise holds: English is right far more often than Spanish and German."""
    right = dict.fromkeys(LANGUAGES, 0)
    for language in LANGUAGES:
        rows = read(MINIATURE / "suite", language)[:100]
        chats = [[{"role": "user", "content": row["prompt"]}] for row in rows]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(
            texts,
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        output = model.generate(**ids, max_new_tokens=24, pad_token_id=tokenizer.pad_token_id)
        said = tokenizer.batch_decode(output[:, ids["input_ids"].shape[1] :])
        for row, text in zip(rows, said, strict=True):
            right[language] += text.split("<|im_end|>")[0] == row["answer"]
    assert right["en"] >= 75
    assert all(15 <= right[language] <= 60 for language in ("es", "de")), right


def test_muon_makes_the_update_of_torch(module: Any) -> None:
    """The float32 Muon follows torch's bfloat16 one to bfloat16's precision, in every shape."""
    torch = importlib.import_module("torch")
    random = torch.Generator().manual_seed(0)
    for shape in ((128, 128), (64, 128), (256, 128)):
        ours = torch.nn.Parameter(torch.randn(shape, generator=random))
        theirs = torch.nn.Parameter(ours.detach().clone())
        start = ours.detach().clone()
        optimizers = [
            module("muon").Muon([ours], lr=0.02, weight_decay=0.1),
            torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1),
        ]
        for _ in range(3):
            ours.grad = torch.randn(shape, generator=random)
            theirs.grad = ours.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        assert (ours - theirs).norm() < 0.02 * (theirs - start).norm()
