"""How fast the data stage is: rows a second of generate and translate beside bare vLLM.

    .venv/bin/python benchmarks/data.py          # minutes; run it when nothing else runs
    .venv/bin/python benchmarks/data.py --hidden 4096 --layers 32 --dtype bfloat16 \
        --engines 1 8 --prompts 1000             # on GPUs

Our side is the workers' own path: prompts from a store, answers and translations in artifacts
there. Bare is `vllm.LLM.generate` in one call, given the very prompts and numbers of tokens that
our side made, in as many processes as there are engines. Both have one thread an engine, the same
`max_num_seqs` and `max_num_batched_tokens`, no prefix cache (rounds repeat each other), and have
started and worked once before the clock runs. They take turns; what is compared is the middle of
the ratios. The model has random weights and hardly ever stops, so that texts are as long as they
may be.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import made
from bare_llm import Bare, Text
from rich.console import Console
from rich.table import Table

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.recipe import Run
from selfimprove_pipeline.engine import Completion, Engine, Request
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers import engines, inference

LANGUAGES: Final = ("en", "es", "de", "fr", "it", "pt", "nl", "sv", "da")
COLUMNS: Final = ("engines", "languages", "rows", "tokens", "ours rows/s", "bare rows/s")
RATIO: Final = ("ratio", "lowest", "highest")


class Lasting:
    """An engine that outlives the work it is given to, and says when that began.

    It is an `Engine`; closing it does nothing, since starts are not what is measured.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.began = 0.0
        self.asked: dict[str, Request] | None = None
        """asked are the requests by key while they are noted, which costs a little time."""
        self.texts: list[Text] = []

    start_seconds = 0.0

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the engine."""
        return self.engine.versions

    @property
    def max_model_len(self) -> int:
        """Longest prompt and completion of the engine."""
        return self.engine.max_model_len

    @property
    def has_fixed_batches(self) -> bool:
        """What the engine says."""
        return self.engine.has_fixed_batches

    @property
    def engines(self) -> int:
        """How many the engine is."""
        return self.engine.engines

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """Complete with the engine; note what is asked and made where that is wanted."""
        if self.asked is None:
            return self.engine.complete(requests)
        return self._noted(requests, self.asked)

    def close(self) -> None:
        """Do nothing."""

    def _noted(
        self, requests: Iterable[Request | None], asked: dict[str, Request]
    ) -> Iterator[Completion]:
        def noting() -> Iterator[Request | None]:
            for request in requests:
                if request is not None:
                    asked[request.key] = request
                yield request

        for completion in self.engine.complete(noting()):
            self.texts.append(_text(asked.pop(completion.key), completion))
            yield completion


@dataclass(frozen=True)
class Round:
    """Seconds of both sides for the same texts."""

    ours: float
    bare: float


def main() -> None:
    """Measure each number of engines and languages and print the table."""
    arguments = _arguments()
    table = Table(title=f"generate + translate on {'GPU' if devices.num_gpus() else 'CPU'}")
    for name in (*COLUMNS, *RATIO):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or made.model(
            folder / "m0", _size(arguments), dtype=arguments.dtype
        )
        for number in arguments.engines:
            _measure_engines(number, model.resolve(), folder, arguments, table)
    Console(width=110).print(table)


def _measure_engines(
    number: int, model: Path, folder: Path, arguments: argparse.Namespace, table: Table
) -> None:
    """Start our engines and the bare ones, and add a row for each number of languages."""
    run = _run(model, max(arguments.languages), number, arguments)
    places = engines.processes(
        run.spec.inference, gpus=devices.usable_gpus(), environment=os.environ
    )
    lasting: Lasting | None = None
    with Bare(_llm_arguments(model, arguments), places or ({},)) as bare:
        for languages in arguments.languages:
            setting = _setting(_run(model, languages, number, arguments), folder / "first")
            if lasting is None:
                renderer = Renderer(model, run.spec.chat)
                lasting = Lasting(engines.starter(setting)(model, renderer))
            lasting.asked = {}
            _work(setting, lasting)
            lasting.asked, texts = None, lasting.texts
            lasting.texts = []
            bare.seconds(texts)
            rounds = [
                _round(setting, lasting, bare, texts, folder / f"{number}-{languages}-{turn}")
                for turn in range(arguments.rounds)
            ]
            shutil.rmtree(folder / "first")
            table.add_row(str(number), str(languages), *_cells(texts, rounds))
            print(f"{number} engines, {languages} languages: {_cells(texts, rounds)}", flush=True)
    if lasting is not None:
        lasting.engine.close()


def _round(
    setting: Setting, lasting: Lasting, bare: Bare, texts: Sequence[Text], folder: Path
) -> Round:
    """Let each side make the texts once."""
    seconds = _work(_setting(setting.run, folder), lasting)
    shutil.rmtree(folder)
    bare_seconds, tokens = bare.seconds(texts)
    expected = sum(text.tokens for text in texts)
    if tokens != expected:
        msg = f"expected {expected} tokens of the bare side, found {tokens}"
        raise SystemExit(msg)
    return Round(seconds, bare_seconds)


def _work(setting: Setting, lasting: Lasting) -> float:
    """Generate and translate as a worker does; return the seconds since the engine was there."""

    def start(_: Path, __: Renderer) -> Engine:
        lasting.began = time.perf_counter()
        return lasting

    inference.work(setting, 0, setting.base, start, lambda _: None, names=("generate", "translate"))
    return time.perf_counter() - lasting.began


def _run(model: Path, languages: int, number: int, arguments: argparse.Namespace) -> Run:
    """Return a run of the paper's profile in so many languages on so many engines."""
    dominant, *others = LANGUAGES[:languages]
    spec = {
        "model": {"uri": f"file://{model}", "dtype": arguments.dtype},
        "profile": "lidr-paper",  # nothing is sampled, nothing is asked again
        "languages": {"dominant": dominant, "others": others},
        "prompts": {"uri": "s3://data/prompts", "perIteration": arguments.prompts},
        "generation": {"maxTokens": arguments.answer},
        "translation": {"maxTokens": arguments.translation},
        "inference": {
            "engines": number,
            "gpuMemoryUtilization": arguments.memory,
            "extraArgs": _batch(arguments),
        },
        "storage": {"bucket": "runs"},
    }
    metadata = {"name": "benchmark"}
    kind = {"apiVersion": "selfimprove.dev/v1alpha1", "kind": "SelfImproveRun"}
    file = json.dumps({**kind, "metadata": metadata, "spec": spec})
    return recipe.resolve(Run.model_validate_json(file))


