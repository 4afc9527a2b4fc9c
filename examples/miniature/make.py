"""Makes everything in this folder: the tokenizer and weights of M0, prompts, suites.

    python examples/miniature/make.py [--out DIR] [--data-only]

The rows are the same bytes wherever they are made. The weights come from fixed seeds on one
thread, but floating point differs between processors: expect their behaviour, not their bytes.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from itertools import chain
from pathlib import Path
from typing import Final

from tasks import Problem
from words import LANGUAGES
from world import core_set, prompt_set, rows

PROMPTS: Final = 1200
SUITE: Final = 300
_HERE: Final = Path("examples/miniature")
_ACCEPTANCE: Final = Path("tests/data/miniature/acceptance")
_TOKENIZER_EXAMPLES: Final = 30_000

log = logging.getLogger("miniature")


def _write_rows(folder: Path, problems: list[Problem]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        lines = (
            json.dumps(row, ensure_ascii=False) + "\n" for row in rows(problems, language=language)
        )
        (folder / f"{language}.jsonl").write_text("".join(lines), encoding="utf-8")
    log.info("%s: %d rows in each of %s", folder, len(problems), ", ".join(LANGUAGES))


def make_data(out: Path) -> None:
    """Write the prompts, the two suites and the acceptance rows."""
    _write_rows(out / _HERE / "prompts", prompt_set("prompts", count=PROMPTS))
    _write_rows(out / _HERE / "suite", prompt_set("suite", count=SUITE))
    _write_rows(out / _HERE / "core", core_set(count=SUITE))
    _write_rows(out / _ACCEPTANCE, prompt_set("acceptance", count=SUITE))


def make_model(out: Path) -> None:
    """Train the tokenizer and M0 and write them as a Hugging Face folder."""
    # The rows can be made without torch, so it is imported here.
    import bpe  # noqa: PLC0415
    import pretrain  # noqa: PLC0415
    from corpus import examples  # noqa: PLC0415

    sample = examples(_TOKENIZER_EXAMPLES, seed=pretrain.SEED)
    tokenizer = bpe.train(chain.from_iterable((bpe.prompt_text(e), e.reply) for e in sample))
    log.info("tokenizer: %d entries", tokenizer.get_vocab_size())
    model = pretrain.train(tokenizer)
    pretrain.write(model, tokenizer, out / _HERE / "m0")
    log.info("%s: %d parameters", out / _HERE / "m0", model.num_parameters())


def main() -> int:
    """Parse the command line and make what it asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parents[2],
        help="root to write examples/miniature and tests/data under; unset: this repository",
    )
    parser.add_argument("--data-only", action="store_true", help="write the rows, train nothing")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    make_data(arguments.out)
    if not arguments.data_only:
        make_model(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
