"""`selfimprove worker NAME`: one worker of one iteration, as the runner and pods start it."""

import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Final

from selfimprove_pipeline import local
from selfimprove_pipeline.chat import Renderer
from selfimprove_pipeline.engine import Engine
from selfimprove_pipeline.errors import error_of
from selfimprove_pipeline.events import Emitter
from selfimprove_pipeline.train import launch
from selfimprove_pipeline.workers import inference, light, training
from selfimprove_pipeline.workers.setting import Setting

TERMINATED_FROM: Final = 128
"""Exit codes above this one are 128 + the signal that ended the process."""


def work(arguments: Namespace, setting: Setting, emitter: Emitter) -> None:
    """Do the work of one worker; rows and progress go to store and standard output."""
    index = arguments.iteration
    model = local.model_at(setting, index)
    match arguments.worker:
        case "inference":
            inference.work(setting, index, model, starter(setting), emitter.progress)
        case "light":
            light.work(setting, index, model)
        case "training":
            training.check(setting, index, model)
            _launch(setting)
        case "rank":
            training.work(setting, index, model, arguments.scratch, emitter.progress)


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


def _launch(setting: Setting) -> None:
    """Start the ranks of a training with this worker's own arguments."""
    processes = int(setting.toolchain.training["worldSize"])
    prefix = f"training-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_scratch(setting)) as scratch:
        own = [*sys.argv[sys.argv.index("training") + 1 :], "--scratch", scratch]
        command = ["-m", "selfimprove_pipeline", "worker", "rank", *own]
        outcome = launch.launch(command, processes=processes)
    if outcome.code > TERMINATED_FROM:
        raise SystemExit(outcome.code)
    if outcome.code:
        raise error_of(outcome.code, outcome.line)


def _scratch(setting: Setting) -> Path:
    """Return the folder for work files, without those that a killed training left behind."""
    folder = setting.cache / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("training-*"):
        if not _is_running(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    return folder


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
