"""How often a training leaves a checkpoint: every so many steps, or by what one costs.

A killed training repeats what came after its last checkpoint, and a checkpoint holds the training
up while its files are written. So the time between two follows from what the last one cost: with
ten times its cost between them checkpoints take less than a tenth of the time, whatever the size
of the model and the speed of the disk. The upload runs beside the training and is not counted;
but only one runs at once, so none is due before the one in flight has ended (`checkpoints`).
Neighbours: `checkpoints` asks on the first rank alone, because clocks differ.
"""

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]
"""Returns seconds since some moment; it never goes back."""

FIRST_SECONDS: Final = 20 * 60.0
"""Seconds of training that are not worth a checkpoint: many a training ends within them."""
COST_FACTOR: Final = 10.0
"""How many times its cost passes after a checkpoint before the next one is due."""
LEAST_SECONDS: Final = 60.0
"""Seconds between checkpoints that cost next to nothing: a new pod takes longer to start."""


def seconds_until_due(cost: float | None) -> float:
    """Return how long to train on after a checkpoint that cost so many seconds, None for none."""
    return FIRST_SECONDS if cost is None else max(COST_FACTOR * cost, LEAST_SECONDS)


class Pace:
    """Says when the next checkpoint is due. What one costs is what training waits for it."""

    def __init__(self, every: int | None = None, clock: Clock = time.monotonic) -> None:
        """Take the number of steps between checkpoints, None for as many as the clock says."""
        self.every = every
        self._clock = clock
        self._since = clock()
        self._cost: float | None = None

    def is_due(self, step: int) -> bool:
        """Say whether training has gone on for long enough at the end of a step."""
        if self.every is not None:
            return step % self.every == 0
        return self._clock() - self._since >= seconds_until_due(self._cost)

    def wait(self) -> None:
        """Note that training stands still for a checkpoint from now on."""
        self._since = self._clock()

    def go_on(self) -> None:
        """Note that training goes on after it."""
        now = self._clock()
        self._cost, self._since = now - self._since, now
