"""Estimated and measured memory of trainings on this machine's processors.

    .venv/bin/python benchmarks/memory.py

Each row is one training of `train.stage` in a process of its own, with random weights of Qwen2's
architecture. Measured is the highest resident size above that of the same process when it has
imported everything and holds no model, sampled from outside; estimated is what
`selfimprove_pipeline.memory` says of the model's config and the recipe. Takes minutes; run it
when nothing else runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from selfimprove_pipeline.contract.recipe.training import Training
from selfimprove_pipeline.memory import shape, training

INTERVAL: Final = 0.01
PAIRS: Final = 4
LIVE_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc gives freed blocks back at once, so that resident memory is what is in use."""
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

RECIPE: Final[Mapping[str, Any]] = {
    "method": "full",
    "beta": 0.5,
    "nllWeight": 1.0,
    "nllNormalization": "sequence",
    "learningRate": 5e-7,
    "lrScheduler": "constant",
    "warmupRatio": 0.0,
    "weightDecay": 0.0,
    "maxGradNorm": 1.0,
    "epochs": 1,
    "globalBatchSize": 2,
    "microBatchSize": 1,
    "layout": "padded",
    "tokensPerDevice": 4096,
    "saveDtype": "bfloat16",
    "seed": 7,
}


@dataclass(frozen=True)
class Case:
    """One training to measure."""

    name: str
    config: Mapping[str, Any]
    recipe: Mapping[str, Any]
    tokens: int
    """tokens of each sequence."""


def _config(hidden: int, layers: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 4 * hidden,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 128,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        **more,
    }


