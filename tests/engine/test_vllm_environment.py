"""What vLLM and torch are told by their environment before they are imported.

Only a GPU shows what happens otherwise; the cause is the environment, and it is asserted here.
"""

import json
import os
import subprocess
import sys

import pytest

from selfimprove_pipeline.engine import vllm_engine

IMPORTS = """
import importlib.abc, json, os, sys
from pathlib import Path

told = []

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("torch", "vllm"):
            told.append([name, dict(os.environ)])
            if name == "vllm":
                print(json.dumps(told))
                os._exit(0)  # vLLM itself need not be there

sys.meta_path.insert(0, Watch())
from selfimprove_pipeline.engine import vllm_engine
from selfimprove_pipeline.contract.recipe.sampling import Inference

is_invariant = sys.argv[1] == "invariant"
if is_invariant:  # which processors cannot be
    import torch
    torch.accelerator.is_available = lambda: True
inference = Inference(batch_invariant=is_invariant)
vllm_engine.start(Path("model"), inference=inference, dtype="auto", stop_token_ids=())
"""


def seen(argument: str = "", **environment: str) -> list[tuple[str, dict[str, str]]]:
    """Return the environment at the first import of torch and at that of vLLM."""
    inherited = {name: value for name, value in os.environ.items() if "VLLM" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS, argument],
        capture_output=True,
        text=True,
        check=True,
        env={**inherited, "PYTORCH_NVML_BASED_CUDA_CHECK": "0", **environment},
    )
    return [(name, found) for name, found in json.loads(ended.stdout)]


def test_vllm_and_torch_are_imported_under_what_gpus_need() -> None:
    """No sampler that nvcc builds, no look at CUDA that a forked worker cannot follow."""
    found = seen()
    assert [name for name, _ in found] == ["torch", "vllm"]
    for _, environment in found:
        assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
        assert environment["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
        assert environment["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
        assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
        assert "VLLM_BATCH_INVARIANT" not in environment


def test_the_machine_may_choose_its_sampler_but_not_how_workers_start() -> None:
    """An image with nvcc may have FlashInfer's; forked workers work nowhere."""
    _, environment = seen(VLLM_USE_FLASHINFER_SAMPLER="1", VLLM_WORKER_MULTIPROC_METHOD="fork")[-1]
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
    assert environment["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


def test_batch_invariance_is_told_before_vllm_is_imported() -> None:
    """Its kernels look when they are imported."""
    assert seen("invariant")[-1][1]["VLLM_BATCH_INVARIANT"] == "1"


@pytest.mark.parametrize(
    ("most", "gigabytes", "expected"),
    [(1024, 80, 512), (1024, 99, 512), (1024, 141, None), (256, 40, None), (256, 80, None)],
)
def test_gpus_below_100_gb_have_512_rows_at_most(
    most: int, gigabytes: int, expected: int | None
) -> None:
    """Above that, and where vLLM's own number is lower, it is vLLM's own."""
    found = vllm_engine._fewer_rows(most, memory=gigabytes * 10**9)  # noqa: SLF001  needs no GPU
    assert found.get("max_num_seqs") == expected
