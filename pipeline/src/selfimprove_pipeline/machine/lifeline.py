"""Ties a process to its parent, so that no worker outlives a killed run.

A worker that is left behind keeps its GPU's memory and its part of the node until someone looks.
Linux ends a child with its parent on request; elsewhere there is no such request and nothing
happens. Neighbours: `engine.vllm_worker` for the workers of vLLM, and whoever starts a process.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1

# Loaded at import: a preexec_fn runs after fork, where taking the loader's lock may never return.
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as `parent`, the id of its parent, is gone.

    For `preexec_fn=partial(die_with_parent, os.getpid())`, or called first thing in the child.
    The kernel watches the thread that started the child: start it from one that stays. A parent
    that is gone already ends this process at once.
    """
    if _libc is None:
        return
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
