"""What a pod tells of itself fits where it is told, whatever the run and the error are."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.cli import show
from selfimprove_pipeline.contract.environment import COMPLETION_INDEX, TERMINATION_LOG
from selfimprove_pipeline.contract.errors import InputError, SelfImproveError
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.stages import TABLE
from selfimprove_pipeline.measuring.gates import Manifests
from selfimprove_pipeline.run.numbers import Found, Outcome, of_stages
from selfimprove_pipeline.workers import pod
from selfimprove_pipeline.workers.events import Emitter
from support.runs import run

SUITE = [{"name": "exactMatch", "uri": "s3://suites/one"}]


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        """Nothing waits."""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this process a pod and return its termination log."""
    path = tmp_path / "termination-log"
    monkeypatch.setenv(TERMINATION_LOG, str(path))
    return path


def manifest(stage: str, part: str = "", **described: Any) -> Manifest:
    key = f"{stage}-{part}"
    return Manifest(stage=stage, part=part, key=key, digest=key, files=(), **described)


def evaluated(**scores: float) -> dict[str, Manifest]:
    """Return the evaluation of one model by language."""
    return {
        f"exactMatch.{language}": manifest("evaluate", language, rows=4, measures={"score": score})
        for language, score in scores.items()
    }


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(InputError("one\n two"), "one two", id="several lines"),
        pytest.param(SelfImproveError("x" * 3000), "x" * 1500, id="letters of one byte"),
        pytest.param(SelfImproveError("ü" * 3000), "ü" * 974, id="letters of two bytes"),
        pytest.param(SelfImproveError("\U0001f600" * 3000), "\U0001f600" * 500, id="of four"),
        pytest.param(SelfImproveError('"' * 3000), '"' * 1000, id="escaped ones"),
        pytest.param(KeyError("pairs"), "KeyError: 'pairs'", id="a defect of ours"),
        pytest.param(SelfImproveError(""), "SelfImproveError:", id="no words"),
    ],
)
def test_a_failure_is_one_line_that_fits(log: Path, error: Exception, line: str) -> None:
    """At most 1,500 characters and 2,048 bytes, whatever the letters need."""
    pod.failed(error)
    content = log.read_bytes()
    assert len(content) <= 2048
    found = json.loads(content)
    assert found["contract"] == "1"
    assert found["error"][:900] == line[:900]
    assert abs(len(found["error"]) - len(line)) <= 50


def test_only_a_pod_has_a_termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local runner's workers write no such file."""
    monkeypatch.delenv(TERMINATION_LOG, raising=False)
    monkeypatch.chdir(tmp_path)
    pod.failed(InputError("wrong"))
    assert not pod.is_here()
    assert list(tmp_path.iterdir()) == []


def test_the_numbers_of_65_languages_fit_the_last_line(log: Path) -> None:
    """At most 16 KiB; the message holds no language at all."""
    others = [f"{a}{b}{c}-Latn-AB" for a in "abcd" for b in "abcd" for c in "abcd"]
    spec = run(languages__others=others, evaluation__suites=SUITE).spec
    made = manifest(
        "pair",
        counts={"pairs": 10**9, "drops": 10**9, **{f"pairs.{n}": 10**9 for n in others}},
        drops={language: {"empty": 10**9} for language in others},
    )
    found: Manifests = {"evaluate": evaluated(**dict.fromkeys(others, 0.5)), "pair": {"": made}}
    state = Found(100, "d" * 64, found, evaluated(**dict.fromkeys(others, 0.25)), last=100)
    told = of_stages(tuple(info.name for info in TABLE), spec, state)
    written = Lines()
    pod.succeeded(told, Emitter(written))  # type: ignore[arg-type]
    assert len("".join(written.lines).encode()) <= 16 << 10
    assert len(log.read_bytes()) <= 2048
    numbers = json.loads(written.lines[-1])
    assert (numbers["event"], numbers["iteration"]) == ("numbers", 100)
    assert len(numbers["languages"]) == 65


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        pytest.param(
            {"es": 0.75, "de": 0.5, "en": 1.0},
            {"es": 0.25, "de": 0.5},
            {"rows": 12, "score": "0.625", "gain": "+0.250"},
            id="better",
        ),
        pytest.param(
            {"es": 0.25, "de": 0.5},
            {"es": 0.75, "de": 0.5},
            {"rows": 8, "score": "0.375", "gain": "-0.250"},
            id="worse",
        ),
        pytest.param({"es": 0.5, "de": 0.5}, {}, {"rows": 8, "score": "0.500"}, id="of M0"),
        pytest.param({"en": 0.5}, {"en": 0.5}, {"rows": 4}, id="not all languages"),
        pytest.param({}, {}, {"rows": 0}, id="nothing measured"),
    ],
)
def test_score_and_gain_are_means_over_the_other_languages(
    now: dict[str, float], before: dict[str, float], expected: dict[str, Any]
) -> None:
    """The dominant language does not count, and what is not measured is not told."""
    spec = run(evaluation__suites=SUITE).spec
    state = Found(1, "model", {"evaluate": evaluated(**now)}, evaluated(**before), last=1)
    assert of_stages(("evaluate",), spec, state).totals == expected


def test_a_run_without_suites_tells_its_pairs() -> None:
    """There is no score; drops of a language add up over their reasons."""
    spec = run(evaluation__suites=[]).spec
    counts = {"pairs": 3, "drops": 2, "pairs.es": 2, "pairs.de": 1}
    made = manifest("pair", rows=3, counts=counts, drops={"es": {"empty": 1, "identical": 1}})
    state = Found(0, "model", {"pair": {"": made}}, {}, last=1)
    told = of_stages(("pair", "score"), spec, state)
    assert told.totals == {"rows": 3, "pairs": 3, "drops": 2}
    assert set(told.stages) == {"pair"}
    assert told.languages == (
        {"language": "en", "pairs": 0, "drops": 0},
        {"language": "es", "pairs": 2, "drops": 2},
        {"language": "de", "pairs": 1, "drops": 0},
    )


def test_other_pods_of_a_launch_tell_the_digest_alone(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Totals are counted once."""
    monkeypatch.setenv(COMPLETION_INDEX, "1")
    pod.succeeded(Outcome("d" * 64, 0, model="m", totals={"rows": 1}), Emitter(Lines()))  # type: ignore[arg-type]
    assert json.loads(log.read_text()) == {"contract": "1", "digest": "d" * 64}


def test_a_suite_that_counts_languages_shows_them_also_with_gold_answers() -> None:
    """The line for people has the off-target rate, of the models and of a baseline."""
    measures = {"score": 0.75, "offTarget": 0.125, "n": 8}
    evaluation = {name: {"es": measures} for name in ("own", "own+sft", "exactMatch")}
    suites = [{"name": "own", "kind": "offTarget"}, {"name": "exactMatch", "kind": None}]
    iteration = {
        "index": 0,
        "model": {"digest": "d" * 64, "uri": "s3://models/m0"},
        "evaluation": evaluation,
        "gates": {},
    }
    found = {"recipe": {"evaluation": {"suites": suites}}, "iterations": [iteration]}

    assert show.key_numbers(found)[1:] == [
        "   own: es 0.125 (n 8)",
        "   own+sft: es 0.125 (n 8)",
        "   exactMatch: es 0.750 (n 8)",
    ]
