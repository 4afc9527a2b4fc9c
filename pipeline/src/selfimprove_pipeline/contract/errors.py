"""The errors a person meets, each with the exit code that scripts and pods act on.

One line says what was expected, what was found and what to do. Everything else that
goes wrong is a defect of ours and keeps its traceback (exit code 1).
"""

from typing import ClassVar


class SelfImproveError(Exception):
    """An error whose message is written for the person who started the run."""

    exit_code: ClassVar[int] = 1


class InputError(SelfImproveError):
    """The recipe, the prompts or another input is wrong; trying again changes nothing."""

    exit_code = 2


class TryAgainError(SelfImproveError):
    """Something outside did not answer, such as the store; the same command may succeed later."""

    exit_code = 75


class ArtifactError(SelfImproveError):
    """A stored artifact is truncated or altered; the message names it."""


def error_of(exit_code: int, message: str) -> SelfImproveError:
    """Return the error that another process ended with."""
    kinds: dict[int, type[SelfImproveError]] = {
        kind.exit_code: kind for kind in (InputError, TryAgainError)
    }
    return kinds.get(exit_code, SelfImproveError)(message)
