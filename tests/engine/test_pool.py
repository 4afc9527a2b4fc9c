"""A pool of real engines makes what one makes, and what a killed one leaves is taken up again."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from selfimprove_pipeline.contract.errors import TryAgainError
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.contract.rows import Answer
from selfimprove_pipeline.engine import Completion, Request, pool
from selfimprove_pipeline.engine.pool.jobs import Job
from selfimprove_pipeline.engine.transformers_engine import TransformersEngine
from selfimprove_pipeline.run.shards import Share
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers.tasks import Made, Rows, Task, as_they_are
from selfimprove_pipeline.workers.tasks.collect import Collector, Progress
from selfimprove_pipeline.workers.tasks.wanted import Wanted, ready
from support.models import tiny_qwen2

MAX_LENGTH = 256
ROWS = 400
ANSWERS = 5 * 64 + 10

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the model."""
    return tiny_qwen2(tmp_path_factory.mktemp("models") / "tiny", max_length=MAX_LENGTH)


def job(model: Path, engine: str) -> Job:
    return Job(
        engine=engine, model=model, inference=Inference(), dtype="float32", stop_token_ids=(101,)
    )


@pytest.fixture(scope="module")
def two(tiny: Path) -> Iterator[pool.EnginePool]:
    """Start two engines of transformers."""
    engines = pool.start(job(tiny, "transformers"), [{}, {}])
    yield engines
    engines.close()


def requests() -> list[Request]:
    """Return rows of several artifacts and kinds, of which no batch is the last one's size."""
    generator = random.Random(5)
    rows = []
    for row in range(ROWS):
        group = f"artifact {row * 4 // ROWS}"
        prompt = tuple(generator.choices(range(32, 127), k=generator.randint(3, 60)))
        plain = Request(key=str(row), group=group, prompt=prompt, max_tokens=12)
        kinds = [
            plain,
            replace(plain, temperature=0.8, seed=row),
            replace(plain, repetition_penalty=1.2),
            replace(plain, scored=2),
        ]
        rows.append(kinds[row // 100 % 4])
    rows.append(replace(rows[0], key="overlong", prompt=(65,) * MAX_LENGTH))
    return rows


def test_two_engines_make_the_bytes_of_one(tiny: Path, two: pool.EnginePool) -> None:
    """Where rows depend on their neighbours, these are the same however many engines there are.

    Log-likelihoods are compared to the last bit: rows that are padded otherwise differ in it.
    """
    alone = TransformersEngine(tiny, stop_token_ids=(101,))
    expected = {row.key: row for row in alone.complete(requests())}
    found = {row.key: row for row in two.complete(requests())}
    assert two.has_fixed_batches
    assert two.versions == alone.versions
    assert two.max_model_len == alone.max_model_len == MAX_LENGTH
    assert found == expected
    others = {row.key: row for row in alone.complete(reversed(requests()))}
    assert others != expected, "the neighbours of these rows decide nothing"


TARGET = Target("generate", "en", "0" * 32, {}, {}, {})


def task() -> Task[Answer]:
    """Return an artifact of five batches and some rows."""
    rows = {
        str(row): Request(
            key=str(row), group="generate/en", prompt=(65 + row % 26, 66 + row % 20), max_tokens=9
        )
        for row in range(ANSWERS)
    }

    def pending(done: Rows[Answer], share: Share) -> Iterator[Wanted]:
        return ready(row for key, row in rows.items() if key not in done and share.owns(key))

    def row(completion: Completion, _: Rows[Answer]) -> Answer:
        return Answer(
            id=completion.key,
            language="en",
            completion=completion.text,
            finish_reason="stop",
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
        )

    def make(made: Sequence[Answer]) -> Made:
        return as_they_are("en.jsonl", made, {})

    return Task(target=TARGET, kind=Answer, order=list(rows), pending=pending, row=row, make=make)


def collected(
    folder: Path, engines: pool.EnginePool, killed: psutil.Process | None = None
) -> Manifest:
    """Return the artifact's manifest; a process is killed when 50 rows are there."""

    def on_progress(progress: Progress) -> None:
        if killed is not None and progress.done == 50:
            killed.kill()

    repository = Repository(FolderStore(folder), bucket="runs", prefix="", cache=folder / "cache")
    (made,) = Collector(engines, repository, on_progress).collect([task()])
    return made


def counts(manifest: Manifest) -> Mapping[str, int]:
    return {name: manifest.counts[name] for name in ("requests", "resumedRows")}


def test_a_killed_engine_costs_only_its_own_rows(
    tiny: Path, two: pool.EnginePool, tmp_path: Path
) -> None:
    """The worker is to try again; it finds all rows that were completed, and ends the same."""
    before = set(psutil.Process().children())
    engines = pool.start(job(tiny, "transformers"), [{}, {}])
    own = [child for child in psutil.Process().children() if child not in before]
    with pytest.raises(TryAgainError, match="found it killed, most likely for lack of memory"):
        collected(tmp_path / "killed", engines, own[-1])
    engines.close()
    resumed = collected(tmp_path / "killed", two)
    whole = collected(tmp_path / "whole", two)
    assert resumed.digest == whole.digest
    assert counts(resumed)["resumedRows"] >= 64
    assert sum(counts(resumed).values()) == sum(counts(whole).values()) == ANSWERS


def test_two_vllm_engines_complete_what_one_does(tiny: Path) -> None:
    """On processors, each with rows of both kinds at a time; sampled rows follow their seeds.

    vLLM computes in another order in other company, so a near tie may fall otherwise in one row of
    twenty. A row that nobody waits for is given up.
    """
    rows = requests()[:300]
    one = TransformersEngine(tiny, stop_token_ids=(101,))
    plain = [row for row in rows if row.temperature == 0 and not row.scored]
    scored = [replace(row, key=f"{row.key}s", scored=2) for row in rows[:40]]
    expected = {row.key: row for row in one.complete([*plain, *scored])}
    engines = pool.start(job(tiny, "vllm"), [{}, {}])
    try:
        assert engines.engines == 2
        assert not engines.has_fixed_batches
        abandoned = engines.complete(replace(row, max_tokens=200) for row in rows)
        next(abandoned)
        abandoned.close()  # type: ignore[attr-defined]  # it is a generator
        found = {row.key: row for row in engines.complete([*plain, *scored])}
    finally:
        engines.close()
    assert found.keys() == expected.keys()
    different = [row.key for row in plain if found[row.key] != expected[row.key]]
    assert len(different) <= len(plain) // 20
    for row in scored:
        told, known = found[row.key].log_likelihood, expected[row.key].log_likelihood
        assert told == pytest.approx(known, abs=1e-4)
