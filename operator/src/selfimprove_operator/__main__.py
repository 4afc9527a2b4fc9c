"""`python -m selfimprove_operator` starts the operator, as its image does."""

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
    """Run the operator until SIGTERM; return the exit code."""
    try:
        loaded = settings.load(Path(os.environ.get(SETTINGS, DEFAULT)))
    except InputError as error:
        print(error, file=sys.stderr)  # noqa: T201  logging is not set up yet
        return error.exit_code
    logs.configure(loaded.log_level)
    asyncio.run(serve(loaded, port=int(os.environ.get(PORT, "8080"))))
    return 0


async def serve(loaded: Settings, *, port: int) -> None:
    """Run kopf on the namespaces of the settings, or on all if they name none."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await kopf.operator(
        registry=handlers.registry(loaded, port),
        settings=handlers.kopf_settings(),
        standalone=True,  # no peering: every write has a precondition, so two do no harm
        clusterwide=not loaded.watch_namespaces,
        namespaces=loaded.watch_namespaces,
        stop_flag=stop,
    )


if __name__ == "__main__":
    sys.exit(main())
