"""Machines that train together: one model, one store, and no rank that outlives the others."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.train.processes.nodes import Nodes, nodes_of
from support.cli import wait_for
from support.training import some_pairs, tied_qwen2, training_environment, write_pairs

pytestmark = pytest.mark.training

NODE = Path(__file__).with_name("node.py")
PATIENCE = 400


def environment_of(count: int, rendezvous: str, number: int = 0) -> dict[str, str]:
    """Return what an Indexed Job tells its pods."""
    return {
        "SELFIMPROVE_NODES": str(count),
        "SELFIMPROVE_RENDEZVOUS": rendezvous,
        "SELFIMPROVE_RENDEZVOUS_ID": "job",
        "JOB_COMPLETION_INDEX": str(number),
    }


def start(folder: Path, processes: int, job: dict[str, str]) -> subprocess.Popen[str]:
    """Start one machine in a session of its own; its log lies in the folder."""
    with (folder / f"log-{job['JOB_COMPLETION_INDEX']}.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, str(NODE), str(folder), str(processes)],
            env={**training_environment(), **job},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


@contextmanager
def machines(folder: Path, count: int, processes: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start what each of several pods of one Job would start, on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    job = environment_of(count, f"127.0.0.1:{port}")
    started = [
        start(folder, processes, {**job, "JOB_COMPLETION_INDEX": str(number)})
        for number in range(count)
    ]
    try:
        yield started
    finally:
        for one in started:
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)


def ended(started: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Return exit code and last words of each machine."""
    outputs = [one.communicate(timeout=PATIENCE)[0] for one in started]
    return [(one.returncode, text.strip()) for one, text in zip(started, outputs, strict=True)]


def world(folder: Path) -> Path:
    """Return a folder with a model, pairs and an empty store."""
    folder.mkdir()
    tied_qwen2(folder / "M0")
    write_pairs(folder / "pairs.jsonl", some_pairs(40, seed=1))
    return folder


def trained(folder: Path) -> str:
    """Return the digest of the model that a training has committed."""
    path = folder / "store" / "runs" / "artifacts" / "train" / ("0" * 32) / "manifest.json"
    return Manifest.of_line(path.read_bytes()).digest


def checkpoint(folder: Path) -> Path:
    """Return where the manifest of step 2 appears when the checkpoint is whole."""
    train = folder / "store" / "runs" / "artifacts" / "train" / ("0" * 32)
    return train / "checkpoints" / "2" / "manifest.json"


def test_two_machines_train_what_one_with_two_ranks_trains(tmp_path: Path) -> None:
    """Also after one of them was killed: both end, and go on from the checkpoint of both.

    A checkpoint holds the optimizer's parts of all machines, and each machine fetches them all.
    """
    alone, both = world(tmp_path / "alone"), world(tmp_path / "both")
    with machines(alone, 1, processes=2) as started:
        assert ended(started) == [(0, "")]

    (both / "held").touch()
    with machines(both, 2, processes=1) as started:
        wait_for((both / "steps").exists, started[0], "a step")
        wait_for(lambda: "4" in (both / "steps").read_text(), started[0], "step 4")
        assert checkpoint(both).exists()
        files = list(checkpoint(both).parent.rglob("*optim_states.pt"))
        assert len(files) == 2
        os.killpg(started[1].pid, signal.SIGKILL)
        (both / "held").unlink()
        codes = [code for code, _ in ended(started)]
        assert codes[0] not in (0, 2)
        assert codes[1] == -signal.SIGKILL

    (both / "steps").unlink()
    with machines(both, 2, processes=1) as started:
        assert ended(started) == [(0, ""), (0, "")]
    assert (both / "steps").read_text().split() == ["3", "4", "5"]
    assert trained(both) == trained(alone)


def test_the_machine_that_fails_says_why_and_the_other_ends_when_it_is_told(
    tmp_path: Path,
) -> None:
    """Wrong input on all ranks: each machine's exit code is 2, though torchrun's is 1."""
    folder = world(tmp_path / "none")
    write_pairs(folder / "pairs.jsonl", ())
    with machines(folder, 2, processes=1) as started:
        found = ended(started)
    assert {code for code, _ in found} == {2}
    assert all("expected pairs to train on" in line for _, line in found)


def test_a_machine_that_waits_for_the_first_one_ends_by_sigterm() -> None:
    """The pod of the first machine may never start; the others hold nothing up."""
    environment = {**training_environment(), **environment_of(2, "127.0.0.1:9", number=1)}
    program = (
        "import os, signal, sys\n"
        "from selfimprove_pipeline.train.processes import launch, nodes\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "print('waits', flush=True)\n"
        "launch.launch([], processes=1, nodes=nodes.nodes_of(os.environ))\n"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waits\n"
    waiting.terminate()
    waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 143


@pytest.mark.parametrize(
    ("first", "own"),
    [
        pytest.param("m-0-train-2-0.m-0-train-2", "m-0-train-2-1.m-0-train-2", id="pods of a Job"),
        pytest.param("m-0-ranks-0-0.m-0", "m-0-ranks-0-1.m-0", id="pods of a JobSet"),
        pytest.param("127.0.0.1", "127.0.0.1", id="the loopback"),
    ],
)
def test_a_machine_knows_its_name_for_the_others(first: str, own: str) -> None:
    """Torchrun orders the ranks by these names, so the first pod's rank is 0."""
    found = nodes_of(environment_of(2, f"{first}:29500", number=1))
    assert found is not None
    assert (found.host, found.own_host) == (first, own)
    assert f"--rdzv-endpoint={first}:29500" in found.torchrun()


def test_one_machine_needs_no_rendezvous() -> None:
    """Without the variables, and with one node, torchrun stays on the loopback."""
    assert nodes_of({}) is None
    assert nodes_of({"SELFIMPROVE_NODES": "1", "JOB_COMPLETION_INDEX": "0"}) is None
    assert Nodes(2, 0, "job-0.job", 29500, "job").own_host == "job-0.job"
