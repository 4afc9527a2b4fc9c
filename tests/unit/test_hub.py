"""The door to the hub, against a scripted one on this machine."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants
from typing_extensions import override

from selfimprove_pipeline import hub
from selfimprove_pipeline.artifacts import Index
from selfimprove_pipeline.errors import InputError, TryAgainError
from selfimprove_pipeline.recipe import Model
from support.s3 import closed_endpoint

COMMIT = "5" * 40


@contextmanager
def scripted_hub(status: int) -> Iterator[str]:
    """Answer every request with one status, and with a model of one commit where that is 200."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"id": "owner/model", "sha": COMMIT}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *_: object) -> None:
            """Keep the tests' output free of requests."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the hub's client go online; its settings are read when it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return monkeypatch


def test_a_branch_is_resolved_to_its_commit(online: pytest.MonkeyPatch) -> None:
    """The run records what the branch was when it began."""
    with scripted_hub(200) as endpoint:
        online.setattr(constants, "ENDPOINT", endpoint)
        assert hub.commit("hf://owner/model", "main") == COMMIT


def index(requested: str | None, commit: str) -> Index:
    recipe = {"model": {"uri": "hf://owner/model"}}
    return Index(
        name="run",
        outcome="Running",
        recipe=recipe,
        requested_revision=requested,
        model_revision=commit,
    )


def test_a_run_keeps_the_commit_that_its_branch_had_when_it_began() -> None:
    """A branch that has moved since, or a hub that is down, changes nothing."""
    began = index("main", "1" * 40)

    assert hub.pinned(Model(uri="hf://owner/model", revision="main"), began) == "1" * 40
    assert hub.pinned(Model(uri="hf://owner/model", revision="2" * 40), began) == "2" * 40
    assert hub.pinned(Model(uri="s3://models/m0"), began) is None


def test_another_branch_is_resolved_anew(online: pytest.MonkeyPatch) -> None:
    """The commit that the run began with was that of the other branch."""
    with scripted_hub(200) as endpoint:
        online.setattr(constants, "ENDPOINT", endpoint)
        model = Model(uri="hf://owner/model", revision="dev")
        assert hub.pinned(model, index("main", "1" * 40)) == COMMIT


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_model_is_wrong_input(status: int, online: pytest.MonkeyPatch) -> None:
    """Trying again changes nothing; the line names what to check."""
    with scripted_hub(status) as endpoint:
        online.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(InputError, match="check the name, the revision and HF_TOKEN"):
            hub.commit("hf://owner/model", None)


def test_a_hub_that_does_not_answer_is_tried_again_later(online: pytest.MonkeyPatch) -> None:
    """A closed port, and being told to stay offline."""
    online.setattr(constants, "ENDPOINT", closed_endpoint())
    with pytest.raises(TryAgainError, match="the hub did not answer"):
        hub.commit("hf://owner/model", None)
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TryAgainError, match="the hub did not answer"):
        hub.download("hf://owner/model", COMMIT)


FILES = {
    "config.json": b'{"model_type": "qwen2"}',
    "consolidated.safetensors": b"the same weights again",
    "consolidated-00001-of-00002.safetensors": b"and again",
    "model.safetensors": b"weights",
    "notes.txt": b"no part of a model",
}


@contextmanager
def hub_with_files() -> Iterator[str]:
    """Answer as a hub with one small model."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                for path, content in FILES.items()
            ]
            siblings = [{"rfilename": path} for path in FILES]
            model = {"id": "owner/model", "sha": COMMIT, "siblings": siblings}
            index = listed if "/tree/" in self.path else model
            body = FILES.get(name, json.dumps(index).encode())
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.send_header("x-repo-commit", COMMIT)
            self.send_header("etag", f'"{name}"')
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        @override
        def log_message(self, *_: object) -> None:
            """Keep the tests' output free of requests."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def reached(online: pytest.MonkeyPatch, cache: Path) -> Iterator[None]:
    """Let the hub's client go to the scripted one, with a cache of its own."""
    with hub_with_files() as endpoint:
        online.setattr(constants, "ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        online.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        online.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield


def test_names_and_small_files_are_read_without_a_download(
    online: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The check of a model costs its configuration, not its weights."""
    with reached(online, tmp_path):
        assert hub.names("hf://owner/model", COMMIT) == ("config.json", "model.safetensors")
        assert hub.read("hf://owner/model", COMMIT, "config.json") == FILES["config.json"]


def test_weights_are_downloaded_once(online: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not in Mistral's format as well, which is as large and which vLLM would prefer."""
    with reached(online, tmp_path):
        folder = hub.download("hf://owner/model", COMMIT)

    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
