"""How the engines of a run are started on a model's folder, and where."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.engine import Engine, pool
from selfimprove_pipeline.engine.pool.groups import groups
from selfimprove_pipeline.engine.pool.jobs import Job
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.run.setting import Setting


def starter(setting: Setting) -> Callable[[Path, Renderer], Engine]:
    """Return how the run's engine, or its pool of engines, is started on a model's folder."""
    spec = setting.spec

    def start(folder: Path, renderer: Renderer) -> Engine:
        job = Job(
            engine=setting.engine,
            model=folder,
            inference=spec.inference,
            dtype=spec.inference.dtype or spec.model.dtype,
            stop_token_ids=tuple(renderer.end_of_turn_ids),
            seed=spec.generation.seed,
        )
        places = processes(spec.inference, gpus=_gpus(setting), environment=os.environ)
        return pool.start(job, places) if places else job.start()

    return start


def processes(
    inference: Inference, *, gpus: int, environment: Mapping[str, str]
) -> tuple[Mapping[str, str], ...]:
    """Return what each engine's process has in its environment beside this one's.

    None at all means one engine in this process: on processors, unless the recipe asks for more.
    On GPUs each engine has a process of its own, also where it is the only one: a GPU's memory is
    free for certain when the process has ended.
    """
    wanted = inference.engines
    if not gpus:
        return ({},) * wanted if wanted is not None and wanted > 1 else ()
    found = groups(environment, gpus, inference.tensor_parallel_size)
    if wanted is not None and wanted > len(found):
        message = (
            f"inference.engines: expected at most {len(found)} on these GPUs, "
            f"{inference.tensor_parallel_size} for each, found {wanted}; lower it, or leave it out"
        )
        raise InputError(message)
    return found[:wanted]


def _gpus(setting: Setting) -> int:
    """Return the GPUs that engines share; the transformers engine uses none."""
    device = (setting.toolchain.inference or {}).get("device")
    return devices.usable_gpus() if setting.engine == "vllm" and device != "cpu" else 0
