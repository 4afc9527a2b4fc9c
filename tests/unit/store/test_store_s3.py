"""What the S3 store does when the network, the server or the credentials are not well."""

import os
import secrets
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typing_extensions import override

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.recipe import Storage
from selfimprove_pipeline.store.s3 import RANGE, connect
from selfimprove_pipeline.store.s3.connection import client
from selfimprove_pipeline.store.s3.failures import refusal
from support.s3 import Fault, Proxy, Server, closed_endpoint, make_certificate, proxy

SECRET = "secret-that-must-not-be-seen"  # noqa: S105 - it opens nothing
SIZE = 40 << 20
TOKENS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>exchanged-key</AccessKeyId>
<SecretAccessKey>exchanged-secret</SecretAccessKey><SessionToken>session</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


def ranges(state: Proxy) -> list[str]:
    """Return the ranges that were asked for, in order of arrival."""
    return [headers["range"] for method, _, headers in state.requests if "range" in headers]


def upload(server: Server, folder: Path) -> tuple[str, bytes]:
    """Return the URI and the content of a new object that takes three ranges."""
    content = secrets.token_bytes(SIZE)
    source = folder / "source"
    source.write_bytes(content)
    uri = f"s3://{server.make_bucket()}/large"
    server.store().upload(source, uri)
    return uri, content


def test_a_large_file_goes_up_in_parts(s3_server: Server, tmp_path: Path) -> None:
    """40 MiB make three parts, and three ranges on the way back."""
    uri = f"s3://{s3_server.make_bucket()}/large"
    (tmp_path / "source").write_bytes(secrets.token_bytes(SIZE))
    with proxy(s3_server) as state:
        store = s3_server.store(state.endpoint)
        store.upload(tmp_path / "source", uri)
        parts = [path for _, path, _ in state.requests if "partNumber=" in path]
        assert len(parts) == 3
        store.fetch(uri, tmp_path / "target")
        starts = sorted(int(value[6:].split("-")[0]) for value in ranges(state))
        assert starts == [0, RANGE, 2 * RANGE]
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_a_range_that_ends_short_is_taken_up(s3_server: Server, tmp_path: Path) -> None:
    """A connection that breaks in mid-range costs the rest of the range, and no byte is wrong."""
    uri, content = upload(s3_server, tmp_path)
    with proxy(s3_server) as state:
        # What is taken up ends where the range ends, so each range is cut once.
        state.rule = once_per(
            lambda headers: headers.get("range", "").partition("-")[2], Fault(cut_after=3_000_000)
        )
        s3_server.store(state.endpoint).fetch(uri, tmp_path / "target")
        asked = ranges(state)
    assert (tmp_path / "target").read_bytes() == content
    first = [value for value in asked if value.startswith("bytes=0-")]
    assert len(first) == 1, "what was read already is not read again"


