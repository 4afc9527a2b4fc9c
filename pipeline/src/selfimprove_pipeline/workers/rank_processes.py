"""The ranks of a training on this machine: started from the training worker, ended with it.

Each gets the worker's own arguments, and a folder for work files that they share.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from selfimprove_pipeline.contract.errors import error_of
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.train.processes import launch, nodes

TERMINATED_FROM: Final = 128
"""Exit codes above this one are 128 + the signal that ended the process."""


def run(setting: Setting) -> None:
    """Run the ranks of a training, with this worker's own arguments, to their end.

    What a rank failed with is raised here; a signal ends this process as it ended them.
    """
    prefix = f"training-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_scratch(setting)) as scratch:
        own = [*sys.argv[sys.argv.index("training") + 1 :], "--scratch", scratch]
        command = ["-m", "selfimprove_pipeline", "worker", "rank", *own]
        ended = launch.launch(
            command,
            processes=devices.ranks(devices.usable_gpus()),
            nodes=nodes.nodes_of(os.environ),
        )
    if ended.code > TERMINATED_FROM:
        raise SystemExit(ended.code)
    if ended.code:
        raise error_of(ended.code, ended.line)


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
