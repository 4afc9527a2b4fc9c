"""A tiny model, pairs and a vault for real trainings on the CPU, and how to run many of them.

Importing TRL takes longer than training the tiny model, so `train_all` starts one process that
imports it once and forks the ranks of every training (`training/ranks.py`).
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch
import transformers
from pydantic import BaseModel, ConfigDict

from selfimprove_pipeline.contract.manifests import File
from selfimprove_pipeline.contract.objectives import ObjectiveName
from selfimprove_pipeline.contract.rows import Message, Pair, ReferenceLogps, lines, rows
from selfimprove_pipeline.train.model.layout import Layout
from support.models import CHATML_CONFIG, CHATML_SPECIAL, FIRST_SPECIAL, byte_level

END_OF_TURN: Final = FIRST_SPECIAL + CHATML_SPECIAL.index("<|im_end|>")
SAMPLING: Final = {"eos_token_id": 0, "temperature": 0.6, "top_p": 0.9}
"""A generation config like many published ones: transformers loads it and refuses to save it."""
RECIPE: Final = {
    "method": "full",
    "beta": 0.5,
    "nllWeight": 1.0,
    "nllNormalization": "sequence",
    "learningRate": 1e-3,
    "lrScheduler": "constant",
    "warmupRatio": 0.0,
    "weightDecay": 0.0,
    "maxGradNorm": 1000.0,
    "epochs": 1,
    "globalBatchSize": 16,
    "microBatchSize": 4,
    "maxLength": 256,
    "precision": "fp32",
    "saveDtype": "float32",
    "tokensPerDevice": 256,
    "gradientCheckpointing": False,
    "zeroStage": 0,
    "seed": 7,
}
"""A recipe in which every step changes the tiny model visibly; tests override single fields."""


class Training(BaseModel):
    """One training for `train_all`."""

    model_config = ConfigDict(frozen=True)

    name: str
    folder: Path
    """folder gets `model/` (the next model), `vault/` and `scratch/`."""
    model: Path
    pairs: Path
    ranks: int = 1
    recipe: dict[str, Any] = {}
    objective: ObjectiveName = "dpo"
    after: bool = False
    """after says that the ranks have trained by DPO before, as those of a run do."""
    deaf: bool = False
    """deaf says that the model's attention is not told where packed sequences begin."""
    chat: dict[str, Any] = {}
    kill_at: int | None = None
    """kill_at is the step after which the first rank dies by SIGKILL."""
    machines: bool = False
    """machines says that each rank believes to be on a machine of its own."""
    clock: tuple[float, ...] = ()
    """clock has for each rank the seconds by which its clock goes on at each look at it; empty
    means that they have real ones."""
    uploads: dict[int, int | Literal["again", "broken"]] = {}
    """uploads says by step of what becomes of its upload on the last machine: it ends when the
    training has done another step, or it fails by an error that may pass or by one that stays."""
    vault: Path | None = None
    """vault of another training to go on from; unset means its own, empty one."""

    @property
    def output(self) -> Path:
        """The folder of the next model."""
        return self.folder / "model"


class FolderVault:
    """A vault in a folder: the second implementation of `checkpoints.Vault`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load_reference(self) -> tuple[ReferenceLogps, ...] | None:
        """Return the stored rows."""
        file = self._folder / "reference.jsonl"
        return rows(ReferenceLogps, file.read_bytes()) if file.exists() else None

    def save_reference(self, found: tuple[ReferenceLogps, ...], layout: Layout) -> None:
        """Store the rows and the layout."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "reference.jsonl").write_bytes(lines(found))
        (self._folder / "layout").write_text(layout)

    def reference_layout(self) -> Layout | None:
        """Return the stored layout."""
        file = self._folder / "layout"
        if not file.exists():
            return None
        return "packed" if file.read_text() == "packed" else "padded"

    def latest_checkpoint(self) -> tuple[int, str] | None:
        """Return the newest folder's step and label."""
        found = list(self._folder.glob("step-*"))
        if not found:
            return None
        newest = max(found, key=lambda step: step.stat().st_ctime)
        label = (self._folder / f"label-{newest.name}").read_text()
        return int(newest.name.removeprefix("step-")), label

    def fetch_checkpoint(self, step: int) -> Path:
        """Copy the folder, as a download would."""
        copy = self._folder / "fetched" / f"checkpoint-{step:04}"
        return Path(shutil.copytree(self._folder / f"step-{step:04}", copy))

    def drop_checkpoint(self, step: int) -> None:
        """Remove what an earlier training has left."""
        for name in (f"step-{step:04}", f"draft-{step}"):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def upload_checkpoint(self, step: int, folder: Path) -> tuple[File, ...]:
        """Copy the folder; it does not count yet."""
        shutil.copytree(folder, self._folder / f"draft-{step}", dirs_exist_ok=True)
        return ()

    def finish_checkpoint(self, step: int, label: str, files: tuple[File, ...]) -> None:
        """Give the folder its name."""
        (self._folder / f"label-step-{step:04}").write_text(label)
        (self._folder / f"draft-{step}").rename(self._folder / f"step-{step:04}")


