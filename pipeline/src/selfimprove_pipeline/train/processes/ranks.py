"""The ranks of one training: finding each other, and what the first one knows for all.

Under torchrun the environment describes the ranks; without it this process is the only one.
`stage` uses these few functions instead of a launcher's own.
"""

import gc
import os
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar

import deepspeed  # type: ignore[import-untyped]
import torch
import torch.distributed

ValueT = TypeVar("ValueT")


def describe_single_rank() -> None:
    """Write torchrun's variables for one rank, unless a launcher has written its own."""
    if "WORLD_SIZE" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def use_plain_collectives() -> None:
    """Keep DeepSpeed from compiling C++ for collectives on CPUs, minutes at a first start.

    PyTorch's gloo does the same and needs no compiler in the image.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def connect_cpus(seconds: int) -> None:
    """Start the process group where there is no GPU; its ranks wait so long for each other.

    On CPUs transformers starts it without its own `ddp_timeout`.
    """
    if not torch.cuda.is_available() and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=seconds))


def connect_deepspeed() -> None:
    """Give DeepSpeed the process group that exists; on CPUs transformers leaves it without one.

    It would then load ZeRO-3's parts of a model as if there were a single rank.
    """
    deepspeed.init_distributed(verbose=False)


def free_memory() -> None:
    """Free what an earlier training of this process has left: its objects refer to each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def world_size() -> int:
    """Return the number of ranks."""
    return int(os.environ["WORLD_SIZE"])


def rank() -> int:
    """Return this process's number among all ranks."""
    return int(os.environ["RANK"])


def is_first() -> bool:
    """Say whether this is the rank that talks to storage and writes the model."""
    return rank() == 0


def is_first_here() -> bool:
    """Say whether this is the rank that downloads for its machine and uploads its files."""
    return os.environ["LOCAL_RANK"] == "0"


def node() -> str:
    """Return this machine's number among all; without torchrun there is one."""
    return os.environ.get("GROUP_RANK", "0")


def from_first(compute: Callable[[], ValueT]) -> ValueT:
    """Return on every rank what `compute` returns on the first."""
    values = [compute() if is_first() else None]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(values, src=0)
    (value,) = values
    return value  # type: ignore[return-value]


def any_of(value: bool) -> bool:
    """Return on every rank whether it is true on any, once they have found each other."""
    if not torch.distributed.is_initialized():
        return value
    values = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return any(values)


def from_each_node(compute: Callable[[], ValueT]) -> Mapping[str, ValueT]:
    """Return on every rank, by machine, what `compute` returns on the first rank of each."""
    own = {node(): compute()} if is_first_here() else {}
    if not torch.distributed.is_initialized():
        return own
    parts: list[dict[str, ValueT]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {name: value for part in parts for name, value in part.items()}


def meet() -> None:
    """Wait until every rank is here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
