"""The HTTP server for Prometheus and the kubelet: `/metrics`, `/healthz`, `/readyz`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from selfimprove_operator.process.metrics import Metrics

Probe = Callable[[], str | None]
"""Returns what is wrong, None if nothing is."""

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serving(port: int, metrics: Metrics, *, live: Probe, ready: Probe) -> AsyncIterator[None]:
    """Serve on all addresses."""
    app = web.Application()
    app.router.add_get("/metrics", _metrics(metrics))
    app.router.add_get("/healthz", _probe(live))
    app.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()


def _metrics(metrics: Metrics) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return answer


def _probe(probe: Probe) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        wrong = probe()
        return web.Response(status=503 if wrong else 200, text=wrong or "ok")

    return answer
