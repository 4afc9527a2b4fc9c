"""The HTTP server for Prometheus and the kubelet: `/metrics`, `/healthz`, `/readyz`.

It starts after the operator has connected to the API server, so it is ready when it answers.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from selfimprove_operator.process.metrics import Metrics

Probe = Callable[[], str | None]
"""Returns what is wrong, or None."""

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serving(port: int, metrics: Metrics, *, live: Probe) -> AsyncIterator[None]:
    """Serve on all addresses, for as long as the context lasts."""

    async def answer_metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def answer_healthz(_: web.Request) -> web.StreamResponse:
        problem = live()
        return web.Response(status=503 if problem else 200, text=problem or "ok")

    async def answer_readyz(_: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/metrics", answer_metrics)
    app.router.add_get("/healthz", answer_healthz)
    app.router.add_get("/readyz", answer_readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()
