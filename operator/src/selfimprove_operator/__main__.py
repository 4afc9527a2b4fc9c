"""`python -m selfimprove_operator`: the operator as its image starts it."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

import kopf

from selfimprove_operator.api import settings
from selfimprove_operator.api.settings import Settings
from selfimprove_operator.process import handlers, logs
from selfimprove_pipeline.contract.errors import InputError

SETTINGS: Final = "SELFIMPROVE_SETTINGS"
DEFAULT: Final = "/etc/selfimprove/settings.yaml"
PORT: Final = "SELFIMPROVE_PORT"


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    try:
        found = settings.load(Path(os.environ.get(SETTINGS, DEFAULT)))
    except InputError as error:
        print(error, file=sys.stderr)  # noqa: T201  the one line that the person reads
        return error.exit_code
    logs.configure(found.log_level)
    asyncio.run(serve(found, port=int(os.environ.get(PORT, "8080"))))
    return 0


async def serve(found: Settings, *, port: int) -> None:
    """Run kopf over the namespaces of the settings, over all if they name none."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await kopf.operator(
        registry=handlers.registry(found, port),
        settings=handlers.kopf_settings(),
        standalone=True,
        clusterwide=not found.watch_namespaces,
        namespaces=found.watch_namespaces,
        stop_flag=stop,
    )


if __name__ == "__main__":
    sys.exit(main())
