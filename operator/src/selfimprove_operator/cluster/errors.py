"""What the API server refuses, sorted by what the operator does about it.

`cluster` raises these and nothing else; the loop reads a `Conflict` anew, waits for what is
`Unavailable`, stops creating in a namespace that ends, and shows what was `Refused`.
"""

import json
from typing import Any, Final

RETRIED: Final = frozenset({401, 408, 410, 429})
"""Statuses below 500 that say nothing about the request: the same one may succeed later."""


class ClusterError(Exception):
    """A call that the API server did not do as asked; the message is one line of its own."""


class Conflict(ClusterError):  # noqa: N818  the API server's own word
    """The object is no longer what the caller had read: read it anew and decide again."""


class Unavailable(ClusterError):  # noqa: N818
    """No answer, or one that speaks of the server and not of the request: try again later."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """status is the HTTP status, None where there was no answer."""


class Refused(ClusterError):  # noqa: N818
    """The request itself is wrong or not allowed; the same one will be refused again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """status is the HTTP status: 400, 403, 404 or 422 as a rule."""
        self.message = message
        """message of the API server, in one line."""


class Missing(Refused):
    """The object, or the namespace it was to be created in, does not exist."""


class NamespaceEnding(Refused):
    """The namespace is being deleted: nothing can be created in it any more."""


def refusal(status: int, body: bytes) -> ClusterError:
    """Return the error that an answer with a status of 400 or more stands for."""
    answer = _answer(body)
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


def _answer(body: bytes) -> dict[str, Any]:
    """Return the `Status` object of an answer; a proxy on the way may have sent anything."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {"message": body[:200].decode(errors="replace")}
    return answer if isinstance(answer, dict) else {}
