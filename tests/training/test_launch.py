"""The launcher's exit code is that of the rank that failed, and no rank outlives it."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfimprove_pipeline.train.processes.launch import PARENT, Outcome, launch
from support.training import training_environment

pytestmark = pytest.mark.training

RANK = """
import os, signal, sys
from pathlib import Path
from selfimprove_pipeline.contract import errors
from selfimprove_pipeline.train.processes.launch import PARENT, worker

folder, what = Path(sys.argv[1]), sys.argv[2]
with worker():
    number = os.environ["RANK"]
    if what == "succeed":
        assert int(os.environ[PARENT]) == os.getppid()
        (folder / f"rank-{number}").write_text(os.environ["WORLD_SIZE"])
    elif number == "1" or what == "wait":
        with open(folder / "started", "w") as started:
            started.write(f"{os.getpid()}\\n")
        signal.pause()
    else:
        (folder / "started").read_text()
        raise {"input": errors.InputError, "again": errors.TryAgainError, "defect": KeyError}[what](
            "expected this,\\nfound that"
        )
"""


def _script(folder: Path) -> list[str]:
    file = folder / "rank.py"
    file.write_text(RANK)
    os.mkfifo(folder / "started")
    return [str(file), str(folder)]


def test_ranks_run_to_their_end(tmp_path: Path) -> None:
    """Two ranks know their number, that they are two, and their parent."""
    outcome = launch(
        [*_script(tmp_path), "succeed"], processes=2, environment=training_environment()
    )
    assert outcome == Outcome(0, "")
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


@pytest.mark.parametrize(
    ("what", "code", "line"),
    [
        ("input", 2, "expected this, found that"),
        ("again", 75, "expected this, found that"),
        ("defect", 1, "KeyError: 'expected this,\\nfound that'"),
    ],
)
def test_failing_rank_says_why(tmp_path: Path, what: str, code: int, line: str) -> None:
    """Its code and one line come back though torchrun always ends with 1; the other rank ends."""
    outcome = launch([*_script(tmp_path), what], processes=2, environment=training_environment())
    assert outcome == Outcome(code, line)


STARTER = """
import sys
from selfimprove_pipeline.train.processes.launch import launch
sys.exit(launch(sys.argv[1:], processes=1).code)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_signal_ends_parent_and_ranks(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """SIGTERM and SIGINT go on to the ranks; SIGKILL takes them along."""
    script = _script(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTER, *script, "wait"], env=training_environment()
    )
    with (tmp_path / "started").open() as started:
        rank = os.pidfd_open(int(started.readline()))
    parent.send_signal(number)
    assert parent.wait(timeout=300) == code
    _wait_for_end(rank)


ORPHAN = (
    "from selfimprove_pipeline.train.processes.launch import worker\nwith worker(): print('on')"
)


@pytest.mark.parametrize(("parent", "code", "output"), [(0, 0, "on\n"), (1, -9, "")])
def test_rank_without_its_torchrun_ends_before_it_works(
    parent: int, code: int, output: str
) -> None:
    """A rank may lose its parent while it still imports; whoever adopts it is another process."""
    environment = {**training_environment(), PARENT: str(parent or os.getpid())}
    found = subprocess.run(
        [sys.executable, "-c", ORPHAN],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (found.returncode, found.stdout) == (code, output)


def _wait_for_end(process: int) -> None:
    """Return when a process that is not our child has ended; a pidfd becomes readable then."""
    readable, _, _ = select.select([process], [], [], 300)
    os.close(process)
    assert readable
