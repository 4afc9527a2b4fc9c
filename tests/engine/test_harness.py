"""lm-eval finds the same on our engines as on its own backend, request by request.

The backend is its plain one over transformers, given the same folder, in float32. The models are
random and tiny: one whose tokenizer marks no beginning of a text, and one that puts a token there.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import lm_eval
import pytest
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.engine import Completion, Engine, Request, vllm_engine
from selfimprove_pipeline.engine.transformers_engine import TransformersEngine
from selfimprove_pipeline.measuring.lm_eval import Outcome, benchmarks
from selfimprove_pipeline.measuring.lm_eval.model import EngineLM
from selfimprove_pipeline.method.rendering import Renderer
from support import benchmark_tasks
from support.models import LLAMA3_CONFIG, LLAMA3_SPECIAL, byte_level, tiny_qwen2

MAX_LENGTH = 256
LONGEST_SCORED = MAX_LENGTH - 1
PLAIN_END: Final = 260
MARKING_ENDS: Final = (259, 262)

TASKS: Final = (
    benchmark_tasks.CHOICE,
    benchmark_tasks.WITH_EXAMPLES,
    benchmark_tasks.LETTERS,
    benchmark_tasks.ROLLING,
    benchmark_tasks.WRITING,
)


@dataclass
class Model:
    """A model's folder, its renderer, an engine that holds it, and tasks it half knows."""

    folder: Path
    tasks: Path
    renderer: Renderer
    engine: Engine
    written: list[Completion] = field(default_factory=list)

    def answer(self, requests: Sequence[Request]) -> Mapping[str, Completion]:
        distinct = {request.key: request for request in requests}
        completions = list(self.engine.complete(distinct.values()))
        self.written += [row for row in completions if row.log_likelihood is None]
        return {row.key: row for row in completions}

    def outcomes(self, *, chat_template: bool) -> dict[str, Outcome]:
        """Return what our own way through the tasks comes to."""
        found = {}
        for task in benchmarks(self.tasks, chat_template=chat_template):
            requests = task.requests(self.renderer, max_length=LONGEST_SCORED, group="g")
            found[task.name] = task.result(
                self.renderer, max_length=LONGEST_SCORED, completions=self.answer(requests)
            )
        return found

    def evaluated(self, *, chat_template: bool) -> dict[str, Any]:
        """Return what lm-eval says of the engine when it runs it itself."""
        model = EngineLM(self.renderer, self.answer, max_length=LONGEST_SCORED, group="g")
        return self._evaluated(model, chat_template=chat_template)

    def expected(self, *, chat_template: bool) -> dict[str, Any]:
        """Return what it says of its own backend, whose length leaves out the last token."""
        model = HFLM(
            pretrained=str(self.folder),
            dtype="float32",
            device="cpu",
            batch_size=4,
            max_length=LONGEST_SCORED - 1,
        )
        return self._evaluated(model, chat_template=chat_template)

    def _evaluated(self, model: Any, *, chat_template: bool) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            # lm-eval itself looks for data where it is started.
            for path in self.tasks.glob("*.yaml"):
                text = path.read_text().replace("data/", f"{self.tasks}/data/")
                (Path(folder) / path.name).write_text(text)
            manager = TaskManager(include_path=folder, include_defaults=False)
            names = [task["task"] for task in TASKS]
            found: dict[str, Any] = lm_eval.simple_evaluate(
                model=model,
                tasks=names,
                task_manager=manager,
                apply_chat_template=chat_template,
                bootstrap_iters=10,
            )
        return found


def marking(folder: Path) -> Path:
    """Write a model whose tokenizer puts a token before each text."""
    tiny_qwen2(folder, max_length=MAX_LENGTH, seed=1)
    byte_level(folder, special=LLAMA3_SPECIAL, config=LLAMA3_CONFIG)
    return fond_of_ending(folder, *MARKING_ENDS)


def plain(folder: Path) -> Path:
    return fond_of_ending(tiny_qwen2(folder, max_length=MAX_LENGTH), PLAIN_END)


