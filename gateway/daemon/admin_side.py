"""
The admin listeners of a daemon, from their opening to the end of a drain.

They are open before the ledger, so that a daemon that cannot listen touches nothing,
and closed after the last request, so that a drain can be watched and hurried.
"""

from __future__ import annotations

import errno
from pathlib import Path

from aiohttp import web

from gateway.config.schema import AdminSettings
from gateway.daemon.listeners import BACKLOG, ListeningSocket, listen
from gateway.daemon.process import StartError

SOCKET_MODE = 0o600
STOP_TIMEOUT_S = 0.5  # for answers that are on the way when the daemon stops


class AdminSide:
    """
    Args:
        settings: None for no admin side; then every method does nothing.
        base: the folder that relative unix paths start from.
    """

    def __init__(self, settings: AdminSettings | None, base: Path) -> None:
        self._wanted = settings.listen if settings else ()
        self._base = base
        self._listeners: list[ListeningSocket] = []
        self._runner: web.AppRunner | None = None

    def open(self) -> None:
        """
        Open every listener.

        Raises:
            StartError: an address is taken, or the system refuses it.
        """
        for address in self._wanted:
            try:
                self._listeners += listen(self._absolute(address), SOCKET_MODE)
            except OSError as error:
                reason = error.strerror or repr(error)
                if error.errno == errno.EADDRINUSE:
                    reason += " (admin.listen)"
                raise StartError(f"cannot listen on {address}: {reason}") from None

    async def serve(self, app: web.Application | None) -> None:
        """Answer on every listener with *app*."""
        if app is None or not self._listeners:
            return
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=STOP_TIMEOUT_S,
            handler_cancellation=True,
        )
        await self._runner.setup()
        for one in self._listeners:
            await web.SockSite(self._runner, one.socket, backlog=BACKLOG).start()

    async def close(self) -> None:
        """Stop listening and answering."""
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the port that was given for port 0."""
        return [one.address for one in self._listeners]

    def page_link(self, token: str) -> str:
        """The address of the page that logs in with *token*; "" without TCP."""
        tcp = (one for one in self.addresses if not one.startswith("unix:"))
        address = next(tcp, "")
        return f"http://{address}/login?token={token}" if address else ""

    def _absolute(self, address: str) -> str:
        """A unix path starts at the folder of the config file."""
        if not address.startswith("unix:"):
            return address
        return f"unix:{self._base / address[5:]}"
