"""The machines that train together: which one this is, and where they meet.

On a cluster each is a pod of one Indexed Job, told by its environment. The first one hosts the
rendezvous, under a name that the others can resolve once its pod exists. `launch` passes this
on to torchrun.
"""

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from selfimprove_pipeline.contract.environment import (
    COMPLETION_INDEX,
    NODES,
    RENDEZVOUS,
    RENDEZVOUS_ID,
)

JOIN_SECONDS: Final = 24 * 3600
"""How long the first machines wait for the last. A cluster's own deadlines end it before."""
PAUSE_SECONDS: Final = 1.0
CONNECT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Nodes:
    """The machines of one launch, as one of them sees them."""

    count: int
    number: int
    host: str
    """host is the first machine's."""
    port: int
    name: str

    @property
    def own_host(self) -> str:
        """This machine's name for the others: pods differ in the number after the last hyphen.

        torchrun numbers the ranks in the order of these names, so the first machine has rank 0.
        """
        label, dot, domain = self.host.partition(".")
        return re.sub(r"-0$", f"-{self.number}", label) + dot + domain

    def torchrun(self) -> list[str]:
        """Return torchrun's arguments."""
        settings = {"is_host": int(self.number == 0), "join_timeout": JOIN_SECONDS}
        return [
            f"--nnodes={self.count}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={self.host}:{self.port}",
            f"--rdzv-id={self.name}",
            f"--rdzv-conf={','.join(f'{name}={value}' for name, value in settings.items())}",
            f"--local-addr={self.own_host}",
        ]

    def wait(self) -> None:
        """Return when the first machine can be reached; the first one, when its name resolves.

        torchrun itself gives up after a minute, and pods may start far apart.
        """
        while not (self._resolves() if self.number == 0 else self._answers()):
            time.sleep(PAUSE_SECONDS)

    def _resolves(self) -> bool:
        try:
            return bool(socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM))
        except OSError:
            return False

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=CONNECT_SECONDS):
                return True
        except OSError:
            return False


def count_of(environment: Mapping[str, str]) -> int:
    """Return how many machines train together."""
    return int(environment.get(NODES) or 1)


def nodes_of(environment: Mapping[str, str]) -> Nodes | None:
    """Return the machines that the environment tells of, None where there is one."""
    count = count_of(environment)
    if count == 1:
        return None
    host, _, port = environment[RENDEZVOUS].rpartition(":")
    number = int(environment[COMPLETION_INDEX])
    return Nodes(count, number, host, int(port), environment[RENDEZVOUS_ID])