@torch.inference_mode()
def fond_of_ending(folder: Path, *ends: int) -> Path:
    """Let a model end its text where it would have put the token that it puts most often."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    texts = torch.randint(32, 127, (64, 20), generator=torch.Generator().manual_seed(3))
    favourite = int(model(texts).logits.argmax(dim=-1).flatten().mode().values)
    model.lm_head.weight[ends[-1]] = model.lm_head.weight[favourite] * 1.01
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [*ends]}))
    return folder


def half_known(folder: Path, renderer: Renderer, engine: Engine) -> Path:
    """Write the tasks; the model's own text is the answer to half of the questions to write."""
    benchmark_tasks.write(folder, TASKS)
    (sums,) = benchmarks(folder, ["sums"])
    requests = sums.requests(renderer, max_length=LONGEST_SCORED, group="g")
    found = {row.key: row.text for row in engine.complete(requests)}
    texts = [found[request.key] for request in requests]
    rows = [
        {**row, "total": text if place % 2 else row["total"]}
        for place, (row, text) in enumerate(zip(benchmark_tasks.SUMS, texts, strict=True))
    ]
    return benchmark_tasks.write(folder, TASKS, sums=rows)


@pytest.fixture(
    scope="module",
    params=[
        ("transformers", plain),
        ("transformers", marking),
        pytest.param(("vllm", plain), marks=pytest.mark.engine),
    ],
    ids=["transformers", "transformers with a beginning", "vllm"],
)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    kind, make = request.param
    base = tmp_path_factory.mktemp("harness")
    folder = make(base / "model")
    renderer = Renderer(folder, Chat())
    ends = renderer.end_of_turn_ids
    engine: Engine
    if kind == "transformers":
        engine = TransformersEngine(folder, stop_token_ids=ends)
    else:
        engine = vllm_engine.start(folder, inference=Inference(), dtype="auto", stop_token_ids=ends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "none-such")  # as in an image, which has no compiler
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(base / "compiled"))
        yield Model(folder, half_known(base / "tasks", renderer, engine), renderer, engine)
    engine.close()


@pytest.fixture(params=[False, True], ids=["bare", "with the chat template"])
def chat_template(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def close(values: Sequence[float]) -> Any:
    """Allow 1e-4 nats, and what float32 cannot tell of a long text's sum."""
    return pytest.approx(values, abs=1e-4, rel=1e-6)


def told(found: Mapping[str, Any], name: str) -> list[Any]:
    """Return what each request of a task got, documents and options in their order."""
    return [
        response
        for sample in found["samples"][name]
        for repetitions in sample["resps"]
        for response in repetitions
    ]


def test_each_request_gets_what_it_gets_of_lm_evals_own_backend(
    model: Model, chat_template: bool
) -> None:
    """What options and whole texts are worth, texts longer than the model too; what is written."""
    found = model.evaluated(chat_template=chat_template)
    expected = model.expected(chat_template=chat_template)
    for name in ("capitals", "capitals_shots", "letters"):
        ours, theirs = told(found, name), told(expected, name)
        assert [one for one, _ in ours] == close([one for one, _ in theirs])
        assert [one for _, one in ours] == [one for _, one in theirs]
    assert told(found, "texts") == close(told(expected, "texts"))
    # The start of a letter that was not finished is shown as such, or not at all.
    endings = {(row.finish_reason, row.stop_text is None) for row in model.written}
    assert endings == {("stop", True), ("stop", False), ("length", True)}
    whole = [text.rstrip("\ufffd") for text in told(expected, "sums")]
    assert [text.rstrip("\ufffd") for text in told(found, "sums")] == whole


def test_the_measures_are_those_of_lm_evals_own_backend(model: Model, chat_template: bool) -> None:
    """Asked in two steps, requests first, each metric and its standard error is the same."""
    found = model.outcomes(chat_template=chat_template)
    expected = model.expected(chat_template=chat_template)["results"]
    assert found.keys() == expected.keys()
    for name, outcome in found.items():
        numbers = {
            key.removesuffix(",none"): float(value)
            for key, value in expected[name].items()
            if key.endswith(",none") and value != "N/A"
        }
        assert outcome.measures == pytest.approx(numbers, rel=1e-5)
        assert outcome.results["results"][name].keys() == expected[name].keys()
    assert found["capitals"].metric == "acc_norm"
    scores = {sample.score for sample in found["sums"].samples}
    assert scores == ({0.0} if chat_template else {0.0, 1.0})
