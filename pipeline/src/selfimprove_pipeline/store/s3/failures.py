"""What an S3 server's refusals mean to the person who started the run.

A refusal that stays (credentials, bucket, certificate) is an `InputError`, silence and overload
are a `TryAgainError`. Messages name the endpoint and the URI and never hold a credential.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from selfimprove_pipeline.contract.errors import InputError, SelfImproveError, TryAgainError

_ADVICE = {
    "NoSuchBucket": "create the bucket or correct its name",
    "AccessDenied": "let these credentials list, read, write and delete there, or use others",
    "AllAccessDisabled": "let these credentials list, read, write and delete there, or use others",
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew AWS_SESSION_TOKEN and its keys",
    "InvalidToken": "correct AWS_SESSION_TOKEN",
    "InvalidTokenId": "correct AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "set this machine's clock",
    "AuthorizationHeaderMalformed": "correct storage.region",
    "IllegalLocationConstraintException": "correct storage.region",
    "PermanentRedirect": "correct storage.endpoint and storage.region",
    "BadRequest": "check storage.region and the session token",
}

_PASSING = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "NoSuchUpload",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
}


@contextmanager
def explained(endpoint: str, uri: str) -> Iterator[None]:
    """Turn the SDK's and the connection's errors into the two kinds that a person meets."""
    try:
        yield
    except S3Error as error:
        raise refusal(error.code, endpoint, uri) from error
    except InvalidResponseError as error:
        raise _stranger(endpoint) from error
    except MinioException as error:
        message = f"{endpoint} failed on {uri} ({error}); run the same again"
        raise TryAgainError(message) from error
    except HTTPError as error:
        raise _silence(error, endpoint, uri) from error
    except (ParseError, ValueError):
        # A ValueError of the SDK may quote a header and with it a credential.
        raise _stranger(endpoint) from None


def refusal(code: str | None, endpoint: str, uri: str) -> SelfImproveError:
    """Return the error for a code of the S3 protocol."""
    if code in _PASSING:
        return TryAgainError(f"{endpoint} is busy with {uri} ({code}); run the same again")
    advice = _ADVICE.get(code or "", "see the server's log")
    return InputError(f"{endpoint} refused {uri} ({code}): {advice}")


def _stranger(endpoint: str) -> InputError:
    return InputError(
        f"expected an S3 server at {endpoint}, found another answer; check its scheme and port"
    )


def _silence(error: HTTPError, endpoint: str, uri: str) -> SelfImproveError:
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(reason, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(reason):
        return InputError(
            f"expected a trusted certificate at {endpoint}, found another; name its authority"
            " with storage.caRef on a cluster, with AWS_CA_BUNDLE elsewhere"
        )
    if isinstance(reason, SSLError) and "WRONG_VERSION_NUMBER" in str(reason):
        return InputError(f"expected TLS at {endpoint}, found plain HTTP; write http://")
    return TryAgainError(
        f"{endpoint} did not answer for {uri} ({_cause(reason)}); run the same again"
    )


def _cause(error: BaseException) -> str:
    """Return what the system said first, without addresses of Python objects."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return "timed out" if isinstance(error, TimeoutError) else str(error)
