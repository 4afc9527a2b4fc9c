"""The MinIO client for a recipe's storage: address, certificates, patience and credentials.

Credentials come from AWS_* variables, a web identity or the shared credentials file, in this
order, and from nowhere else: no metadata service is asked, which costs seconds where there is
none.
"""

import ssl
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    Provider,
    StaticProvider,
)
from typing_extensions import override
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.recipe import Storage

CONNECTIONS = 64
"""Kept open: 16 ranges of a fetch and 4 x 4 parts of uploads, with room."""


def client(storage: Storage, environment: Mapping[str, str]) -> tuple[Minio, str]:
    """Return the client and the endpoint to name in messages."""
    endpoint = (storage.endpoint or environment.get("AWS_ENDPOINT_URL", "")).rstrip("/")
    address = urlsplit(endpoint)
    if address.scheme not in {"http", "https"} or "@" in address.netloc or address.path:
        message = "expected AWS_ENDPOINT_URL like https://HOST:PORT, without path, name or password"
        raise InputError(message)
    region = storage.region or environment.get("AWS_REGION")
    region = region or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    http = _http(environment.get("AWS_CA_BUNDLE"))
    provider = _provider(environment, sts=_sts(environment, endpoint, region), http=http)
    try:
        minio = Minio(
            address.netloc,
            secure=address.scheme == "https",
            region=region,
            credentials=provider,
            http_client=http,
        )
    except ValueError as error:
        message = f"expected the endpoint and the region of an S3 server, found {endpoint}: {error}"
        raise InputError(message) from error
    if storage.addressing_style == "VirtualHost":
        minio.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    if storage.addressing_style == "Path":
        minio.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return minio, endpoint


def _http(bundle: str | None) -> PoolManager:
    """Return connections that give up after 19 s on an address where nothing answers.

    That is five attempts of 3 s with pauses of 0, 0.5, 1 and 2 s. All S3 requests may be sent
    twice, so POST is retried as well; a certificate that is not trusted will not be on retry.
    """
    try:
        context = ssl.create_default_context(cafile=bundle or None)
    except OSError as error:
        message = f"expected certificates in PEM at AWS_CA_BUNDLE={bundle}, found: {error.strerror}"
        raise InputError(message) from error
    retries = Retry(
        total=None,
        connect=4,
        read=4,
        status=4,
        other=0,
        redirect=3,
        allowed_methods=None,
        status_forcelist={408, 429} | (set(range(500, 600)) - {501}),
        backoff_factor=0.25,
        backoff_jitter=0.1,
        respect_retry_after_header=False,
    )
    timeout = Timeout(connect=3, read=60)
    return PoolManager(maxsize=CONNECTIONS, timeout=timeout, retries=retries, ssl_context=context)


def _provider(environment: Mapping[str, str], *, sts: str, http: PoolManager) -> Provider:
    # A Secret made from a file often ends in a line feed, which no HTTP header may hold.
    key = environment.get("AWS_ACCESS_KEY_ID", "").strip()
    secret = environment.get("AWS_SECRET_ACCESS_KEY", "").strip()
    if key and secret:
        return StaticProvider(key, secret, environment.get("AWS_SESSION_TOKEN", "").strip() or None)
    if key or secret:
        found = "AWS_ACCESS_KEY_ID" if key else "AWS_SECRET_ACCESS_KEY"
        message = f"expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, found {found} alone"
        raise InputError(message)
    if token := environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return _WebIdentity(Path(token), environment=environment, sts=sts, http=http)
    return _of_file(environment)


def _of_file(environment: Mapping[str, str]) -> Provider:
    home = Path(environment.get("HOME") or Path.home())
    named = environment.get("AWS_SHARED_CREDENTIALS_FILE")
    path = Path(named) if named else home / ".aws" / "credentials"
    profile = environment.get("AWS_PROFILE") or "default"
    provider = AWSConfigProvider(filename=str(path), profile=profile)
    try:
        provider.retrieve()
    except Exception:  # noqa: BLE001 - the parser's errors are many and quote lines of the file
        message = (
            "expected credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
            f" AWS_WEB_IDENTITY_TOKEN_FILE, or profile {profile} of {path}; found none"
        )
        raise InputError(message) from None
    return provider


class _WebIdentity(Provider):
    """Keys for a token file, as a service account has one; renewed when they expire.

    The SDK's own provider puts the token into the URL, from where it reaches messages and logs;
    here it is sent in the body.
    """

    def __init__(
        self, token: Path, *, environment: Mapping[str, str], sts: str, http: PoolManager
    ) -> None:
        self._token = token
        self._sts = sts
        self._http = http
        self._role = {
            name: value
            for name, value in (
                ("RoleArn", environment.get("AWS_ROLE_ARN")),
                ("RoleSessionName", environment.get("AWS_ROLE_SESSION_NAME", "selfimprove")),
            )
            if value
        }
        self._keys: Credentials | None = None

    @override
    def retrieve(self) -> Credentials:
        """Return valid keys."""
        if self._keys is None or self._keys.is_expired():
            self._keys = self._exchanged()
        return self._keys

    def _exchanged(self) -> Credentials:
        try:
            form = {
                "Action": "AssumeRoleWithWebIdentity",
                "Version": "2011-06-15",
                "WebIdentityToken": self._token.read_text().strip(),
                **self._role,
            }
            answer = self._http.request_encode_body(
                "POST", self._sts, fields=form, encode_multipart=False
            )
            return _keys(answer.data)
        except HTTPError as error:
            message = f"{self._sts} did not answer for a web identity; run the same again"
            raise TryAgainError(message) from error
        except OSError as error:
            message = f"expected a token at AWS_WEB_IDENTITY_TOKEN_FILE, found: {error.strerror}"
            raise InputError(message) from error
        except (ValueError, ET.ParseError):
            # An answer that is no success may repeat the token.
            message = f"{self._sts} refused the web identity; check AWS_ROLE_ARN and the token"
            raise InputError(message) from None


def _keys(answer: bytes) -> Credentials:
    """Return the keys in an answer of the Security Token Service; others are a `ValueError`."""
    root = ET.fromstring(answer)  # noqa: S314 - the service that gives the keys
    found = {
        name: root.findtext(f".//{{*}}Credentials/{{*}}{name}", "")
        for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    }
    return Credentials(
        found["AccessKeyId"],
        found["SecretAccessKey"],
        found["SessionToken"] or None,
        datetime.fromisoformat(found["Expiration"]),
    )


def _sts(environment: Mapping[str, str], endpoint: str, region: str) -> str:
    """Return where web identities are exchanged: at AWS a service of its own, else the server."""
    if named := environment.get("AWS_ENDPOINT_URL_STS"):
        return named
    host = urlsplit(endpoint).hostname or ""
    if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return endpoint
    return f"https://sts.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
