"""What kopf calls: the beginning and end of the process, and every watch event.

No handler decides anything, and none is of a kind for which kopf would write annotations or
finalizers: the API server and the status are the only memory.
"""

from functools import partial
from typing import Any, Final

import kopf
from typing_extensions import override

from selfimprove_operator.api import status
from selfimprove_operator.api.settings import Settings
from selfimprove_operator.cluster.door import Kind
from selfimprove_operator.process.process import Process

WATCHED: Final[tuple[tuple[Kind, tuple[str, str, str]], ...]] = (
    ("SelfImproveRun", (status.GROUP, status.VERSION, status.PLURAL)),
    ("Job", ("batch", "v1", "jobs")),
    ("Pod", ("", "v1", "pods")),
)


class _NoDiffBase(kopf.DiffBaseStorage):
    """Nothing to compare with: kopf would copy every object for handlers that we have not."""

    @override
    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    @override
    def fetch(self, **_: Any) -> None:
        return

    @override
    def store(self, **_: Any) -> None:
        return


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: the server filters watches; no discovery, no Events of kopf's."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    for kind, resource in WATCHED:
        if kind != status.KIND:
            settings.watching.label_selectors[resource] = status.SELECTOR
    return settings


def registry(settings: Settings, port: int) -> kopf.OperatorRegistry:
    """Return the handlers of one process."""
    made = kopf.OperatorRegistry()
    running: list[Process] = []

    async def start(**_: Any) -> None:
        running.append(await Process.start(settings, port=port))

    async def stop(**_: Any) -> None:
        for process in running:
            await process.stop()

    async def event(kind: Kind, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002  kopf's name
        running[0].changed(kind, body, is_deleted=type == "DELETED")

    kopf.on.login(registry=made)(login)
    kopf.on.startup(registry=made)(start)
    kopf.on.cleanup(registry=made)(stop)
    for kind, resource in WATCHED:
        handler = partial(event, kind)
        kopf.on.event(*resource, registry=made, id=f"watch-{kind}")(handler)
    return made


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Return the pod's own credentials, else those of KUBECONFIG."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
