"""A judge that is a real model behind a real server: `vllm serve` of the miniature's M0.

It has never seen such a question, so it proves the path and the counting and not its taste.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.cli import MINIATURE, Cli, wait_for

pytestmark = pytest.mark.e2e

LANGUAGES = ("en", "es")
ROWS = 6


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the process and the address of an OpenAI-compatible server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/v1"
    serve = ("-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1", f"--port={port}")
    model = (f"--model={MINIATURE / 'm0'}", "--served-model-name=m0", "--dtype=float32")
    with (tmp_path / "judge.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *serve, *model, "--enforce-eager"],
            stdout=log,
            stderr=log,
            text=True,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
        try:
            wait_for(lambda: _is_ready(address), process, "the judge to listen")
            yield process, address
        finally:
            _end(process)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/models").is_success
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _references(folder: Path) -> Path:
    """Write rows of the miniature's suite in alpaca-eval's format, each answer said twice.

    Answers that are equal, as M0's English ones would be to the right ones, ask no judge.
    """
    folder.mkdir()
    for language in LANGUAGES:
        lines = (MINIATURE / "suite" / f"{language}.jsonl").read_text().splitlines()[:ROWS]
        rows = [json.loads(line) for line in lines]
        made = [
            {"id": row["id"], "instruction": row["prompt"], "output": 2 * f"{row['answer']} "}
            for row in rows
        ]
        (folder / f"{language}.json").write_text(json.dumps(made))
    return folder


def test_a_served_model_judges_and_is_asked_once(
    tmp_path: Path, judge: tuple[subprocess.Popen[str], str]
) -> None:
    """Each question is answered and counted; with the judge gone the same numbers come back."""
    server, address = judge
    cli = Cli(tmp_path / "store", tmp_path / "cache")
    command = [
        *("evaluate", str(MINIATURE / "m0"), "--languages", ",".join(LANGUAGES)),
        *("--suite", f"xAlpacaEval={_references(tmp_path / 'alpaca')}"),
        *("--judge-url", address, "--judge-model", "m0", "--set=generation.maxTokens=32"),
        *("--store", str(cli.store), "--engine", cli.engine, "--out"),
    ]
    first = cli(*command, str(tmp_path / "first"))
    assert first.code == 0, first.errors
    _end(server)
    second = cli(*command, str(tmp_path / "second"))
    assert second.code == 0, second.errors

    pages = [(tmp_path / name / "evaluation.json").read_bytes() for name in ("first", "second")]
    assert pages[0] == pages[1]
    manifests = [json.loads(path.read_text()) for path in cli.store.rglob("judge/*/manifest.json")]
    assert sorted(manifest["part"] for manifest in manifests) == [
        f"xAlpacaEval.{language}" for language in LANGUAGES
    ]
    for counts in (manifest["counts"] for manifest in manifests):
        assert counts["questions"] == 2 * (ROWS - counts["byRule"]) > 0
        assert counts["promptTokens"] > counts["completionTokens"] > 0
        assert counts["judged"] >= counts["byRule"]
    written = json.loads((tmp_path / "first/alpaca-eval/xAlpacaEval/es.json").read_text())
    assert [set(row) >= {"instruction", "output", "generator"} for row in written] == [True] * ROWS
    told = json.loads((tmp_path / "first/alpaca-eval/xAlpacaEval/es.annotations.json").read_text())
    judged = next(m["counts"]["judged"] for m in manifests if m["part"] == "xAlpacaEval.es")
    assert [row["annotator"] for row in told] == ["m0"] * judged
