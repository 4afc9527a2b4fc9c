"""A device that is occupied or broken is worth another attempt; wrong arguments are not.

The messages are those that vLLM 0.32 and torch 2.13 have in their sources.
"""

# ruff: noqa: E501  messages in one piece

import pytest

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.engine import faults

PASSING = (
    (
        "Free memory on device cuda:0 (3.1/79.19 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.27 GiB). Decrease GPU memory utilization or reduce GPU memory used by "
        "other processes."
    ),
    (
        "Free memory on device cuda:1 (3.1/79.19 GiB) on startup is less than the engine's budget "
        "after excluding external process's weights (0.9, 71.27 GiB). Decrease GPU memory utilization"
    ),
    (
        "Error in memory profiling. Initial free memory 70.1 GiB, current free memory 75.3 GiB. This "
        "happens when other processes sharing the same container release GPU memory while vLLM is "
        "profiling during initialization."
    ),
    (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.19 GiB of "
        "which 1.06 GiB is free."
    ),
    "HIP out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 191.98 GiB",
    (
        "CUDA error: out of memory CUDA kernel errors might be asynchronously reported at some other "
        "API call, so the stacktrace below might be incorrect."
    ),
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "HIP error: invalid device function",
    "CUDA driver initialization failed, you might not have a CUDA gpu.",
    (
        "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env "
        "variable CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero."
    ),
    (
        "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
        "NumCudaDevices() that might have already set an error? Error 802: system not yet initialized"
    ),
    "NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
    (
        "WorkerProc initialization failed due to an exception in a background process. See stack trace "
        "for root cause."
    ),
    (
        "Worker failed with error 'CUDA error: an illegal memory access was encountered', please check "
        "the stack trace above for the root cause"
    ),
)
LASTING = (
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA driver version is insufficient for CUDA runtime version",
    "The NVIDIA driver on your system is too old (found version 12040).",
)
OTHER = (
    (
        "User-specified max_model_len (100000) is greater than the derived max_model_len "
        "(max_position_embeddings=256 or model_max_length=None in model's config.json)."
    ),
    (
        "To serve at least one request with the models's max seq len (131072), 16.0 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (9.8 GiB). Try increasing "
        "`gpu_memory_utilization`"
    ),
    (
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
        "initializing the engine"
    ),
    "Unknown quantization method: fp7. Must be one of ['awq', 'fp8'].",
    "Total number of attention heads (28) must be divisible by tensor parallel size (8).",
)


@pytest.mark.parametrize("message", PASSING)
def test_a_failed_or_occupied_device_is_worth_another_attempt(message: str) -> None:
    """The next start may find memory free, or be on another node."""
    assert faults.kind_of(message) is TryAgainError


@pytest.mark.parametrize("message", LASTING)
def test_a_device_too_old_stays_so(message: str) -> None:
    """Trying again would cost the same minutes and end the same."""
    assert faults.kind_of(message) is InputError


@pytest.mark.parametrize("message", OTHER)
def test_what_the_recipe_asks_for_is_no_fault_of_a_device(message: str) -> None:
    """The caller judges these by their class."""
    assert faults.kind_of(message) is None
