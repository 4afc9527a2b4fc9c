"""Tokens a second on this machine: the engine's work, and what its starts cost.

    make bench                                   # the miniature model
    .venv/bin/python benchmarks/throughput.py --hidden 896 --layers 24 --dtype bfloat16

With --hidden a model of that size with random weights is made, of Qwen2's architecture and with
the miniature's tokenizer: a real load for a GPU where no model can be downloaded. Every figure
is a ratio against something in the same run; run it when nothing else runs.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import made
from rich.console import Console
from rich.table import Table

from selfimprove_pipeline.contract.recipe import Spec, resolve
from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.engine import Engine, Request
from selfimprove_pipeline.inputs import prompts
from selfimprove_pipeline.inputs.run_file.validation import load
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.method import generate
from selfimprove_pipeline.method.rendering import Renderer


def main() -> None:
    """Measure both engines on the same prompts and print the table."""
    arguments = _arguments()
    spec = resolve(load(made.MINIATURE / "run.yaml")).spec
    with tempfile.TemporaryDirectory() as folder:
        model = (
            made.model(Path(folder), _size(arguments), dtype=arguments.dtype)
            if arguments.hidden
            else made.MINIATURE / "m0"
        )
        renderer = Renderer(model, spec.chat)
        work = _requests(spec, renderer, arguments)
        measured = [_measure(name, model, spec, renderer, work) for name in arguments.engines]
    _print(measured, spec)


def _measure(
    name: str, model: Path, spec: Spec, renderer: Renderer, work: list[Request]
) -> dict[str, float | str]:
    engine = _start(name, model, spec, renderer)
    began = time.perf_counter()
    done = list(engine.complete(work))
    seconds = time.perf_counter() - began
    tokens = sum(completion.completion_tokens for completion in done)
    start_seconds = engine.start_seconds
    engine.close()
    return {"engine": name, "start": start_seconds, "seconds": seconds, "tokens": tokens}


def _start(name: str, model: Path, spec: Spec, renderer: Renderer) -> Engine:
    dtype = json.loads((model / "config.json").read_text()).get("dtype", "float32")
    if name == "vllm":
        from selfimprove_pipeline.engine import vllm_engine

        return vllm_engine.start(
            model, inference=spec.inference, dtype=dtype, stop_token_ids=renderer.end_of_turn_ids
        )
    from selfimprove_pipeline.engine.transformers_engine import TransformersEngine

    return TransformersEngine(
        model, stop_token_ids=renderer.end_of_turn_ids, dtype=dtype, max_model_len=256
    )


def _requests(spec: Spec, renderer: Renderer, arguments: argparse.Namespace) -> list[Request]:
    names = spec.languages.all()
    files = {name: (made.MINIATURE / "prompts" / f"{name}.jsonl").read_bytes() for name in names}
    found = prompts.read(dict(files), "prompts")
    return [
        request
        for name in names
        for request in _of_language(name, found[name][: arguments.prompts], spec, renderer)
    ]


def _of_language(
    language: str, rows: Sequence[Prompt], spec: Spec, renderer: Renderer
) -> Iterator[Request]:
    """Yield requests whose keys are unique among all languages."""
    for row in rows:
        request = generate.request(row, language, spec, renderer)
        yield dataclasses.replace(request, key=f"{language}/{request.key}")


def _print(measured: list[dict[str, float | str]], spec: Spec) -> None:
    table = Table(title=f"generation on {'GPU' if devices.num_gpus() else 'CPU'}")
    for name in ("engine", "start s", "tokens", "tokens/s", "ratio"):
        table.add_column(name, justify="right")
    rates = [float(row["tokens"]) / float(row["seconds"]) for row in measured]
    for row, rate in zip(measured, rates, strict=True):
        table.add_row(
            str(row["engine"]),
            f"{row['start']:.1f}",
            f"{row['tokens']:.0f}",
            f"{rate:,.0f}",
            f"{rate / rates[-1]:.1f}",
        )
    Console().print(table)
    starts = len(spec.languages.all()) + len(spec.languages.directions())
    start, work = float(measured[0]["start"]), float(measured[0]["seconds"])
    ratio = (starts * start + work) / (start + work)
    print(
        f"one engine start an iteration instead of {starts} (one a language and direction, as the "
        f"paper's scripts do): {ratio:.1f} times less wall time for these prompts"
    )


def _size(arguments: argparse.Namespace) -> made.Size:
    return made.Size(arguments.hidden, arguments.layers, vocabulary=1464, longest=512)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=400, help="prompts a language")
    parser.add_argument("--hidden", type=int, default=0, help="hidden size of a random model")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--engines", nargs="+", default=["vllm", "transformers"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