CASES: Final = (
    Case(
        "fp32 ZeRO 0",
        _config(512, 12, 24_576, tie_word_embeddings=True),
        {"precision": "fp32", "zeroStage": 0, "gradientCheckpointing": False},
        256,
    ),
    Case(
        "fp32 ZeRO 3",
        _config(640, 8, 16_384),
        {"precision": "fp32", "zeroStage": 3, "gradientCheckpointing": False},
        192,
    ),
    Case(
        "bf16 ZeRO 2",
        _config(768, 8, 24_576),
        {"precision": "bf16", "zeroStage": 2, "gradientCheckpointing": True},
        72,  # processors without bf16 instructions are slow
    ),
)
"""Weights of more than 200 MB each."""


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="the cases whose names hold this")
    parser.add_argument("--child", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        _train(arguments.child)
        return
    table = Table(title="memory above the process without a model, MiB")
    for name in ("training", "phase", "estimated", "measured", "ratio"):
        table.add_column(name, justify="left" if name in ("training", "phase") else "right")
    for case in CASES:
        if not arguments.only or arguments.only in case.name:
            for row in measured(case):
                table.add_row(*row)
                print(*row, sep=" | ", flush=True)
    Console(width=100).print(table)


def measured(case: Case) -> list[tuple[str, ...]]:
    """Return a row of the table for each phase of a training."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = _prepared(case, folder)
        command = [sys.executable, __file__, "--child", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", **LIVE_MEMORY}
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603  ourselves
            samples = _samples(process)
        if process.returncode:
            sys.exit((folder / "log.txt").read_text()[-3000:])
        times = json.loads((folder / "times.json").read_text())
    base = times["baseline"]
    recipe = Training.model_validate_json(json.dumps({**RECIPE, **case.recipe}))
    peak = training.device(made, recipe, ranks=1, tokens=2 * case.tokens, on_gpu=False)
    kept = training.states(made, recipe, ranks=1)
    expected = {"train": peak.total + kept.host, "save": _saving(made, recipe, peak) + kept.host}
    rows: list[tuple[str, ...]] = []
    for phase, estimate in expected.items():
        start, end = times[phase]
        found = max(rss for at, rss in samples if start <= at <= end) - base
        rows.append(
            (
                f"{case.name}, {made.parameters / 1e6:.0f} M",
                phase,
                f"{estimate / 2**20:.0f}",
                f"{found / 2**20:.0f}",
                f"{estimate / found:.2f}",
            )
        )
    return rows


def _saving(made: shape.ModelShape, recipe: Training, peak: training.DeviceMemory) -> int:
    """Return what is resident while the model is saved.

    The file of M_t is mapped, and so resident too; ZeRO-3 keeps its buffer.
    """
    mapped = made.parameters * made.stored
    buffer = peak.buffers if recipe.zero_stage == 3 else 0  # noqa: PLR2004  a stage
    return peak.states + training.saving(made, recipe) + mapped + buffer


def _samples(process: "subprocess.Popen[bytes]") -> list[tuple[float, int]]:
    """Return times and resident bytes of a process until it ends."""
    found = []
    while process.poll() is None:
        try:
            fields = Path(f"/proc/{process.pid}/statm").read_text().split()
        except OSError:
            continue
        if len(fields) > 1:
            found.append((time.monotonic(), int(fields[1]) * PAGE))
        time.sleep(INTERVAL)
    return found


def _prepared(case: Case, folder: Path) -> shape.ModelShape:
    """Write what the child needs and return the shape of its model."""
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **case.config}
    config["dtype"] = "bfloat16" if case.recipe["precision"] == "bf16" else "float32"
    recipe = {**RECIPE, **case.recipe, "maxLength": case.tokens}
    job = {"config": config, "recipe": recipe, "tokens": case.tokens}
    (folder / "case.json").write_text(json.dumps(job))
    found = shape.shape_of(config, where="config.json")
    if found is None:
        sys.exit("the config of a case has no shape")
    return found


def _train(folder: Path) -> None:
    """Make the model in a process of its own, then train it here and note the times of phases."""
    case = json.loads((folder / "case.json").read_text())
    maker = os.fork()
    if not maker:
        _make(folder, case)
        os._exit(0)
    if os.waitpid(maker, 0)[1]:
        sys.exit("the model could not be made")
    import deepspeed.runtime.zero.stage3  # type: ignore[import-untyped]  # noqa: F401  imported when first used

    from selfimprove_pipeline.contract.recipe.sources import Chat
    from selfimprove_pipeline.train import stage
    from support.training import FolderVault

    job = stage.Job(
        model=folder / "m0",
        pairs=folder / "pairs.jsonl",
        output=folder / "m1",
        scratch=folder / "scratch",
        training=Training.model_validate_json(json.dumps(case["recipe"])),
        chat=Chat(),
    )
    baseline = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    began = time.monotonic()
    report = stage.run(job, FolderVault(folder / "vault"))
    seconds = report.seconds
    referenced = began + seconds["reference"]
    trained = referenced + seconds["train"]
    times = {
        "baseline": baseline,
        "train": (began, trained),
        "save": (trained, trained + seconds["save"]),
    }
    (folder / "times.json").write_text(json.dumps(times))


def _make(folder: Path, case: Mapping[str, Any]) -> None:
    """Write a random model, its tokenizer and pairs whose two sequences are as long as may be."""
    import torch
    import transformers

    from selfimprove_pipeline.contract.rows import Message, Pair, lines
    from support.models import CHATML_CONFIG, CHATML_SPECIAL, byte_level

    model = byte_level(folder / "m0", special=CHATML_SPECIAL, config=CHATML_CONFIG)
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, case["config"]["dtype"]))
    made = transformers.Qwen2ForCausalLM(  # type: ignore[no-untyped-call]  # theirs is untyped
        transformers.Qwen2Config(**case["config"])
    )
    made.save_pretrained(model)

    def text(letter: str) -> tuple[Message, ...]:
        return (Message(role="assistant", content=letter * (case["tokens"] - 60)),)

    pairs = [
        Pair(
            prompt=(Message(role="user", content=f"say {number}"),),
            chosen=text("a"),
            rejected=text("b"),
            id=str(number),
            language="de",
            partner="en",
        )
        for number in range(PAIRS)
    ]
    (folder / "pairs.jsonl").write_bytes(lines(pairs))


if __name__ == "__main__":
    main()
