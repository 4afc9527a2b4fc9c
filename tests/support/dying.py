"""A process that is killed while it keeps rows, without a process."""

from typing import Any

from typing_extensions import override

from selfimprove_pipeline.store.repository import Repository


class Killed(BaseException):
    """The process ends here."""


class DyingRepository(Repository):
    """A repository whose process is killed when it has kept so many rows."""

    lives = 10**6

    @override
    def append_part(self, stage: str, key: str, part_name: str, rows: Any) -> None:
        if rows and self.lives <= 0:
            raise Killed
        super().append_part(stage, key, part_name, rows)
        self.lives -= len(rows)
