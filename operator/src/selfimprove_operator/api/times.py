"""Conversion of times as the Kubernetes API writes them: RFC 3339 in UTC, whole seconds."""

from datetime import UTC, datetime


def stamp(seconds: float) -> str:
    """Convert seconds since the epoch to the API's form."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """Convert a time from the API, with or without a fraction, to seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def seconds_or_none(text: str | None) -> float | None:
    """Convert a time from the API that may be absent."""
    return None if text is None else seconds(text)
