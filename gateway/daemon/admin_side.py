"""
The admin listeners of a worker, from its start to the end of a drain.

They are closed after the last request, so that a drain can be watched and hurried.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from gateway.daemon.listeners import BACKLOG, ServedSocket

STOP_TIMEOUT_S = 0.5  # for answers that are on the way when the daemon stops


class AdminSide:
    """
    Args:
        sockets: none for no admin side; then every method does nothing.
    """

    def __init__(self, sockets: Sequence[ServedSocket]) -> None:
        self._sockets = sockets
        self._runner: web.AppRunner | None = None

    async def serve(self, app: web.Application | None) -> None:
        """Answer on every listener with *app*."""
        if app is None or not self._sockets:
            return
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=STOP_TIMEOUT_S,
            handler_cancellation=True,
        )
        await self._runner.setup()
        for one in self._sockets:
            await web.SockSite(self._runner, one.socket, backlog=BACKLOG).start()

    async def stop_accepting(self) -> None:
        """Take no new connections; those that there are go on."""
        for site in list(self._runner.sites) if self._runner else ():
            await site.stop()
        for one in self._sockets:
            one.socket.close()

    async def close(self) -> None:
        """Stop listening and answering."""
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the port that was given for port 0."""
        return [one.address for one in self._sockets]

    def page_link(self, token: str) -> str:
        """The address of the page that logs in with *token*; "" without TCP."""
        tcp = (one for one in self.addresses if not one.startswith("unix:"))
        address = next(tcp, "")
        return f"http://{address}/login?token={token}" if address else ""
