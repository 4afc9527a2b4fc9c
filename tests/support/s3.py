"""A real S3 server for tests, and a proxy that disturbs what passes between it and a store.

`stores` makes fixtures of it. The proxy is where tests of broken networks break them: it
answers with a fault where its rule says so, and otherwise passes everything on as it is.
"""

import socket
import ssl
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from minio import Minio
from typing_extensions import override

from selfimprove_pipeline.contract.recipe import Storage
from selfimprove_pipeline.store.s3 import S3Store, connect


@dataclass(frozen=True)
class Server:
    """Where an S3 server answers, and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str
    buckets: list[str] = field(default_factory=list)
    """buckets that these tests made, and that they alone may remove."""

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables with which a store connects."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**keys, "AWS_ENDPOINT_URL": self.endpoint, **more}

    def store(self, endpoint: str | None = None, **environment: str) -> S3Store:
        """Return a store on this server, or on it through another endpoint."""
        storage = Storage(bucket="unused", endpoint=endpoint)
        return connect(storage, self.environment(**environment))

    def make_bucket(self) -> str:
        """Return the name of a new bucket."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self._client().make_bucket(name)
        self.buckets.append(name)
        return name

    def remove_buckets(self) -> None:
        """Remove the buckets made here; the server may be shared and holds others."""
        client = self._client()
        for name in self.buckets:
            uris = [entry.uri for entry in self.store().entries(f"s3://{name}/")]
            self.store().delete(uris)
            client.remove_bucket(name)

    def _client(self) -> Minio:
        address = urlsplit(self.endpoint)
        secure = address.scheme == "https"
        return Minio(address.netloc, self.access_key, self.secret_key, secure=secure)


def closed_endpoint() -> str:
    """Return an endpoint on this machine where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@dataclass(frozen=True)
class Fault:
    """What the proxy does instead of passing an answer on."""

    status: int | None = None
    """status to answer with at once."""
    body: str = ""
    """body of that answer, in XML."""
    cut_after: int | None = None
    """cutAfter that many bytes of the body, end the connection."""


@dataclass
class Proxy:
    """A proxy whose rule sees each request before the server does."""

    endpoint: str = ""
    rule: Callable[[str, str, dict[str, str]], Fault | None] = lambda *_: None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def proxy(server: Server, *, certificate: Path | None = None) -> Iterator[Proxy]:
    """Run a proxy to a server; with a certificate and its key in one PEM file it speaks TLS."""
    state = Proxy()
    handler = type("Handler", (_Handler,), {"state": state, "upstream": server.endpoint})
    listener = _Listener(("127.0.0.1", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
    scheme = "https" if certificate else "http"
    state.endpoint = f"{scheme}://127.0.0.1:{listener.server_address[1]}"
    thread = Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def make_certificate(path: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1 and its key to one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients of these tests hang up on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Proxy
    upstream: str

    def _pass_on(self) -> None:
        asked = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(asked.get("content-length", "0")))
        self.state.requests.append((self.command, self.path, asked))
        fault = self.state.rule(self.command, self.path, asked) or Fault()
        if fault.status is not None:
            headers = [("content-type", "application/xml")] if fault.body else []
            self._answer(fault.status, headers, fault.body.encode())
            return
        address = urlsplit(self.upstream)
        connection = HTTPConnection(address.hostname or "", address.port or 80)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        self._answer(response.status, response.getheaders(), response.read(), fault.cut_after)
        connection.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, cut: int | None = None
    ) -> None:
        self.send_response_only(status)
        passed = {name.lower(): value for name, value in headers}
        passed.pop("transfer-encoding", None)
        passed.pop("connection", None)
        if self.command != "HEAD":
            passed["content-length"] = str(len(body))
        for name, value in passed.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = cut is not None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - http.server's names

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output free of requests."""
