"""A process that is tied to its parent ends when the parent is killed."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG exists on Linux alone")

PARENT = """
import os, subprocess, sys, time
from functools import partial
from selfimprove_pipeline.machine.lifeline import die_with_parent

tie = partial(die_with_parent, os.getpid()) if sys.argv[1] == "tied" else None
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleep, preexec_fn=tie)
print(child.pid, flush=True)
time.sleep(600)
"""


@linux
@pytest.mark.parametrize("tie", ["tied", "untied"])
def test_a_tied_child_ends_with_its_killed_parent(tie: str) -> None:
    """Killing the parent ends the child; without the tie this child would notice nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tie],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([child], timeout=60 if tie == "tied" else 0)
    assert bool(alive) == (tie == "untied")
    for left in alive:
        left.kill()


@linux
def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    """The parent may die between starting the child and the child's request to the kernel."""
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "from selfimprove_pipeline.machine import lifeline; lifeline.die_with_parent(-1)",
        ],
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL


@linux
def test_a_child_of_a_living_parent_goes_on() -> None:
    """The tie alone ends nothing."""
    code = (
        "from selfimprove_pipeline.machine.lifeline import die_with_parent as d; d({}); print('on')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code.format(os.getpid())], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "on\n"
