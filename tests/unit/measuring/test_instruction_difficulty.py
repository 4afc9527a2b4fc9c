"""Length control with the difficulty of instructions: the win rate that alpaca-eval would tell."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sklearn

from selfimprove_pipeline.contract.rows import Prompt, Verdict
from selfimprove_pipeline.inputs.suites import alpaca
from selfimprove_pipeline.measuring.judged import contests
from selfimprove_pipeline.measuring.judged.difficulty import win_rate
from support import alpaca_tools

URI = "s3://eval/references"


@dataclass(frozen=True)
class Table:
    """A made set: how hard it is, gamed verdicts and those on a model."""

    difficulties: Sequence[float]
    gamed: Sequence[dict[str, Any]]
    """gamed is what alpaca-eval downloads."""
    rows: Sequence[Verdict]

    def annotations(self) -> list[dict[str, Any]]:
        return [
            {
                "index": n,
                "instruction": f"instruction {n}",
                "output_1": "x" * row.opponent_characters,
                "generator_1": "reference",
                "output_2": "y" * row.characters,
                "generator_2": "model",
                "annotator": "judge",
                "preference": 1 + (row.preference or 0.0),
            }
            for n, row in enumerate(self.rows)
        ]

    def file(self, *, is_gamed: bool) -> bytes:
        """Return the table as it stands beside the references: instructions, no row numbers."""
        kept = ("instruction_difficulty", "preference", "std_delta_len")
        names = kept if is_gamed else kept[:1]
        items = [
            {"instruction": f"instruction {row['index']}", **{name: row[name] for name in names}}
            for row in self.gamed
        ]
        if not is_gamed:
            random.Random(3).shuffle(
                items
            )  # found by instruction; of gamed rows theirs is the order
        return json.dumps(items).encode()


def made(seed: int, n: int, *, is_graded: bool) -> Table:
    coin = random.Random(seed)
    difficulties = [coin.gauss(0, 1) for _ in range(n)]
    gamed = [
        {
            "model": name,
            "preference": expit(-1.2 * math.tanh(length) + coin.gauss(0, 0.3)),
            "index": n,
            "std_delta_len": length,
            "instruction_difficulty": difficulty,
            "not_gamed_baseline": False,
        }
        for name, mean in (("concise", 0.5), ("verbose", -0.5))
        for n, difficulty in enumerate(difficulties)
        for length in [coin.gauss(mean, 1)]
    ]
    rows = []
    for number, difficulty in enumerate(difficulties):
        own, other = coin.randrange(50, 250), coin.randrange(20, 200)
        preference = expit(0.8 + 0.01 * (own - other) + 0.7 * difficulty + coin.gauss(0, 1))
        rows.append(
            Verdict(
                id=str(number),
                language="de",
                preference=preference if is_graded else float(preference > 0.5),
                characters=own,
                opponent_characters=other,
            )
        )
    return Table(difficulties, gamed, rows)


def expit(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def our_rate(table: Table, *, is_gamed: bool) -> float:
    """Return what the verdicts amount to with the table's file beside the references."""
    file = {f"{URI}/de.difficulty.json": table.file(is_gamed=is_gamed)}
    prompts = tuple(
        Prompt(id=row.id, prompt=f"instruction {n}")
        for n, row in reversed([*enumerate(table.rows)])
    )
    found = alpaca.difficulties(URI, {"de": prompts}, file.get)
    return contests.measures(table.rows, found["de"])["lcWinRate"]


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")  # in theirs, as in ours
@pytest.mark.parametrize(
    ("model", "is_gamed"), [("length_controlled_v1", True), ("length_controlled_noreg", False)]
)
@pytest.mark.parametrize(("seed", "n"), [(1, 30), (2, 101), (3, 300)])
@pytest.mark.parametrize("is_graded", [True, False], ids=["graded", "labels"])
def test_it_equals_alpaca_eval_s_own(  # noqa: PLR0913  a table of cases
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    model: str,
    is_gamed: bool,
    seed: int,
    n: int,
    is_graded: bool,
) -> None:
    """On the same verdicts, with the same table: theirs in its cache, ours by instruction."""
    table = made(seed, n, is_graded=is_graded)
    package = alpaca_tools.with_table(monkeypatch, tmp_path, table.gamed)
    with sklearn.config_context():  # which alpaca-eval changes for all
        theirs = package.metrics.get_length_controlled_winrate(
            table.annotations(), glm_name=model, save_weights_dir=None
        )
    plain = contests.measures(table.rows)

    ours = our_rate(table, is_gamed=is_gamed)

    assert ours == pytest.approx(theirs["length_controlled_winrate"] / 100, abs=1e-9)
    assert plain["winRate"] == pytest.approx(theirs["win_rate"] / 100)
    assert abs(ours - plain["winRate"]) > 0.001


def test_exchanged_answers_turn_it_into_one_minus_it() -> None:
    """As hard as they are, the instructions are the same for both."""
    table = made(5, 60, is_graded=True)
    exchanged = [
        row.model_copy(
            update={
                "preference": 1 - (row.preference or 0.0),
                "characters": row.opponent_characters,
                "opponent_characters": row.characters,
            }
        )
        for row in table.rows
    ]
    there = our_rate(Table(table.difficulties, table.gamed, exchanged), is_gamed=False)

    assert our_rate(table, is_gamed=False) == pytest.approx(1 - there, abs=1e-3)


def test_it_is_plain_at_the_extremes_and_absent_of_very_few() -> None:
    """Five folds need five verdicts, and whoever wins always wins at equal lengths."""
    table = made(6, 8, is_graded=True)
    hard = table.difficulties
    lengths = list(range(8))

    assert win_rate([1.0] * 8, lengths, hard) == 1.0
    assert win_rate([0.0] * 8, lengths, hard) == 0.0
    assert win_rate([0.5] * 8, [7] * 8, hard) == pytest.approx(0.5)
    assert win_rate([0.5] * 4, lengths[:4], hard[:4]) is None
