"""What the devices of an engine may fail with, told by the words of vLLM and torch.

Such errors have no classes of their own: they come as ValueError, RuntimeError or AssertionError.
"""

import re
from typing import Final

from selfimprove_pipeline.contract.errors import InputError, SelfImproveError, TryAgainError

_LASTING: Final = re.compile(
    r"no kernel image is available|driver version is insufficient|driver on your system is too old"
)
"""A GPU or a driver too old for these packages: no other attempt is better."""

_PASSING: Final = re.compile(
    # Memory that another process has, or gives back while vLLM measures.
    r"Free memory on device|Error in memory profiling"
    r"|(CUDA|HIP) out of memory|(CUDA|HIP) error\b"
    r"|CUDA driver initialization failed|CUDA unknown error|cudaGetDeviceCount"
    r"|NCCL [Ee]rror"
    # Of a worker process vLLM tells no more than this; the cause stands in the log.
    r"|WorkerProc initialization failed|Engine core initialization failed"
)
"""A device that is occupied or has failed: a new process may find it well."""


def kind_of(message: str) -> type[SelfImproveError] | None:
    """Return the error that a device's failure is, None for a message of something else."""
    if _LASTING.search(message):
        return InputError
    return TryAgainError if _PASSING.search(message) else None
