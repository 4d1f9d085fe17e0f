"""
The way to every account: where a request goes, and who answers it.

The transport answers over HTTP, the sockets over websockets, and the trial account
inside the process, all behind the same seam. Nothing above this file knows which of
them it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from gateway import trial
from gateway.config.schema import Account, UpstreamLimits
from gateway.errors import UpstreamError
from gateway.protocols import PROTOCOLS
from gateway.protocols.json_access import read_object
from gateway.transport.dialing import Dialer
from gateway.transport.gathering import Gathering
from gateway.transport.interface import (
    STOP,
    Ended,
    Feed,
    LaneSide,
    Transport,
    UpstreamResponse,
)
from gateway.transport.request import Proxy

if TYPE_CHECKING:
    from gateway.transport.websocket.socket_transport import SocketTransport

MAX_BODY_BYTES = 128 * 1024 * 1024  # of a whole answer that is read


class HttpRequest(NamedTuple):
    """
    Attributes:
        protocol: that the account is asked in.
        path: behind ``base_url``, for example "/responses".
        query: of the client's URL, passed as it was.
        user: whose websockets may serve it.
    """

    protocol: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    query: str = ""
    method: str = "POST"
    user: str = ""


class Upstream:
    """
    The accounts' servers, and the trial account.

    Args:
        make_sockets: makes what speaks websocket; called once, when an account wants
            it, since to import it takes a sixth of a start.
    """

    def __init__(
        self,
        transport: Transport,
        limits: UpstreamLimits,
        make_sockets: Callable[[], SocketTransport] | None = None,
        gathering: Gathering | None = None,
    ) -> None:
        self.gathering = gathering or Gathering()
        self._transport = transport
        self._limits = limits
        self._make_sockets = make_sockets
        self._urls: dict[tuple[str, str], URL] = {}
        self.sockets: SocketTransport | None = None

    def replace(self, limits: UpstreamLimits, accounts: Iterable[Account]) -> None:
        """Take up changed limits and accounts, for the requests that follow."""
        self._limits = limits
        same = {one.name: _same(one) for one in accounts if _has_websocket(one)}
        if same and self.sockets is None and self._make_sockets is not None:
            self.sockets = self._make_sockets()
        if self.sockets is not None:
            self.sockets.replace(same)

    async def stop(self) -> None:
        """Close every connection, idle or not."""
        await self._transport.stop()
        if self.sockets is not None:
            await self.sockets.stop()

    async def open(self, account: Account, request: HttpRequest) -> UpstreamResponse:
        """
        Send *request* to *account* and return when the head of its answer is there.
        The caller limits how long that may take, and reads the body.

        Raises:
            UpstreamError: "upstream_connect", "upstream_reset",
                "upstream_malformed".
        """
        protocol, path, headers, body, query, method, _ = request
        if account.embedded:
            document = read_object(body)
            answer = trial.answer(
                protocol,
                path,
                document,
                headers,
                now_unix=int(time.time()),
                ident=headers["x-request-id"],
            )
            return EmbeddedResponse(answer)
        try:
            if self.sockets is not None and _has_websocket(account):
                if (method, path) == _ask(protocol):
                    return await self._over_socket(self.sockets, account, request)
            return await self._transport.open(
                method,
                self._url(account, path, query),
                headers.items(),
                body,
                connect_timeout_s=self._limits.connect_timeout_s,
                idle_timeout_s=0.0,
            )
        except ValueError as error:
            raise UpstreamError("upstream_connect", detail=repr(error)) from None

    async def _over_socket(
        self, sockets: SocketTransport, account: Account, request: HttpRequest
    ) -> UpstreamResponse:
        from gateway.transport.websocket.socket_transport import SocketRequest

        return await sockets.open(
            SocketRequest(
                account.name,
                request.user,
                self._url(account, request.path, request.query),
                request.headers.items(),
                request.body,
                self._limits.connect_timeout_s,
                self._limits.idle_timeout_s,
                account.websocket_compression,
            )
        )

    def _url(self, account: Account, path: str, query: str) -> URL:
        known = self._urls.get((account.base_url, path))
        if known is None:
            known = URL(account.base_url.rstrip("/") + path, encoded=True)
            if len(self._urls) < 10_000:
                self._urls[account.base_url, path] = known
        return URL(f"{known}?{query}", encoded=True) if query else known


def socket_transport(
    dialer: Dialer, http: Transport, proxy_of: Callable[[URL], Proxy | None] | None
) -> SocketTransport:
    """What speaks websocket, imported only now."""
    from gateway.transport.websocket.socket_transport import SocketTransport

    return SocketTransport(dialer, http, proxy_of)


def _ask(protocol: str) -> tuple[str, str]:
    """The method and the path of the requests that a websocket may serve."""
    return "POST", PROTOCOLS[protocol].path


def _has_websocket(account: Account) -> bool:
    return account.transport == "websocket"


def _same(account: Account) -> Mapping[str, Any]:
    """What of *account* its open sockets depend on."""
    names = (
        *("base_url", "protocol", "api_key", "auth", "headers"),
        "websocket_compression",
    )
    return {name: getattr(account, name) for name in names}


class EmbeddedResponse:
    """An answer of the trial account, as an ``UpstreamResponse``."""

    def __init__(self, answer: trial.TrialResponse) -> None:
        self.status = answer.status
        self.headers = CIMultiDictProxy(CIMultiDict(answer.headers))
        self.facts: Mapping[str, Any] = {}
        self.idle_timeout_s = 0.0  # it is never silent
        whole = iter([(answer.delay_s, answer.body)])
        self._pieces = whole if answer.pieces is None else answer.pieces

    @property
    def has_ended(self) -> bool:
        """See ``UpstreamResponse.has_ended``."""
        return True

    async def read(self) -> bytes:
        """See ``UpstreamResponse.read``."""
        for delay_s, piece in self._pieces:
            await asyncio.sleep(delay_s)
            return piece
        return b""

    async def body(self, limit_bytes: int) -> bytes:
        """See ``UpstreamResponse.body``."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def pump(self, feed: Feed, lane: LaneSide | None = None) -> None:
        """See ``UpstreamResponse.pump``."""
        while piece := await self.read():
            rest = feed(piece)
            if rest is STOP:
                return
            if rest is not None:
                await rest

    def close(self, linger_s: float = 0.0, ended: Ended | None = None) -> None:
        """See ``UpstreamResponse.close``."""
        self._pieces = iter(())
        if ended is not None:
            ended()
