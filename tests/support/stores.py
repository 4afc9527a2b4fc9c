"""Fixtures with each kind of store, for all tests (`pytest_plugins` of the conftest).

S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY name an S3 server to test against, such as MinIO;
without them moto's server is started.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL

import pytest

from selfimprove_pipeline.store import Store
from selfimprove_pipeline.store.folder import FolderStore
from support.s3 import Server, closed_endpoint


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """Give the server that S3_ENDPOINT names, else moto's."""
    if endpoint := os.environ.get("S3_ENDPOINT"):
        server = Server(endpoint, os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"])
        yield server
        server.remove_buckets()
        return
    # In a process of its own: flask, on which moto stands, and vLLM do not get on in one.
    endpoint = closed_endpoint()
    port = endpoint.rsplit(":", 1)[1]
    moto = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", port], stdout=DEVNULL, stderr=DEVNULL
    )
    wait_until_answered(endpoint, moto)
    yield Server(endpoint, "access-key-of-tests", "secret-key-of-tests")
    moto.kill()
    moto.wait()


def wait_until_answered(endpoint: str, process: "subprocess.Popen[bytes]") -> None:
    """Return once a server that has just been started accepts connections."""
    host, port = endpoint.removeprefix("http://").split(":")
    while process.poll() is None:
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    message = f"expected moto's server on {endpoint}, found that it ended: {process.returncode}"
    raise AssertionError(message)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Give each implementation of `Store` in turn."""
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    server: Server = request.getfixturevalue("s3_server")
    return server.store()


@pytest.fixture
def bucket(store: Store, request: pytest.FixtureRequest) -> str:
    """Give the name of an empty bucket of the store."""
    if isinstance(store, FolderStore):
        return "bucket"
    server: Server = request.getfixturevalue("s3_server")
    return server.make_bucket()
