"""
The aiohttp application of the gateway, from the start of its parts to their stop.

    build_app     makes the components, opens the ledger, restores the saved state
    build_runner  puts the application on a server, which listens nowhere yet
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from gateway.config.schema import Config
from gateway.daemon import routes
from gateway.daemon.engine_use import EngineChoice
from gateway.daemon.http_server import HttpRunner
from gateway.daemon.wiring import Components, know_secrets
from gateway.ledger.ledger import Ledger

COMPONENTS = web.AppKey("components", Components)


def components_of(app: web.Application) -> Components:
    """The components behind *app*."""
    return app[COMPONENTS]


async def build_app(
    config: Config, base: Path, engine: EngineChoice | None = None
) -> web.Application:
    """
    The application; the ledger is open when this returns.

    Args:
        base: the folder that relative paths of the config start from.
        engine: the parent's, for several workers; None without one.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    know_secrets(config)
    ledger = await Ledger.open(config.ledger.url, base, config.ledger)
    components = Components(config, ledger, engine)
    await components.upkeep.restore()
    await components.join()
    app = web.Application()
    app[COMPONENTS] = components
    routes.add_routes(app.router, components)

    async def background(_: web.Application) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(components.upkeep.save_state(), name="state-saver"),
            asyncio.create_task(components.changes.follow(), name="change-follower"),
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await components.stop()

    app.cleanup_ctx.append(background)
    return app


async def build_runner(app: web.Application, shutdown_timeout_s: float) -> HttpRunner:
    """What serves *app*, set up; it listens nowhere yet."""
    refuse = components_of(app).endpoints.plain_answers.refuse_head
    runner = HttpRunner(
        app, refuse, access_log=None, shutdown_timeout=shutdown_timeout_s
    )
    await runner.setup()
    return runner
