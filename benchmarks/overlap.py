"""How long the search for training prompts in a suite takes: `python benchmarks/overlap.py`.

Made texts of 12 to 70 words of a Zipfian vocabulary, as long as word problems are; one in a
hundred prompts is a row of the suite with a word more.
"""

import argparse
import random
import time
from collections.abc import Sequence

from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.inputs import overlap

WORDS = 3000


def texts(count: int, generator: random.Random) -> list[Prompt]:
    """Return made prompts."""
    letters = "aeiouaeioubcdfghlmnprstv"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(WORDS)]
    weights = [1 / (rank + 1) for rank in range(WORDS)]

    def text() -> str:
        return " ".join(generator.choices(words, weights, k=generator.randint(12, 70)))

    return [Prompt(id=str(number), prompt=text()) for number in range(count)]


def planted(prompts: Sequence[Prompt], rows: Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts with rows of the suite among them."""
    return [
        prompt.model_copy(update={"prompt": f"{rows[number % len(rows)].prompt} now"})
        if number % 100 == 0
        else prompt
        for number, prompt in enumerate(prompts)
    ]


def main() -> None:
    """Print seconds of wall clock and of the process, and what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000)
    arguments = parser.parse_args()
    generator = random.Random(1)  # noqa: S311  nothing is secret
    made = texts(arguments.prompts + arguments.rows, generator)
    rows = made[: arguments.rows]
    prompts = planted(made[arguments.rows :], rows)
    wall, process = time.perf_counter(), time.process_time()
    found = list(overlap.matches(prompts, rows))
    seconds = time.perf_counter() - wall, time.process_time() - process
    print(f"{len(prompts):,} prompts x {len(rows):,} rows: {len(found)} found, ", end="")
    print(f"{seconds[0]:.1f} s, {seconds[1]:.1f} s of the process")


if __name__ == "__main__":
    main()
