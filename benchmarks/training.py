"""How fast we train: useful tokens a second beside TRL's own trainer, and packed beside padded.

    make bench-training                          # minutes; run it when nothing else runs
    .venv/bin/python benchmarks/training.py --hidden 4096 --layers 32 --vocabulary 128256 \
        --untied --precision bf16 --ranks 8 --pairs 128          # on GPUs

All train the same pairs of the authors' lengths with a random model of Qwen2's shape, in turns,
each in processes of its own; what is compared is the middle of the rounds. TRL's trainer is as
its defaults have it but for `max_length=None`, since 1024 cuts, and for the global batch. A token
is useful once, in the steps; the seconds are those of the steps and of the reference pass.
`slots` is the share of useful tokens in what the model computed, `waiting` counts ranks that wait
for the longest one in each pass as well.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import made
from rich.console import Console
from rich.table import Table
from training_rank import Measured, Work

from selfimprove_pipeline.contract.recipe.profiles import LIDR_PAPER
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.contract.rows import lines
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.train.data.rows import tokenize
from selfimprove_pipeline.train.processes.launch import launch

RANK: Final = Path(__file__).with_name("training_rank.py")
TRL: Final = "TRL"
COLUMNS: Final = ("ranks", "contender", "reference s", "steps s", "tokens/s", "passes")
SHARES: Final = ("slots", "waiting", "GiB", "first loss", "to TRL", "to padded")


@dataclass(frozen=True)
class Load:
    """What all train: the file of it, its useful tokens and what the arguments say."""

    work: Path
    tokens: int
    arguments: argparse.Namespace


@dataclass(frozen=True)
class Result:
    """One training of one contender."""

    ranks: tuple[Measured, ...]
    tokens: int

    @property
    def seconds(self) -> float:
        """Seconds of the reference pass and the steps."""
        return self.ranks[0].reference + self.ranks[0].steps

    @property
    def rate(self) -> float:
        """Useful tokens a second."""
        return self.tokens / self.seconds

    @property
    def useful(self) -> float:
        """Share of useful tokens in all slots."""
        return self.tokens / sum(sum(rank.passes) for rank in self.ranks)

    @property
    def useful_with_waiting(self) -> float:
        """Share of useful tokens where each rank's pass counts as the longest one's."""
        together = zip_longest(*(rank.passes for rank in self.ranks), fillvalue=0)
        return self.tokens / (len(self.ranks) * sum(max(one) for one in together))


def main() -> None:
    """Train in turns and print the table."""
    arguments = _arguments()
    names = arguments.contenders
    with tempfile.TemporaryDirectory() as name:
        load = _prepare(Path(name), arguments)
        table = _table()
        for ranks in arguments.ranks:
            found: dict[str, list[Result]] = {each: [] for each in names}
            for number in range(arguments.rounds):
                for each in names:
                    found[each].append(_train(load, each, ranks, number))
                    print(f"{ranks} {each}: {found[each][-1].rate:,.0f} tokens/s", flush=True)
            for each in names:
                table.add_row(str(ranks), each, *_cells(found, each))
    Console(width=130).print(table)


def _prepare(folder: Path, arguments: argparse.Namespace) -> Load:
    """Write the model, the pairs and what to do, and say what they are."""
    size = made.Size(
        hidden=arguments.hidden,
        layers=arguments.layers,
        vocabulary=arguments.vocabulary,
        intermediate=arguments.intermediate,
        tied=not arguments.untied,
    )
    model = made.model(folder / "model", size, dtype=_dtype(arguments.precision))
    pairs = made.pairs(arguments.pairs, scale=arguments.scale)
    (folder / "pairs.jsonl").write_bytes(lines(pairs))
    rows = tokenize(pairs, Renderer(model, Chat()), max_length=size.longest).kept
    tokens = sum(2 * len(r.prompt_ids) + len(r.chosen_ids) + len(r.rejected_ids) for r in rows)
    work = Work(
        model=model,
        pairs=folder / "pairs.jsonl",
        batch=arguments.batch,
        precision=arguments.precision,
        recipes=_recipes(arguments),
    )
    (folder / "work.json").write_text(work.model_dump_json())
    threads = [f"{_threads(ranks, arguments)} of {ranks}" for ranks in arguments.ranks]
    print(
        f"{made.parameters(model) / 1e6:,.1f} M parameters, vocabulary {size.vocabulary:,}, "
        f"{arguments.precision}; {len(rows)} pairs, {tokens / len(rows) / 2:.0f} tokens a sequence,"
        f" global batch {arguments.batch}, packed passes of {arguments.tokens:,} tokens; "
        f"threads a rank: {', '.join(threads)}"
    )
    return Load(folder / "work.json", tokens, arguments)


def _recipes(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the recipes of our own contenders: the paper's, with what the arguments say."""
    common = {
        **LIDR_PAPER["training"],
        "globalBatchSize": arguments.batch,
        "maxLength": 8192,
        "precision": arguments.precision,
        "saveDtype": _dtype(arguments.precision),
        "zeroStage": arguments.zero,
        "tokensPerDevice": arguments.tokens,
    }
    return {layout: {**common, "layout": layout} for layout in ("packed", "padded")}


