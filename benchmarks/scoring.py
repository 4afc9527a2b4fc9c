"""Seconds and requests that options of one token take, beside the same ones asked one by one.

    .venv/bin/python benchmarks/scoring.py
    .venv/bin/python benchmarks/scoring.py --hidden 256 --layers 8

Questions with four options follow the same examples, as in tasks like MMLU. What they are set
against is how options of several tokens are scored, and how those of one token were: a request an
option, which reads its whole prompt. Both take turns on one engine; run it when nothing else runs.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import made

from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.engine import Request, vllm_engine
from selfimprove_pipeline.inputs import prompts
from selfimprove_pipeline.method.rendering import Renderer

OPTIONS = " the", " of", " is", " a"


def main() -> None:
    """Score both ways in turn and print the medians."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        size = made.Size(arguments.hidden, arguments.layers, vocabulary=1464, longest=512)
        model = made.model(Path(folder), size) if arguments.hidden else made.MINIATURE / "m0"
        renderer = Renderer(model, Chat())
        together = _requests(renderer, arguments.questions, arguments.examples)
        apart = [replace(request, scored=2) for request in together]
        engine = vllm_engine.start(
            model, inference=Inference(), dtype="float32", stop_token_ids=renderer.end_of_turn_ids
        )
        rounds = [
            (_measure(engine, apart), _measure(engine, together))
            for _ in range(arguments.rounds + 1)
        ][1:]  # of the first one some seconds are the engine's own
        engine.close()
    tokens = statistics.mean(len(request.prompt) for request in together)
    print(f"{arguments.questions} questions of {tokens:.0f} tokens, {len(OPTIONS)} options each")
    for name, found in zip(("one by one", "together"), zip(*rounds, strict=True), strict=True):
        seconds = statistics.median(one for one, _ in found)
        print(f"{name}: {found[0][1]} requests of vLLM, {seconds:.2f} s")
    ratios = sorted(apart / together for (apart, _), (together, _) in rounds)
    print(f"ratio {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})")


def _requests(renderer: Renderer, questions: int, examples: int) -> list[Request]:
    """Return a request an option of each question, all after the same examples."""
    file = (made.MINIATURE / "prompts" / "en.jsonl").read_bytes()
    rows = prompts.read({"en": file}, "prompts")["en"]
    shown = "".join(f"{row.prompt}\n{row.answer}\n" for row in rows[:examples])
    options = [renderer.text_ids(option, is_marked=False)[-1] for option in OPTIONS]
    return [
        Request(
            key=f"{row.id}/{option}",
            group="scoring",
            prompt=(*renderer.text_ids(f"{shown}{row.prompt}\n"), option),
            max_tokens=1,
            scored=1,
        )
        for row in rows[examples : examples + questions]
        for option in options
    ]


def _measure(engine: vllm_engine.VllmEngine, requests: Sequence[Request]) -> tuple[float, int]:
    """Return the seconds, and how many requests vLLM was given."""
    core = vars(engine)["_engine"]
    core.reset_prefix_cache()
    add, given = core.add_request, 0

    def counted(*request: object) -> None:
        nonlocal given
        given += 1
        add(*request)

    core.add_request = counted
    began = time.perf_counter()
    done = sum(1 for _ in engine.complete(requests))
    seconds = time.perf_counter() - began
    core.add_request = add
    if done != len(requests):
        msg = f"expected {len(requests)} completions, found {done}"
        raise RuntimeError(msg)
    return seconds, given


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--examples", type=int, default=20, help="examples before each question")
    parser.add_argument("--hidden", type=int, default=0, help="hidden size of a random model")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
