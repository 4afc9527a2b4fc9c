"""Fixtures with each kind of store; test modules load them as `pytest_plugins`.

S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY name an S3 server to test against, such as MinIO;
without them moto's server runs in this process.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from selfimprove_pipeline.store import Store
from selfimprove_pipeline.store.folder import FolderStore
from support.s3 import Server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """Give the server that S3_ENDPOINT names, else moto's."""
    if endpoint := os.environ.get("S3_ENDPOINT"):
        server = Server(endpoint, os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"])
        yield server
        server.remove_buckets()
        return
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield Server(f"http://{host}:{port}", "access-key-of-tests", "secret-key-of-tests")
    moto.stop()


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