def test_a_fetch_that_always_ends_short_gives_up(s3_server: Server, tmp_path: Path) -> None:
    """After some attempts it is to be tried later, and no file appears."""
    uri, _ = upload(s3_server, tmp_path)
    (tmp_path / "target").write_bytes(b"old")
    with proxy(s3_server) as state:
        state.rule = lambda method, *_: Fault(cut_after=0) if method == "GET" else None
        store = s3_server.store(state.endpoint)
        with pytest.raises(TryAgainError, match=uri):
            store.fetch(uri, tmp_path / "target")
        with pytest.raises(TryAgainError, match=uri):
            store.read(uri)
    assert (tmp_path / "target").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_an_object_that_changes_during_a_fetch_is_an_error(
    s3_server: Server, tmp_path: Path
) -> None:
    """Ranges of two versions never make one file."""
    uri, _ = upload(s3_server, tmp_path)
    with proxy(s3_server) as state:
        lock = threading.Lock()

        def change(_method: str, _path: str, headers: dict[str, str]) -> None:
            with lock:
                if headers.get("range") and len(ranges(state)) == 1:
                    (tmp_path / "other").write_bytes(bytes(SIZE))
                    s3_server.store().upload(tmp_path / "other", uri)

        state.rule = change
        with pytest.raises(TryAgainError, match="changed while it was fetched"):
            s3_server.store(state.endpoint).fetch(uri, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_server_is_asked_again(s3_server: Server, status: int) -> None:
    """Every kind of request survives a refusal that passes, POST included."""
    bucket = s3_server.make_bucket()
    with proxy(s3_server) as state:
        store = s3_server.store(state.endpoint)
        state.rule = once_per(lambda headers: headers["x-test"], Fault(status=status))
        store.write(f"s3://{bucket}/a", b"x")
        assert store.read(f"s3://{bucket}/a") == b"x"
        assert len(store.entries(f"s3://{bucket}/")) == 1
        store.delete([f"s3://{bucket}/a"])
        assert store.entries(f"s3://{bucket}/") == ()
        methods = [method for method, _, _ in state.requests]
    assert [methods.count(method) for method in ("PUT", "POST")] == [2, 2]


def test_a_server_that_stays_overloaded_is_to_be_tried_again(s3_server: Server) -> None:
    """Patience is bounded, and the message names status, endpoint and URI."""
    with proxy(s3_server) as state:
        state.rule = lambda *_: Fault(status=503)
        with pytest.raises(TryAgainError, match=rf"{state.endpoint} .*s3://bucket/key.*503"):
            s3_server.store(state.endpoint).read("s3://bucket/key")


def test_an_endpoint_that_nobody_answers_at_is_to_be_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The message names endpoint and reason; it and the log hold nothing of the credentials."""
    caplog.set_level("DEBUG")
    endpoint = closed_endpoint()
    store = Server(endpoint, "key", SECRET).store(AWS_SESSION_TOKEN="token-" + SECRET)
    (tmp_path / "file").write_bytes(b"x")
    for action in (
        lambda: store.upload(tmp_path / "file", "s3://bucket/key"),
        lambda: store.entries("s3://bucket/"),
    ):
        with pytest.raises(TryAgainError, match=rf"{endpoint} .*Connection refused") as caught:
            action()
        assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_an_unknown_host_is_to_be_tried_again() -> None:
    """A name that does not resolve may be a cluster's DNS that is starting."""
    store = Server("http://store.invalid:9000", "key", SECRET).store()
    with pytest.raises(TryAgainError, match=r"http://store\.invalid:9000"):
        store.read("s3://bucket/key")


def test_a_missing_bucket_is_for_the_user_to_create(s3_server: Server, tmp_path: Path) -> None:
    """Reading, writing and listing in a bucket that does not exist say so."""
    store = s3_server.store()
    (tmp_path / "file").write_bytes(b"x")
    for action in (
        lambda: store.read("s3://no-such-bucket-of-tests/key"),
        lambda: store.upload(tmp_path / "file", "s3://no-such-bucket-of-tests/key"),
        lambda: store.entries("s3://no-such-bucket-of-tests/"),
        lambda: store.delete(["s3://no-such-bucket-of-tests/key"]),
    ):
        with pytest.raises(InputError, match=r"no-such-bucket-of-tests.*create the bucket"):
            action()


def test_an_object_that_may_not_be_deleted_is_named(s3_server: Server) -> None:
    """A server refuses single objects inside an answer that is a success as a whole."""
    refused = "<Error><Key>locked</Key><Code>AccessDenied</Code></Error>"
    with proxy(s3_server) as state:
        state.rule = lambda *_: Fault(status=200, body=f"<DeleteResult>{refused}</DeleteResult>")
        with pytest.raises(InputError, match=r"s3://bucket/locked \(AccessDenied\)"):
            s3_server.store(state.endpoint).delete(["s3://bucket/free", "s3://bucket/locked"])


def test_an_upload_that_fails_at_its_end_is_to_be_tried_again(
    s3_server: Server, tmp_path: Path
) -> None:
    """The last request of an upload in parts may be answered 200 and hold an error."""
    (tmp_path / "source").write_bytes(bytes(SIZE))
    failed = Fault(status=200, body="<Error><Code>InternalError</Code></Error>")
    with proxy(s3_server) as state:
        state.rule = lambda method, path, _: (
            failed if method == "POST" and "uploadId=" in path else None
        )
        uri = f"s3://{s3_server.make_bucket()}/large"
        with pytest.raises(TryAgainError, match=uri):
            s3_server.store(state.endpoint).upload(tmp_path / "source", uri)


@pytest.mark.skipif("S3_ENDPOINT" not in os.environ, reason="moto takes any key: set S3_ENDPOINT")
def test_wrong_credentials_name_the_variable_and_not_its_value(s3_server: Server) -> None:
    """A wrong key and a wrong secret are told apart; neither is printed, in any traceback."""
    bucket = s3_server.make_bucket()
    wrong_key = Server(s3_server.endpoint, SECRET, s3_server.secret_key).store()
    wrong_secret = Server(s3_server.endpoint, s3_server.access_key, SECRET).store()
    for store, variable in (
        (wrong_key, "AWS_ACCESS_KEY_ID"),
        (wrong_secret, "AWS_SECRET_ACCESS_KEY"),
    ):
        with pytest.raises(InputError, match=f"correct {variable}") as caught:
            store.write(f"s3://{bucket}/key", b"x")
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", InputError),
        ("InvalidAccessKeyId", InputError),
        ("SignatureDoesNotMatch", InputError),
        ("SomethingNew", InputError),
        ("SlowDown", TryAgainError),
        ("InternalError", TryAgainError),
    ],
)
def test_a_refusal_is_one_line_with_what_to_do(code: str, kind: type[Exception]) -> None:
    """Refusals that stay are the user's, those that pass are to be tried again."""
    error = refusal(code, "http://store:9000", "s3://bucket/key")
    assert type(error) is kind
    assert "http://store:9000" in str(error)
    assert "s3://bucket/key" in str(error)
    assert "\n" not in str(error)


