"""A scripted OpenAI-compatible endpoint on the loopback device, served by real HTTP."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

MODEL = "translator"


@dataclass(frozen=True)
class Asked:
    """One request as the endpoint got it; `number` counts from 1."""

    number: int
    path: str
    headers: Mapping[str, str]
    """headers with their names in lower case."""
    body: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The passage that stands in the last turn."""
        content = str(self.body["messages"][-1]["content"])
        return content.partition("<sentence>\n")[2].partition("\n</sentence>")[0]


@dataclass(frozen=True)
class Reply:
    """What the endpoint answers."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    """contentType, None for that of the body: a page for text, else JSON."""
    is_cut: bool = False
    """isCut ends the connection in the middle of the body."""


Script = Callable[[Asked], Reply]


def chat(content: str | None, finish_reason: str = "stop") -> Reply:
    """Return a chat completion of 7 prompt and 5 completion tokens."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL}
    return Reply(200, {**body, "choices": [choice], "usage": usage})


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    """Return an error as such endpoints write it."""
    error = {"message": message, "type": "error", "param": None, "code": code}
    return Reply(status, {"error": error}, {k.replace("_", "-"): v for k, v in headers.items()})


@dataclass
class Endpoint:
    """The running endpoint: its address, and everything that it was asked."""

    script: Script
    base_url: str = ""
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> Reply:
        """Answer one request by the script, outside the lock."""
        with self._lock:
            asked = Asked(len(self.asked) + 1, path, headers, body)
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.script(asked)
        finally:
            with self._lock:
                self._at_once -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    endpoint: Endpoint


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.endpoint.reply(self.path, headers, body)
        is_text = isinstance(reply.body, str)
        data = reply.body.encode() if is_text else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        kind = reply.content_type or ("text/html" if is_text else "application/json")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if reply.is_cut else data)
        self.close_connection = reply.is_cut

    @override
    def log_message(self, *_: object) -> None:
        """Say nothing: pytest shows what went wrong."""


@contextmanager
def serving(script: Script) -> Iterator[Endpoint]:
    """Give an endpoint that answers by the script until the end of the block."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.endpoint = Endpoint(script, f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.endpoint
        finally:
            server.shutdown()
            thread.join()
