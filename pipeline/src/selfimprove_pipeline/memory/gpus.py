"""Devices by name: what vendors' data sheets say of memory, matrix products and bandwidth."""

from dataclasses import dataclass
from typing import Final

from selfimprove_pipeline.contract.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """One device."""

    name: str
    memory: int
    """memory in bytes that a process finds free, about what the driver tells."""
    teraflops: int
    """teraflops of dense bf16 products."""
    bandwidth: int
    """bandwidth of the memory in GB/s."""


def _gpu(name: str, memory: float, teraflops: int, bandwidth: int) -> Gpu:
    """Return a device; `memory` is in GiB."""
    return Gpu(name, int(memory * 2**30), teraflops, bandwidth)


GPUS: Final = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100-40gb", 39.4, 312, 1555),
        _gpu("a100-80gb", 79.2, 312, 2039),
        _gpu("h100-80gb", 79.2, 989, 3350),
        _gpu("h100-94gb", 93.1, 835, 3938),
        _gpu("h200-141gb", 139.8, 989, 4800),
        _gpu("gh200-96gb", 94.5, 989, 4000),
        _gpu("b200-180gb", 178.3, 2250, 7700),
        _gpu("b300-288gb", 268.0, 2250, 8000),
        _gpu("a10g-24gb", 22.1, 70, 600),
        _gpu("a6000-48gb", 47.4, 155, 768),
        _gpu("l4-24gb", 22.1, 121, 300),
        _gpu("l40s-48gb", 44.4, 362, 864),
        _gpu("rtx4090-24gb", 23.5, 165, 1008),
        _gpu("rtx5090-32gb", 31.3, 209, 1792),
        _gpu("mi300x-192gb", 191.5, 1307, 5300),
        _gpu("mi325x-256gb", 255.5, 1307, 6000),
        _gpu("mi355x-288gb", 287.5, 2300, 8000),
    )
}
"""Devices by the name that `plan --gpu` takes."""

ASSUMED: Final = GPUS["h100-80gb"]
"""The device of a run that declares none, of which a node has NODE."""
NODE: Final = 8


def named(name: str) -> Gpu:
    """Return the device of a name; an unknown one is an `InputError` with the known ones."""
    found = GPUS.get(name.lower())
    if found is None:
        message = f"--gpu: expected one of {', '.join(GPUS)}, found {name}"
        raise InputError(message)
    return found