def tied_qwen2(folder: Path, *, seed: int = 0) -> Path:
    """Write a seeded Qwen2 of 2 layers and 32 dimensions whose head shares the embedding."""
    byte_level(folder, special=CHATML_SPECIAL, config=CHATML_CONFIG)
    torch.manual_seed(seed)
    model = transformers.Qwen2ForCausalLM(  # type: ignore[no-untyped-call]  # theirs is untyped
        transformers.Qwen2Config(
            vocab_size=304,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.1,
            bos_token_id=None,
            eos_token_id=END_OF_TURN,
        )
    )
    model.save_pretrained(folder)
    return folder


def some_pairs(count: int, *, seed: int = 0) -> tuple[Pair, ...]:
    """Return pairs of a few words, of many lengths; chosen and rejected use different words."""
    source = random.Random(seed)

    def text(words: Sequence[str], most: int) -> tuple[Message, ...]:
        chosen = (source.choice(words) for _ in range(source.randint(1, most)))
        return (Message(role="assistant", content=" ".join(chosen)),)

    return tuple(
        Pair(
            prompt=(Message(role="user", content=f"say {number}"),),
            chosen=text(("ja", "gut", "so"), 8),
            rejected=text(("no", "bad", "off"), 5),
            id=str(number),
            language="de" if number % 2 else "en",
            partner="en" if number % 2 else "de",
        )
        for number in range(count)
    )


def write_pairs(file: Path, pairs: Sequence[Pair]) -> Path:
    """Write the pairs as the pair stage does."""
    file.write_bytes(lines(pairs))
    return file


def train_all(trainings: Sequence[Training], folder: Path) -> dict[str, dict[str, Any]]:
    """Run the trainings one after another; return by name what `ranks.py` says about each."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, results = folder / "plan.json", folder / "results.json"
    plan.write_text(json.dumps([one.model_dump(mode="json") for one in trainings]))
    here = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, here / "training" / "ranks.py", plan, results],
        check=True,
        env=training_environment(),
        timeout=800,
    )
    found: dict[str, dict[str, Any]] = json.loads(results.read_text())
    return found


def training_environment() -> dict[str, str]:
    """Return an environment for a training: one thread a rank, no hub, our folders importable."""
    tests = Path(__file__).parents[1]
    source = tests.parent / "pipeline" / "src"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(source), str(tests))),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }


def metrics(training: Training) -> list[dict[str, float]]:
    """Return the training's metrics.jsonl, one dictionary a step."""
    text = (training.output / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def first_gradients(training: Training) -> list[torch.Tensor]:
    """Return the first step's gradients, in the optimizer's order, from its checkpoint.

    After one step AdamW's exp_avg is (1 - 0.9) x gradient. Needs checkpointSteps 1 and ZeRO 0.
    """
    file = training.folder / "vault" / "step-0001" / "optimizer.pt"
    state: Mapping[int, Mapping[str, torch.Tensor]] = torch.load(file)["state"]
    return [state[index]["exp_avg"] / 0.1 for index in sorted(state)]


def in_optimizer_order(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return parameters as transformers groups them: those with weight decay, then the others."""
    named = list(model.named_parameters())
    plain = [name.endswith("bias") or "norm" in name for name, _ in named]
    decayed = [p for (_, p), is_plain in zip(named, plain, strict=True) if not is_plain]
    return decayed + [p for (_, p), is_plain in zip(named, plain, strict=True) if is_plain]
