"""A checkpoint on its way to the store, beside the training.

On each machine a thread of the first rank moves its files. Threads never talk to other ranks:
gloo and NCCL allow one caller, and that is the training. So at the end of every step the main
threads tell each other how far they are (`Upload.advance`), and when all machines are done the
first rank makes the checkpoint count, in its thread too. `checkpoints` is the only user.
"""

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain
from pathlib import Path
from typing import Protocol

from selfimprove_pipeline.contract.errors import TryAgainError
from selfimprove_pipeline.contract.manifests import File
from selfimprove_pipeline.train.processes import ranks

Files = tuple[File, ...]

log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Where checkpoints are kept. The first rank calls it, unless a method says otherwise."""

    def drop_checkpoint(self, step: int) -> None:
        """Make a step count no longer, before its files are replaced."""

    def upload_checkpoint(self, step: int, folder: Path) -> Files:
        """Keep a machine's files of a step; the first rank of each machine calls it."""

    def finish_checkpoint(self, step: int, label: str, files: Files) -> None:
        """Make a step count, as the newest, with the files of all machines."""


class Upload:
    """One checkpoint's upload. Every rank has one and calls it at the same step boundaries."""

    def __init__(
        self, shelf: Shelf, thread: ThreadPoolExecutor, *, step: int, label: str, folder: Path
    ) -> None:
        """Start it; `folder` has the files of all ranks of this machine.

        A store that does not answer is not the training's end here or in `advance`: the upload
        has then ended, and a later checkpoint tries again.
        """
        self._shelf = shelf
        self._thread = thread
        self._step = step
        self._label = label
        self._folder = folder
        self._is_finishing = False
        self._task: Future[Files] | None = None
        self.has_ended = False
        ranks.meet()  # no rank of this machine still writes
        why = ranks.from_first(lambda: _why_not(lambda: shelf.drop_checkpoint(step)))
        if why is not None:
            self._give_up(why)
        elif ranks.is_first_here():
            self._task = thread.submit(shelf.upload_checkpoint, step, folder)

    def advance(self) -> None:
        """Go on with what is next if every machine is ready for it; call it on all ranks.

        An error that trying again does not mend is raised on the rank that met it.
        """
        found = ranks.from_each_node(self._found).values()
        if any(part is None for part in found):
            return
        failed = [part for part in found if isinstance(part, str)]
        if failed:
            self._give_up(failed[0])
        elif self._is_finishing:
            self._end()
        else:
            parts = (part for part in found if isinstance(part, tuple))
            self._finish(tuple(chain.from_iterable(parts)))

    def settle(self) -> None:
        """Return when it has ended; call it on all ranks."""
        while not self.has_ended:
            self._wait()
            self.advance()

    def cancel(self) -> None:
        """Begin no further file; those on their way go on, see `join`."""
        self._end()

    def join(self) -> None:
        """Return when this machine moves no file any more, whatever came of it."""
        self._wait()

    def _found(self) -> Files | str | None:
        """Return this machine's files, why there are none, or None while they are moved."""
        if self._task is None:
            return ()
        if not self._task.done():
            return None
        try:
            return self._task.result()
        except TryAgainError as error:
            return str(error)

    def _finish(self, files: Files) -> None:
        def finish() -> Files:
            self._shelf.finish_checkpoint(self._step, self._label, files)
            return ()

        self._is_finishing = True
        self._task = self._thread.submit(finish) if ranks.is_first() else None

    def _wait(self) -> None:
        wait([self._task] if self._task is not None else [])

    def _give_up(self, why: str) -> None:
        if ranks.is_first():
            log.warning(
                "the checkpoint of step %d was not kept: %s; training goes on and a later one is "
                "tried",
                self._step,
                why,
            )
        self._end()

    def _end(self) -> None:
        """Remove the files here: they are not needed, and a thread that still wants one fails."""
        self.has_ended = True
        if ranks.is_first_here():
            shutil.rmtree(self._folder, ignore_errors=True)


def _why_not(action: Callable[[], None]) -> str | None:
    """Return why the store did not answer, None when it did."""
    try:
        action()
    except TryAgainError as error:
        return str(error)
    return None
