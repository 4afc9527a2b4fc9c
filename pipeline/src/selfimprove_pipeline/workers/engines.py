"""How the engine of a run is started on a model's folder; each is imported when it is chosen."""

from collections.abc import Callable
from pathlib import Path

from selfimprove_pipeline.chat import Renderer
from selfimprove_pipeline.engine import Engine
from selfimprove_pipeline.workers.setting import Setting


def starter(setting: Setting) -> Callable[[Path, Renderer], Engine]:
    """Return how the run's engine is started on a model's folder."""
    return _start_vllm(setting) if setting.engine == "vllm" else _start_transformers(setting)


def _start_vllm(setting: Setting) -> Callable[[Path, Renderer], Engine]:
    from selfimprove_pipeline.engine import vllm_engine  # noqa: PLC0415  heavy

    spec = setting.spec
    return lambda folder, renderer: vllm_engine.start(
        folder,
        inference=spec.inference,
        dtype=spec.inference.dtype or spec.model.dtype,
        stop_token_ids=renderer.end_of_turn_ids,
        seed=spec.generation.seed,
    )


def _start_transformers(setting: Setting) -> Callable[[Path, Renderer], Engine]:
    from selfimprove_pipeline.engine import transformers_engine  # noqa: PLC0415  heavy

    spec = setting.spec
    dtype = spec.inference.dtype or spec.model.dtype
    return lambda folder, renderer: transformers_engine.TransformersEngine(
        folder,
        stop_token_ids=renderer.end_of_turn_ids,
        dtype="float32" if dtype == "auto" else dtype,
        max_model_len=spec.inference.max_model_len,
    )
