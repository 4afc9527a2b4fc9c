"""Which engines a pod starts, and which GPUs each of them sees."""

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.engine.pool.groups import groups
from selfimprove_pipeline.workers.engines import processes


@pytest.mark.parametrize(
    ("environment", "gpus", "size", "expected"),
    [
        ({}, 4, 1, ["0", "1", "2", "3"]),
        ({}, 4, 2, ["0,1", "2,3"]),
        ({}, 1, 1, ["0"]),
        ({"CUDA_VISIBLE_DEVICES": "5, 7"}, 2, 1, ["5", "7"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a,GPU-2b,GPU-3c"}, 3, 3, ["GPU-1a,GPU-2b,GPU-3c"]),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1"}, 1, 1, ["MIG-1"]),
    ],
)
def test_each_engine_sees_its_own_gpus_alone(
    environment: dict[str, str], gpus: int, size: int, expected: list[str]
) -> None:
    """Neighbours of the pod's own list, by number or by UUID; no GPU is given twice."""
    found = groups(environment, gpus, size)
    assert found == tuple({"CUDA_VISIBLE_DEVICES": names} for names in expected)


def test_a_list_of_amd_gpus_is_dealt_under_its_own_name() -> None:
    """ROCm refuses two lists that differ."""
    found = groups({"HIP_VISIBLE_DEVICES": "1,3"}, 2, 1)
    assert found == ({"HIP_VISIBLE_DEVICES": "1"}, {"HIP_VISIBLE_DEVICES": "3"})


@pytest.mark.parametrize(("gpus", "size"), [(4, 3), (1, 2), (8, 5)])
def test_gpus_that_would_be_left_over_are_an_error(gpus: int, size: int) -> None:
    """Both numbers are named."""
    with pytest.raises(InputError, match=f"divides the {gpus} GPUs here, found {size};"):
        groups({}, gpus, size)


@pytest.mark.parametrize(
    ("engines", "gpus", "size", "expected"),
    [
        (None, 0, 1, 0),
        (1, 0, 1, 0),
        (3, 0, 1, 3),
        (None, 1, 1, 1),
        (None, 8, 2, 4),
        (1, 8, 2, 1),
        (4, 8, 2, 4),
    ],
)
def test_gpus_have_a_process_for_each_engine_and_processors_none(
    engines: int | None, gpus: int, size: int, expected: int
) -> None:
    """All GPUs are used unless the recipe asks for fewer; processors have more if it does."""
    inference = Inference(engines=engines, tensor_parallel_size=size)
    assert len(processes(inference, gpus=gpus, environment={})) == expected


def test_more_engines_than_gpus_have_room_for_are_refused() -> None:
    """Two engines on one GPU would share its memory, and neither would start."""
    inference = Inference(engines=5, tensor_parallel_size=2)
    with pytest.raises(InputError, match="expected at most 4 on these GPUs, 2 for each, found 5;"):
        processes(inference, gpus=8, environment={})