def _train(load: Load, name: str, ranks: int, number: int) -> Result:
    """Let one contender train once."""
    environment = {
        **os.environ,
        **devices.environment(devices.usable_gpus()),
        "OMP_NUM_THREADS": str(_threads(ranks, load.arguments)),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    out = load.work.with_name(f"{ranks}-{number}-{name}")
    argv = [str(RANK), str(load.work), name, str(out)]
    outcome = launch(argv, processes=ranks, environment=environment)
    if outcome.code:
        msg = f"{name} on {ranks} ranks ended with {outcome.code}: {outcome.line}"
        raise SystemExit(msg)
    files = [Path(f"{out}-{rank}.json") for rank in range(ranks)]
    measured = [Measured(**json.loads(file.read_text())) for file in files]
    if name != TRL and measured[0].layout != name:
        msg = f"expected {name} rows, found {measured[0].layout} ones; the log says why"
        raise SystemExit(msg)
    return Result(tuple(measured), load.tokens)


def _threads(ranks: int, arguments: argparse.Namespace) -> int:
    """Return the threads of a rank: the same cores for any number of ranks."""
    threads: int = arguments.threads or os.cpu_count() or 1
    return max(1, threads // ranks)


def _table() -> Table:
    where = "GPU" if devices.num_gpus() else "CPU"
    table = Table(title=f"training on {where}: useful tokens a second, reference pass included")
    for name in (*COLUMNS, *SHARES):
        table.add_column(name, justify="right")
    return table


def _cells(found: Mapping[str, Sequence[Result]], name: str) -> list[str]:
    middle = sorted(found[name], key=lambda one: one.rate)[len(found[name]) // 2]
    first = middle.ranks[0]
    return [
        f"{first.reference:.1f}",
        f"{first.steps:.1f}",
        f"{middle.rate:,.0f}",
        str(len(first.passes)),
        f"{middle.useful:.2f}",
        f"{middle.useful_with_waiting:.2f}",
        f"{max(rank.peak for rank in middle.ranks) / 2**30:.1f}",
        f"{first.first['loss']:.4f}",
        *(_ratio(found, name, other) for other in (TRL, "padded")),
    ]


def _ratio(found: Mapping[str, Sequence[Result]], name: str, other: str) -> str:
    """Return the median of the ratios of each round."""
    if not found.get(other) or name == other:
        return ""
    rounds = zip(found[name], found[other], strict=True)
    return f"{statistics.median(one.rate / against.rate for one, against in rounds):.2f}"


def _dtype(precision: str) -> str:
    return {"fp32": "float32", "bf16": "bfloat16"}[precision]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--intermediate", type=int, help="of the feed-forward layers")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--untied", action="store_true", help="the head has weights of its own")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths, for a try")
    parser.add_argument("--batch", type=int, default=16, help="global batch in pairs")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of all ranks together; unset: all cores")
    tokens = 16_384 if devices.usable_gpus() else 1024
    parser.add_argument("--tokens", type=int, default=tokens, help="tokensPerDevice")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--zero", type=int, default=2, help="ZeRO stage of our own side")
    parser.add_argument("--contenders", nargs="+", default=[TRL, "padded", "packed"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
