"""Times of the Kubernetes API: RFC 3339 in UTC, whole seconds."""

from datetime import UTC, datetime


def stamp(seconds: float) -> str:
    """Return a time in seconds since the epoch as the API writes it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """Return a time of the API, with or without a fraction, in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def seconds_or_none(text: str | None) -> float | None:
    """Return `seconds` of a time that may be absent."""
    return None if text is None else seconds(text)
