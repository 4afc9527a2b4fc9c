"""Activations are computed again exactly where those of the largest pass would not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from selfimprove_pipeline.contract.recipe import Training
from selfimprove_pipeline.memory import shape, training
from selfimprove_pipeline.train.model import activations
from support.runs import run

pytestmark = pytest.mark.training

MODEL = {
    "model_type": "llama",
    "hidden_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 4096,
    "vocab_size": 32_000,
    "torch_dtype": "bfloat16",
}
TOKENS = 16_384


def recipe(**values: Any) -> Training:
    return run(**{"training__zeroStage": 2, **values}).spec.training


def found(**values: Any) -> shape.ModelShape:
    told = shape.shape_of({**MODEL, **values}, where="config.json")
    assert told is not None
    return told


def recomputes(
    given: Training | None = None,
    *,
    model: Mapping[str, Any] = MODEL,
    tokens: int = TOKENS,
    parameters: int | None = None,
    world: int = 1,
) -> bool:
    count = found().parameters if parameters is None else parameters
    return activations.recomputes(
        given or recipe(), model, tokens=tokens, parameters=count, world=world
    )


def needed(*, tokens: int = TOKENS, on_gpu: bool = False) -> float:
    """Return the free bytes with which activations can just be kept."""
    kept = recipe(training__gradientCheckpointing=False)
    peak = training.device(found(), kept, ranks=1, tokens=tokens, on_gpu=on_gpu)
    return peak.total / training.SHARE


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the free bytes of a processor, which a test may set; at first they just suffice."""
    amount = [needed() + 1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(activations, "_free", lambda: amount[0])
    return amount


def test_activations_are_kept_while_they_fit(free: list[float]) -> None:
    """The boundary is the share of the free memory that may be planned for."""
    assert not recomputes()
    free[0] = needed() - 2
    assert recomputes()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, False, id="what just fits"),
        pytest.param({"tokens": TOKENS + 1}, True, id="a larger pass"),
        pytest.param({"tokens": TOKENS - 1}, False, id="a smaller pass"),
        pytest.param({"parameters": found().parameters + 9}, True, id="more parameters counted"),
        pytest.param({"model": {**MODEL, "num_hidden_layers": 17}}, True, id="one more layer"),
        pytest.param({"model": {**MODEL, "intermediate_size": 4097}}, True, id="wider layers"),
        pytest.param({"given": recipe(training__precision="fp32")}, True, id="four bytes a number"),
    ],
)
def test_a_larger_model_or_pass_needs_more(
    free: list[float], change: dict[str, Any], expected: bool
) -> None:
    """Whatever is kept of a token counts, for each token of the largest pass."""
    assert free[0] > needed()
    assert recomputes(**change) is expected


def test_ranks_that_share_the_states_leave_room(free: list[float]) -> None:
    """With less memory than one rank needs, two ranks can keep activations."""
    free[0] = needed() - found().parameters
    assert recomputes()
    assert not recomputes(world=2)


@pytest.mark.parametrize("word", [True, False])
def test_the_word_of_the_recipe_goes_first(free: list[float], word: bool) -> None:
    """With room for nothing, or for all."""
    free[0] = 1e15 if word else 0
    assert recomputes(recipe(training__gradientCheckpointing=word)) is word


def test_a_model_of_unknown_size_computes_them_again(free: list[float]) -> None:
    """Nothing is guessed where a config says too little."""
    free[0] = 1e15
    assert recomputes(model={"model_type": "new"})


def test_of_a_gpu_its_free_memory_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process may hold the rest of the device."""
    enough = int(needed(on_gpu=True)) + 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for amount, expected in ((enough, False), (enough - 2, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=amount: (free, 10 * enough))
        assert recomputes() is expected


@pytest.mark.parametrize(
    ("limit", "ranks", "expected"), [("max", 1, 8192), ("6144", 1, 5120), ("6144", 2, 2560)]
)
def test_ranks_share_what_the_machine_or_the_pod_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, ranks: int, expected: int
) -> None:
    """A pod has what its limit leaves; ranks on one machine have a part each."""
    files = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:       8 kB\n",
        "/sys/fs/cgroup/memory.max": f"{limit}\n",
        "/sys/fs/cgroup/memory.current": "1024\n",
    }
    for name, content in files.items():
        (tmp_path / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name[1:]).write_text(content)
    monkeypatch.setattr(activations, "Path", lambda name: tmp_path / name[1:])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    free: list[float] = []

    def noted(*_: Any, **__: Any) -> training.DeviceMemory:
        free.append(activations._free())  # noqa: SLF001
        return training.DeviceMemory(0, 0, 0, 0, 0)

    monkeypatch.setattr(training, "device", noted)
    recomputes()
    assert free == [expected]
