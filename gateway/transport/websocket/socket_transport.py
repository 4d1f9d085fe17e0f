"""
Requests over pooled websockets, and over HTTP where that is not possible.

Rule 1: an answer to the upgrade that speaks of the account (401, 403, 429, 5xx, …) is
        the answer to the request, as over HTTP. Any other says that there is no
        websocket: the request goes over HTTP, which says the truth about everything
        else, and so do the next ones for REFUSED_S.
Rule 2: so does a request that no socket can serve: too large, to be made in the
        background, or without room for one more socket.

    open ──▶ idle socket | upgrade ──▶ SocketResponse
      └────────────refused──────────▶ HTTP
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from yarl import URL

from gateway.errors import UpstreamError
from gateway.protocols.responses.socket_create import Chain, SocketCreate
from gateway.protocols.responses.socket_message import is_harmless
from gateway.telemetry import log
from gateway.transport.dialing import Dialer
from gateway.transport.interface import Transport, UpstreamResponse
from gateway.transport.request import Proxy, Target, target_of
from gateway.transport.websocket.refused_upgrade import RefusedUpgrade
from gateway.transport.websocket.socket_headers import SocketHeaders, socket_headers
from gateway.transport.websocket.socket_pool import (
    PooledSocket,
    SocketKey,
    SocketPool,
)
from gateway.transport.websocket.socket_response import (
    BRIEFLY_S,
    AskOverHttp,
    SocketResponse,
    UpgradeRefused,
)
from gateway.transport.websocket.upgrade import (
    UpgradeAnswer,
    client_protocol,
    upgrade_head,
)
from gateway.transport.websocket.web_socket import WebSocket

REFUSED_S = 600.0
"""How long an account that refuses websockets is asked over HTTP."""

NO_CHAIN_S = 600.0
"""How long an account that forgets its last answer gets whole inputs."""

MAX_DETAIL_CHARS = 200
_MESSAGE_LIMIT = "x-codex-websocket-max-message-bytes"
_FORBIDDEN = 403
_OF_THE_ACCOUNT = frozenset((401, 402, 403, 408, 421, 425, 429, 451, 499))
_MAY_BE_REQUEST = frozenset((400, 431))  # what its headers hold
_NO_WEBSOCKET_HERE = frozenset((501, 505))


class SocketRequest(NamedTuple):
    """
    Attributes:
        account, user: whose sockets may serve it.
        headers: of the request, as over HTTP.
        preamble_idle_s: see ``SocketResponse``.
        deflates: messages may be compressed.
    """

    account: str
    user: str
    url: URL
    headers: Iterable[tuple[str, str]]
    body: bytes
    connect_timeout_s: float
    preamble_idle_s: float
    deflates: bool = False


class SocketTransport:
    """
    Args:
        http: answers what cannot be answered over a websocket.
        proxy_of: see ``HttpTransport``.
    """

    def __init__(
        self,
        dialer: Dialer,
        http: Transport,
        proxy_of: Callable[[URL], Proxy | None] | None = None,
        pool: SocketPool | None = None,
    ) -> None:
        self.pool = pool or SocketPool()
        self._dialer = dialer
        self._http = http
        self._proxy_of = proxy_of
        self._accounts: dict[str, object] = {}
        self._http_until: dict[str, float] = {}
        self._no_chain_until: dict[str, float] = {}

    async def open(self, request: SocketRequest) -> UpstreamResponse:
        """
        Send *request*; see ``Transport.open``.

        Raises:
            UpstreamError, ValueError: as ``Transport.open``.
        """
        headers = list(request.headers)
        request = request._replace(headers=headers)
        if self._is_over_http(request.account):
            return await self._over_http(request)
        divided = socket_headers(request.url, headers)
        create = SocketCreate(request.body, divided.metadata)
        try:
            return await self._over_socket(request, divided, create)
        except AskOverHttp as why:
            if why.for_s:
                self._ask_over_http(request.account, why)
            return await self._over_http(request)
        except UpgradeRefused as refused:
            return RefusedUpgrade(refused.answer)

    async def _over_socket(
        self, request: SocketRequest, headers: SocketHeaders, create: SocketCreate
    ) -> UpstreamResponse:
        if create.background:
            raise AskOverHttp("an answer in the background")
        source = AccountSockets(self, request, headers)
        pooled = await source.take(create, new=False)
        response = SocketResponse(source, create, pooled, request.preamble_idle_s)
        try:
            await response.begin()
        except BaseException:
            response.close()
            raise
        return response

    async def _over_http(self, request: SocketRequest) -> UpstreamResponse:
        return await self._http.open(
            "POST",
            request.url,
            request.headers,
            request.body,
            connect_timeout_s=request.connect_timeout_s,
            idle_timeout_s=0.0,
        )

    # --- for the sockets of one request -----------------------------------------------

    def maybe_idle(self, key: SocketKey, create: SocketCreate) -> PooledSocket | None:
        """An idle socket, which knows no conversation if the account forgets them."""
        pooled = self.pool.maybe_idle(key, create)
        if pooled is not None and _now() < self._no_chain_until.get(key.account, 0.0):
            pooled.chain = None
        return pooled

    async def connect(
        self, key: SocketKey, request: SocketRequest, headers: SocketHeaders
    ) -> PooledSocket:
        """
        A new socket, within the time that a connection may take.

        Raises:
            UpstreamError: "upstream_connect".
            UpgradeRefused, AskOverHttp: see ``SocketSource``.
        """
        proxy = self._proxy_of(request.url) if self._proxy_of is not None else None
        target = target_of("GET", request.url, proxy, must_tunnel=True)
        if not self.pool.reserve(key.account):
            raise AskOverHttp("all sockets of the account are in use")
        socket: WebSocket | None = None
        try:
            socket = await self._upgraded(target, request, headers)
        finally:
            pooled = self.pool.opened(key, socket)
        if pooled is None:
            raise AskOverHttp("closed as soon as it was open", for_s=BRIEFLY_S)
        return pooled

    def forgets(self, account: str) -> None:
        """See ``SocketSource.forgets``."""
        self._no_chain_until[account] = _now() + NO_CHAIN_S

    async def _upgraded(
        self, target: Target, request: SocketRequest, headers: SocketHeaders
    ) -> WebSocket:
        """Dial and shake hands."""
        limit_s = request.connect_timeout_s
        until = _now() + limit_s
        protocol = client_protocol(target, deflates=request.deflates)
        head = upgrade_head(protocol, target, headers.upgrade)
        connection = await self._dialer.dial(target.route, self.pool, limit_s)
        socket = WebSocket(connection, protocol, is_harmless)
        try:
            async with asyncio.timeout_at(until):
                answer = await socket.upgrade(head)
            if not answer.is_open:
                self._raise_refused(request.account, answer)
        except TimeoutError:
            socket.abort()
            raise AskOverHttp("no answer to the upgrade", for_s=REFUSED_S) from None
        except UpstreamError as error:
            socket.abort()
            raise AskOverHttp(error.detail, for_s=BRIEFLY_S) from None
        except BaseException:
            socket.abort()
            raise
        return socket

    def _raise_refused(self, account: str, answer: UpgradeAnswer) -> None:
        """Rule 1."""
        status = answer.status
        # A vendor refuses one socket too many so, while its others are served.
        crowded = status == _FORBIDDEN and account in self.pool.accounts()
        ours = status >= 500 or status in _OF_THE_ACCOUNT
        if ours and status not in _NO_WEBSOCKET_HERE and not crowded:
            raise UpgradeRefused(answer)
        detail = answer.detail or f"HTTP {status}"
        for_s = BRIEFLY_S if status in _MAY_BE_REQUEST else REFUSED_S
        detail = f"the upgrade was refused: {detail}"
        raise AskOverHttp(detail, for_s=0.0 if crowded else for_s)

    # --- accounts that are asked over HTTP --------------------------------------------

    def _is_over_http(self, account: str) -> bool:
        until = self._http_until.get(account)
        if until is None:
            return False
        if _now() < until:
            return True
        del self._http_until[account]
        return False

    def _ask_over_http(self, account: str, why: AskOverHttp) -> None:
        self._http_until[account] = _now() + why.for_s
        log.get().warning(
            "websocket.refused",
            account=account,
            detail=log.redaction().clean(why.reason[:MAX_DETAIL_CHARS]),
            for_s=why.for_s,
        )

    # --- the life of the transport ----------------------------------------------------

    def replace(self, accounts: Mapping[str, object]) -> None:
        """
        Take up changed *accounts*: what must be the same for a socket to serve on, by
        name. The idle sockets of the others are closed.
        """
        old, self._accounts = self._accounts, dict(accounts)
        changed = {name for name, same in old.items() if accounts.get(name) != same}
        for name in changed | (self.pool.accounts() - accounts.keys()):
            self.pool.retire(name)
            self._http_until.pop(name, None)
            self._no_chain_until.pop(name, None)

    async def stop(self) -> None:
        """Close every socket."""
        await self.pool.stop()


class AccountSockets:
    """The sockets that may serve one request: a ``SocketSource``."""

    def __init__(
        self,
        transport: SocketTransport,
        request: SocketRequest,
        headers: SocketHeaders,
    ) -> None:
        self._transport = transport
        self._request = request._replace(body=b"")
        self._headers = headers
        self._key = SocketKey(request.account, request.user, headers.digest)

    async def take(self, create: SocketCreate, *, new: bool) -> PooledSocket:
        """See ``SocketSource.take``."""
        transport, pooled = self._transport, None
        if not new:
            pooled = transport.maybe_idle(self._key, create)
        if pooled is None:
            pooled = await transport.connect(self._key, self._request, self._headers)
        limit = pooled.socket.headers.get(_MESSAGE_LIMIT, "")
        if limit.isdecimal() and create.size > int(limit[:18]):
            self.put_back(pooled, pooled.chain)
            raise AskOverHttp("larger than the upstream's messages")
        return pooled

    def put_back(self, pooled: PooledSocket, chain: Chain | None) -> None:
        """See ``SocketSource.put_back``."""
        self._transport.pool.put_back(pooled, chain)

    def forgets(self) -> None:
        """See ``SocketSource.forgets``."""
        self._transport.forgets(self._key.account)


def _now() -> float:
    return asyncio.get_running_loop().time()
