"""The handlers that kopf calls: at startup, at cleanup and for every watch event.

Only `kopf.on.event` handlers are used: for others kopf would write annotations and finalizers.
The handlers decide nothing; they pass each event to `Process`.
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
    """Keeps no last-seen state: kopf would copy every object for handlers that we do not have."""

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
    """Return kopf's settings: watches filtered by label, no discovery, no Events by kopf."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffBase()
    # The server ends a watch first. The client's limit catches connections that have died silently.
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
    handlers = kopf.OperatorRegistry()
    running: list[Process] = []

    async def start(**_: Any) -> None:
        running.append(await Process.start(settings, port=port))

    async def stop(**_: Any) -> None:
        for process in running:
            await process.stop()

    async def event(kind: Kind, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002  kopf's name
        running[0].changed(kind, body, is_deleted=type == "DELETED")

    kopf.on.login(registry=handlers)(login)
    kopf.on.startup(registry=handlers)(start)
    kopf.on.cleanup(registry=handlers)(stop)
    for kind, resource in WATCHED:
        handler = partial(event, kind)
        kopf.on.event(*resource, registry=handlers, id=f"watch-{kind}")(handler)
    return handlers


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Return the pod's own credentials, else those of KUBECONFIG."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
