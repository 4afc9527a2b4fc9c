"""Failed requests to the API server, by what the operator does about them.

`cluster` raises only these errors. After a `Conflict` the loop reads the run again; `Unavailable`
is retried; in a namespace that is being deleted it creates nothing more; and the message of a
`Refused` is shown in the run's status.
"""

import json
from typing import Final

RETRIED: Final = frozenset({401, 408, 410, 429})
"""HTTP statuses below 500 after which the same request may still succeed later."""


class ClusterError(Exception):
    """A request to the API server has failed; the message is one line."""


class Conflict(ClusterError):  # noqa: N818  the API server's own word
    """The object has changed since it was read: read it again and decide again."""


class Unavailable(ClusterError):  # noqa: N818
    """The API server does not respond or has a problem of its own: try again later."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """status is the HTTP status, None if there was no response."""


class Refused(ClusterError):  # noqa: N818
    """The request itself is wrong or not allowed; the same one will be refused again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """status is the HTTP status, usually 400, 403, 404 or 422."""
        self.message = message
        """message of the API server, on one line."""


class Missing(Refused):
    """The object, or the namespace it was to be created in, does not exist."""


class NamespaceEnding(Refused):
    """The namespace is being deleted: nothing can be created in it any more."""


def refusal(status: int, body: bytes) -> ClusterError:
    """Return the error for a response with a status of 400 or more."""
    try:
        answer = json.loads(body)
    except ValueError:  # a proxy in between may send anything
        answer = {"message": body[:200].decode(errors="replace")}
    if not isinstance(answer, dict):
        answer = {}
    message = " ".join(str(answer.get("message") or f"HTTP status {status}").split())
    if status >= 500 or status in RETRIED:  # noqa: PLR2004  HTTP's own ranges
        return Unavailable(message, status)
    if status == 409:  # noqa: PLR2004
        return Conflict(message)
    if status == 404:  # noqa: PLR2004
        return Missing(status, message)
    causes = (answer.get("details") or {}).get("causes") or ()
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return NamespaceEnding(status, message)
    return Refused(status, message)
