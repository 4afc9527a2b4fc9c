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

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.manifests import Index
from selfimprove_pipeline.contract.recipe import Model
from selfimprove_pipeline.store import hub
from support.hub_server import Hub, running
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
        with pytest.raises(InputError, match=r"check the name and the revision, .* HF_TOKEN"):
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


@pytest.fixture
def model(online: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Give the URI of a small model on a hub of this machine, and its client an empty cache."""
    with running(Hub("owner/model", COMMIT, FILES)) as endpoint:
        online.setattr(constants, "ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        online.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        online.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        yield "hf://owner/model"


def test_names_and_small_files_are_read_without_a_download(model: str) -> None:
    """The check of a model costs its configuration, not its weights."""
    assert hub.names(model, COMMIT) == ("config.json", "model.safetensors")
    assert hub.read(model, COMMIT, "config.json") == FILES["config.json"]


def test_a_download_has_the_files_of_a_model_alone(model: str) -> None:
    """And its weights once: not in Mistral's format too, which vLLM would prefer.

    The branch is the commit that it is now.
    """
    assert hub.commit(model, None) == COMMIT
    folder = hub.download(model, COMMIT)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in ("config.json", "model.safetensors")
    }


@pytest.mark.parametrize(
    ("uri", "revision"), [("hf://owner/other", None), ("hf://owner/model", "dev")]
)
@pytest.mark.usefixtures("model")
def test_a_model_or_a_branch_that_is_not_there_is_wrong_input(
    uri: str, revision: str | None
) -> None:
    """The hub says which of them it lacks, and the line names both."""
    with pytest.raises(InputError, match=rf"cannot download {uri}.*, the hub says \w+NotFound"):
        hub.commit(uri, revision)
