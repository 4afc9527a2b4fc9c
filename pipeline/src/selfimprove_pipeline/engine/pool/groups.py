"""Which GPUs each engine of a pod gets."""

from collections.abc import Mapping

from selfimprove_pipeline.contract.errors import InputError

_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""ROCm reads both."""


def groups(environment: Mapping[str, str], gpus: int, size: int) -> tuple[dict[str, str], ...]:
    """Return, for each engine of `size` GPUs, the variable that shows it its own alone.

    The pod's own list says what they are called, by number or by UUID; without one they are
    counted, `gpus` of them. A number that leaves some over raises InputError.
    """
    variable = next((name for name in _VARIABLES if name in environment), _VARIABLES[0])
    listed = environment.get(variable)
    names = [str(number) for number in range(gpus)]
    if listed is not None:
        names = [name for one in listed.split(",") if (name := one.strip()) not in ("", "-1")]
    if len(names) % size:
        msg = (
            f"inference.tensorParallelSize: expected a number that divides the {len(names)} GPUs "
            f"here, found {size}; set another one, or ask for other GPUs"
        )
        raise InputError(msg)
    starts = range(0, len(names), size)
    return tuple({variable: ",".join(names[begin : begin + size])} for begin in starts)