def _setting(run: Run, folder: Path) -> Setting:
    """Return the run on a new store that has the prompts; one file serves many languages."""
    for language in run.spec.languages.all():
        known = language if language in LANGUAGES[:3] else LANGUAGES[1]
        copy = folder / "data" / "prompts" / f"{language}.jsonl"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.MINIATURE / "prompts" / f"{known}.jsonl", copy)
    store = FolderStore(folder)
    cache = folder / "cache"
    repository = Repository(store, bucket=run.spec.storage.bucket, prefix="", cache=cache)
    toolchain = devices.toolchain("vllm", devices.usable_gpus())
    return Setting(run, store, repository, toolchain, "vllm", cache)


def _batch(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "max_num_seqs": arguments.sequences,
        "max_num_batched_tokens": arguments.batched_tokens,
        "enable_prefix_caching": False,
    }


def _llm_arguments(model: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the bare side: what the recipe says of our own."""
    return {
        "model": str(model),
        "dtype": arguments.dtype,
        "gpu_memory_utilization": arguments.memory,
        "generation_config": "vllm",
        "enforce_eager": not devices.usable_gpus(),
        **_batch(arguments),
    }


def _text(request: Request, completion: Completion) -> Text:
    sampling = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "repetition_penalty": request.repetition_penalty,
        "seed": request.seed if request.temperature > 0 else None,
    }
    return Text(request.prompt, completion.completion_tokens, sampling)


def _cells(texts: Sequence[Text], rounds: Sequence[Round]) -> list[str]:
    ratios = sorted(one.bare / one.ours for one in rounds)
    ours = statistics.median(one.ours for one in rounds)
    bare = statistics.median(one.bare for one in rounds)
    return [
        str(len(texts)),
        str(sum(text.tokens for text in texts)),
        f"{len(texts) / ours:.1f}",
        f"{len(texts) / bare:.1f}",
        f"{statistics.median(ratios):.2f}",
        f"{ratios[0]:.2f}",
        f"{ratios[-1]:.2f}",
    ]


def _size(arguments: argparse.Namespace) -> made.Size:
    return made.Size(
        hidden=arguments.hidden, layers=arguments.layers, vocabulary=1464, longest=1024
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--languages", type=int, nargs="+", default=[3, 5], help="of each run")
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompts", type=int, default=48, help="prompts a language")
    parser.add_argument("--answer", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--translation", type=int, default=80, help="tokens of a translation")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=128, help="max_num_seqs")
    parser.add_argument("--batched-tokens", type=int, default=4096)
    parser.add_argument("--memory", type=float, default=0.4, help="of a GPU, for each side")
    parser.add_argument("--model", type=Path, help="a folder, instead of random weights")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