def test_a_private_authority_is_trusted_through_aws_ca_bundle(
    s3_server: Server, tmp_path: Path
) -> None:
    """TLS works with the authority's certificate; without it the message says how to name it."""
    bucket = s3_server.make_bucket()
    certificate = make_certificate(tmp_path / "tls.pem")
    with proxy(s3_server, certificate=certificate) as state:
        store = s3_server.store(state.endpoint, AWS_CA_BUNDLE=str(certificate))
        store.write(f"s3://{bucket}/key", b"x")
        assert store.read(f"s3://{bucket}/key") == b"x"
        with pytest.raises(InputError, match=r"trusted certificate.*AWS_CA_BUNDLE"):
            s3_server.store(state.endpoint).read(f"s3://{bucket}/key")


def test_http_and_https_taken_for_each_other_are_said(s3_server: Server) -> None:
    """`https://` to a plain port names the scheme to write."""
    with proxy(s3_server) as state:
        store = s3_server.store(state.endpoint.replace("http:", "https:"))
        with pytest.raises(InputError, match="write http://"):
            store.read("s3://bucket/key")


def test_a_bad_bundle_is_named(tmp_path: Path) -> None:
    """AWS_CA_BUNDLE that is absent or holds no certificate is refused at once."""
    (tmp_path / "empty.pem").write_text("no certificate")
    for name in ("absent.pem", "empty.pem"):
        with pytest.raises(InputError, match=f"AWS_CA_BUNDLE=.*{name}"):
            Server("https://store", "key", SECRET).store(AWS_CA_BUNDLE=str(tmp_path / name))


def test_another_server_than_s3_is_said() -> None:
    """A web page in the place of S3 leads to scheme and port, not to a parser's error."""
    with answering(lambda _: ("text/html", "<html><p>Hello</html>")) as endpoint:
        store = Server(endpoint, "key", SECRET).store()
        with pytest.raises(InputError, match=f"expected an S3 server at {endpoint}"):
            store.entries("s3://bucket/")


def test_half_a_pair_of_keys_is_refused() -> None:
    """One variable alone names the one that is there, so that the other can be added."""
    storage = Storage(bucket="runs", endpoint="http://store:9000")
    with pytest.raises(InputError, match="found AWS_ACCESS_KEY_ID alone"):
        connect(storage, {"AWS_ACCESS_KEY_ID": "key"})
    with pytest.raises(InputError, match="found AWS_SECRET_ACCESS_KEY alone") as caught:
        connect(storage, {"AWS_SECRET_ACCESS_KEY": SECRET})
    assert SECRET not in str(caught.value)


def test_no_credentials_name_every_way_to_give_them(tmp_path: Path) -> None:
    """Without keys, token and file the message lists the three; no metadata service is asked."""
    storage = Storage(bucket="runs", endpoint="http://store:9000")
    with pytest.raises(
        InputError, match=r"AWS_ACCESS_KEY_ID.*AWS_WEB_IDENTITY_TOKEN_FILE.*default"
    ):
        connect(storage, {"HOME": str(tmp_path)})


def test_the_shared_credentials_file_gives_keys_by_profile(
    s3_server: Server, tmp_path: Path
) -> None:
    """`~/.aws/credentials` or the file that is named, with the profile that is named."""
    uri = f"s3://{s3_server.make_bucket()}/key"
    path = tmp_path / ".aws" / "credentials"
    path.parent.mkdir()
    keys = f"aws_access_key_id = {s3_server.access_key}\naws_secret_access_key = "
    path.write_text(f"[default]\n{keys}x\n[team]\n{keys}{s3_server.secret_key}\n")
    storage = Storage(bucket="runs", endpoint=s3_server.endpoint)
    for where in ({"HOME": str(tmp_path)}, {"AWS_SHARED_CREDENTIALS_FILE": str(path)}):
        connect(storage, {"AWS_PROFILE": "team", **where}).write(uri, b"x")
    with pytest.raises(InputError, match="profile other of"):
        connect(storage, {"AWS_PROFILE": "other", "HOME": str(tmp_path)})


def test_a_line_feed_at_the_end_of_a_secret_does_no_harm(s3_server: Server) -> None:
    """Secrets made from files end in one, and no HTTP header may hold it."""
    environment = {
        "AWS_ACCESS_KEY_ID": f"{s3_server.access_key}\n",
        "AWS_SECRET_ACCESS_KEY": f"{s3_server.secret_key}\n",
        "AWS_ENDPOINT_URL": f"{s3_server.endpoint}/",
    }
    uri = f"s3://{s3_server.make_bucket()}/key"
    connect(Storage(bucket="runs"), environment).write(uri, b"x")


