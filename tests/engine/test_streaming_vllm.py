"""On vLLM translations come beside the answers, and are those that come after them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.contract.rows import Answer, Prompt, Translation, lines
from selfimprove_pipeline.engine import Completion, Engine, Request, vllm_engine
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.survey import survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers import inference
from support.models import tiny_qwen2
from support.runs import run

pytestmark = pytest.mark.engine
NUM_PROMPTS = 12


@dataclass
class Shared:
    """A started engine that several works use, each asking it in its own way."""

    engine: Engine
    has_fixed_batches: bool = False
    calls: int = 0
    start_seconds: float = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def complete(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        self.calls += 1
        return self.engine.complete(requests)

    def close(self) -> None:
        """Leave it to the next one."""


def made(root: Path, model: Path, engine: Shared) -> dict[str, tuple[Answer | Translation, ...]]:
    """Return the rows of each artifact of an iteration."""
    store = FolderStore(root / "store")
    repository = Repository(store, bucket="runs", prefix="", cache=root / "cache")
    repository.upload_folder(model, "s3://models/m0")
    for language in ("en", "es", "de"):
        rows = [Prompt(id=f"p{n}", prompt=f"{language} {n}?") for n in range(NUM_PROMPTS)]
        store.write(f"s3://prompts/set/{language}.jsonl", lines(rows))
    values = {"prompts__perIteration": NUM_PROMPTS, "generation__maxTokens": 24}
    spec = run(iterations=1, evaluation={"suites": []}, translation__maxTokens=24, **values)
    toolchain = devices.toolchain("transformers", 0)
    setting = Setting(spec, store, repository, toolchain, "transformers", root / "cache")
    inference.work(setting, 0, setting.base, lambda *_: engine, lambda _: None)  # type: ignore[arg-type]
    found = survey(setting.iteration(0, setting.base), repository.manifest)
    kinds: dict[str, type[Answer | Translation]] = {
        "generate": Answer,
        "translate": Translation,
    }
    assert list((root / "store").rglob("parts/**/*.jsonl")) == []
    return {
        f"{stage} {part}": repository.rows(manifest, kind)
        for stage, kind in kinds.items()
        for part, manifest in found[stage].manifests.items()  # type: ignore[index]
    }


def test_a_stream_on_vllm_gives_the_rows_of_rounds(tmp_path: Path) -> None:
    """One call of the engine where there were three, and equal texts but for near ties.

    vLLM computes in another order in another batch, so one row of twenty may fall otherwise.
    """
    model = tiny_qwen2(tmp_path / "model", max_length=1024)
    engine = vllm_engine.start(model, inference=Inference(), dtype="auto", stop_token_ids=())
    rounds, stream = Shared(engine, has_fixed_batches=True), Shared(engine)
    try:
        expected = made(tmp_path / "rounds", model, rounds)
        found = made(tmp_path / "stream", model, stream)
    finally:
        engine.close()

    assert (rounds.calls, stream.calls) == (3, 1)
    assert found.keys() == expected.keys()
    pairs = [pair for part in found for pair in zip(found[part], expected[part], strict=True)]
    assert len(pairs) == 7 * NUM_PROMPTS
    assert all(own.id == other.id for own, other in pairs)
    assert sum(own == other for own, other in pairs) >= 0.95 * len(pairs)
    assert any(isinstance(row, Translation) and row.attempts > 1 for row, _ in pairs)
