"""What the kubelet and Prometheus get over HTTP, and what the process writes as its log."""

import asyncio
import io
import json
import logging
import socket
from collections.abc import Iterator

import aiohttp
import pytest

from selfimprove_operator.process import logs
from selfimprove_operator.process.metrics import Metrics
from selfimprove_operator.process.server import serving


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


def asked(path: str, *, live: str | None = None) -> tuple[int, str]:
    """Ask a real server, which reports `live` as its problem."""

    async def main() -> tuple[int, str]:
        metrics = Metrics()
        metrics.called("get", "jobs", "200")
        port = free_port()
        server = serving(port, metrics, live=lambda: live)
        async with server, aiohttp.ClientSession() as session:
            answer = await session.get(f"http://127.0.0.1:{port}{path}")
            return answer.status, await answer.text()

    return asyncio.run(main())


def test_prometheus_gets_the_metrics() -> None:
    """`/metrics` is the text of the registry."""
    status, text = asked("/metrics")

    assert status == 200
    assert 'selfimprove_api_calls_total{code="200",resource="jobs",verb="get"} 1.0' in text


@pytest.mark.parametrize(
    ("path", "live", "answer"),
    [
        pytest.param("/healthz", None, (200, "ok"), id="live"),
        pytest.param("/healthz", "watch lost", (503, "watch lost"), id="not live"),
        pytest.param("/readyz", "watch lost", (200, "ok"), id="ready, not live"),
    ],
)
def test_a_probe_says_what_is_wrong(path: str, live: str | None, answer: tuple[int, str]) -> None:
    """The kubelet acts on the status, a person reads the reason."""
    assert asked(path, live=live) == answer


def test_nothing_else_is_served() -> None:
    """An unknown path is not found."""
    assert asked("/debug")[0] == 404


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Give the root logger back as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    libraries = {name: logging.getLogger(name).level for name in logs.QUIET}
    yield logger
    logger.handlers[:], logger.level = handlers, level
    for name, before in libraries.items():
        logging.getLogger(name).setLevel(before)


def lines(stream: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_log_line_is_json_with_its_run(root: logging.Logger) -> None:
    """Run, namespace and stage are fields where they are given; nothing else of a record is."""
    stream = io.StringIO()
    logs.configure("info", stream)

    about = {"run": "test", "namespace": "default", "stage": "train", "token": "not to be seen"}
    root.getChild("x").info("launched %s\nagain", "it", extra=about)
    root.debug("not at this level")

    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "x",
        "message": "launched it\nagain",
        "namespace": "default",
        "run": "test",
        "stage": "train",
    }


def test_a_traceback_stays_on_its_line(root: logging.Logger) -> None:
    """A defect is one line as well, with its traceback in a field."""
    stream = io.StringIO()
    logs.configure("info", stream)

    try:
        int("a defect")
    except ValueError:
        root.exception("failed")

    (line,) = lines(stream)
    assert line["message"] == "failed"
    assert line["exception"].endswith("base 10: 'a defect'")


def test_libraries_are_heard_from_warnings_on(root: logging.Logger) -> None:
    """As kopf tells of every object at the level info; none of it is ours to repeat."""
    stream = io.StringIO()
    logs.configure("debug", stream)

    logging.getLogger("kopf.objects").info("handled")
    logging.getLogger("kopf.objects").warning("odd")
    root.debug("ours")

    assert [line["message"] for line in lines(stream)] == ["odd", "ours"]