def test_a_web_identity_is_exchanged_for_keys(s3_server: Server, tmp_path: Path) -> None:
    """The token's file is read for the exchange; the request to the store carries the keys."""
    bucket = s3_server.make_bucket()
    (tmp_path / "token").write_text(SECRET)
    seen: list[str] = []

    def exchange(body: str) -> tuple[str, str]:
        seen.append(body)
        return "text/xml", TOKENS

    with answering(exchange) as sts, proxy(s3_server) as state:
        state.rule = lambda *_: Fault(status=400)
        environment = {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/runs",
            "AWS_ENDPOINT_URL_STS": sts,
            "AWS_ENDPOINT_URL": state.endpoint,
        }
        store = connect(Storage(bucket="runs"), environment)
        with pytest.raises(InputError):
            store.read(f"s3://{bucket}/key")
        assert SECRET in seen[0]
        (_, _, headers) = state.requests[0]
        assert headers["x-amz-security-token"] == "session"
        assert "exchanged-key" in headers["authorization"]


def test_a_web_identity_that_is_refused_keeps_its_token_secret(
    s3_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The token is in no message, traceback or log, whether it is refused or not answered."""
    caplog.set_level("DEBUG")
    token = tmp_path / "token"
    token.write_text(SECRET)
    with proxy(s3_server) as state:
        for status, endpoint, kind in (
            (403, state.endpoint, InputError),
            (503, state.endpoint, TryAgainError),
            (None, closed_endpoint(), TryAgainError),
        ):
            state.rule = lambda *_, status=status: Fault(status=status)
            environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ENDPOINT_URL": endpoint}
            store = connect(Storage(bucket="runs"), environment)
            with pytest.raises(kind, match="web identity") as caught:
                store.read("s3://bucket/key")
            assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in caplog.text


def test_an_absent_token_is_named(tmp_path: Path) -> None:
    """AWS_WEB_IDENTITY_TOKEN_FILE without its file is the user's to correct."""
    environment = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "absent"),
        "AWS_ENDPOINT_URL": "http://store:9000",
    }
    with pytest.raises(InputError, match="AWS_WEB_IDENTITY_TOKEN_FILE"):
        connect(Storage(bucket="runs"), environment).read("s3://bucket/key")


@pytest.mark.parametrize(
    "endpoint", ["store:9000", "ftp://store", "http://name:word@store", "http://store/path", ""]
)
def test_an_endpoint_of_another_form_is_refused(endpoint: str) -> None:
    """AWS_ENDPOINT_URL is a scheme, a host and a port; a password in it is not repeated."""
    with pytest.raises(InputError, match="expected AWS_ENDPOINT_URL like") as caught:
        Server(endpoint, "key", SECRET).store()
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize(
    ("style", "environment", "url", "region"),
    [
        ("Auto", {}, "https://store:9000/bucket/key", "us-east-1"),
        ("Path", {"AWS_REGION": "eu-west-1"}, "https://store:9000/bucket/key", "eu-west-1"),
        (
            "VirtualHost",
            {"AWS_DEFAULT_REGION": "eu-west-2"},
            "https://bucket.store:9000/key",
            "eu-west-2",
        ),
    ],
)
def test_region_and_addressing_style_shape_the_request(
    style: str, environment: dict[str, str], url: str, region: str
) -> None:
    """The region is part of the signature; the bucket stands in the path or in the host."""
    storage = Storage.model_validate(
        {"bucket": "runs", "endpoint": "https://store:9000/", "addressingStyle": style}
    )
    minio, _ = client(storage, Server("", "key", SECRET).environment(**environment))
    signed = minio.presigned_get_object("bucket", "key")
    assert signed.startswith(f"{url}?")
    assert f"%2F{region}%2Fs3%2F" in signed


def once_per(
    which: Callable[[dict[str, str]], str], fault: Fault
) -> Callable[[str, str, dict[str, str]], Fault | None]:
    """Return a rule that disturbs the first request of each kind."""
    seen: set[str] = set()

    def rule(method: str, path: str, headers: dict[str, str]) -> Fault | None:
        kind = which({**headers, "x-test": f"{method} {path}"})
        if not kind or kind in seen:
            return None
        seen.add(kind)
        return fault

    return rule


@contextmanager
def answering(handle: Callable[[str], tuple[str, str]]) -> Iterator[str]:
    """Run a server whose answer to a request's body is a content type and a text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            kind, text = handle(body.decode())
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815 - http.server's names

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output free of requests."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
