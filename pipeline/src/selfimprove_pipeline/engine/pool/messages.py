"""What a pool and the processes of its engines say to each other over a pipe.

The pool begins with a `Job`, the engine answers with `Ready`. Closing the pipe ends the engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from selfimprove_pipeline.engine import Completion, Request


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The engine has started, and what it is."""

    versions: Mapping[str, str]
    max_model_len: int
    start_seconds: float
    window: int
    has_fixed_batches: bool


@dataclass(frozen=True)
class Give:
    """Requests to complete: a whole batch, the options of a text, or one.

    Their keys are unique in the pool's life.
    """

    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Forget:
    """Nobody waits for what was given so far."""


@dataclass(frozen=True)
class Done:
    """What has been completed since."""

    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class Failed:
    """The engine ends with this."""

    exit_code: int
    line: str
