"""A hub with one model, as its client asks for it: in a thread here, or a pod of a cluster.

As a program it serves a model folder of a store: `hub_server.py NAME COMMIT URI PORT`. It needs
nothing but what the light image has.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from typing_extensions import override

BRANCH: Final = "main"


@dataclass(frozen=True)
class Hub:
    """One model at one commit, which its branch `main` is at."""

    name: str
    commit: str
    files: Mapping[str, bytes]

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body for a path without its query."""
        head, _, rest = path.partition(self.name)
        match head, *rest.strip("/").split("/", 2):
            case "/api/models/", "":
                return self._told(self._info)
            case "/api/models/", "revision", revision if self._has(revision):
                return self._told(self._info)
            case "/api/models/", "tree", revision if self._has(revision):
                return self._told(self._tree)
            case "/", "resolve", revision, file if self._has(revision) and file in self.files:
                return self._file(file)
            case _, _, revision, *_ if not self._has(revision):
                return self._refused("RevisionNotFound")
            case "/", "resolve", *_:
                return self._refused("EntryNotFound")
        return self._refused("RepoNotFound")

    def _has(self, revision: str) -> bool:
        return revision in (BRANCH, self.commit)

    @property
    def _info(self) -> Any:
        siblings = [{"rfilename": name} for name in self.files]
        return {"id": self.name, "sha": self.commit, "siblings": siblings}

    @property
    def _tree(self) -> Any:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}
            for name, content in self.files.items()
        ]

    def _told(self, value: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"content-type": "application/json"}, json.dumps(value).encode()

    def _file(self, name: str) -> tuple[int, dict[str, str], bytes]:
        content = self.files[name]
        return 200, {"x-repo-commit": self.commit, "etag": f'"{_digest(content)}"'}, content

    def _refused(self, code: str) -> tuple[int, dict[str, str], bytes]:
        return 404, {"x-error-code": code}, b""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def server(hub: Hub, address: tuple[str, int]) -> ThreadingHTTPServer:
    """Return a server of a hub that listens and does not yet answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(self._head())

        def do_HEAD(self) -> None:
            self._head()

        def _head(self) -> bytes:
            status, headers, body = hub.answer(unquote(urlsplit(self.path).path))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            return body

        @override
        def log_message(self, *_: object) -> None:
            """Keep the tests' output free of requests."""

    return ThreadingHTTPServer(address, Handler)


@contextmanager
def running(hub: Hub) -> Iterator[str]:
    """Run a hub on this machine and give its endpoint."""
    made = server(hub, ("127.0.0.1", 0))
    Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}"
    finally:
        made.shutdown()
        made.server_close()


def _main(name: str, commit: str, uri: str, port: str) -> None:
    from selfimprove_pipeline.contract.recipe import Storage  # noqa: PLC0415  in a pod alone
    from selfimprove_pipeline.store import open_store  # noqa: PLC0415  likewise

    store = open_store(Storage(bucket="unused"), folder=None, environment=os.environ)
    entries = store.entries(f"{uri}/")
    files = {e.uri.removeprefix(f"{uri}/"): store.read(e.uri) or b"" for e in entries}
    server(Hub(name, commit, files), ("", int(port))).serve_forever()


if __name__ == "__main__":
    _main(*sys.argv[1:])
