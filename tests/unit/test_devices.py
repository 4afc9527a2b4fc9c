"""What a machine computes on, told before anything heavy is loaded."""

from pathlib import Path

import pytest

from selfimprove_pipeline import devices


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("0", 1), ("1,0", 2), ("", 0), ("-1", 0), ("GPU-1,GPU-2", 2)]
)
def test_gpus_are_counted_as_a_process_would_see_them(
    visible: str | None, count: int, tmp_path: Path
) -> None:
    """Device files count, unless CUDA_VISIBLE_DEVICES chooses among them."""
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert devices.num_gpus(environment, tmp_path) == count


def test_the_toolchain_names_what_makes_other_bits() -> None:
    """Device, world size and versions; threads only where sums depend on them."""
    cpu, gpu = devices.toolchain("vllm", 0), devices.toolchain("transformers", 4)
    on_cpu, on_gpu = cpu.training or {}, gpu.training or {}

    assert (on_cpu["device"], on_cpu["worldSize"], on_cpu["threads"]) == ("cpu", "1", "1")
    assert (on_gpu["device"], on_gpu["worldSize"]) == ("cuda", "4")
    assert "threads" not in on_gpu
    assert "vllm" in (cpu.inference or {})
    assert "vllm" not in (gpu.inference or {})
