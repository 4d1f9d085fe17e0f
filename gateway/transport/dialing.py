"""
A new connection to an upstream: name, address, socket, proxy, TLS.

Rule 1: the addresses of a host are tried by happy eyeballs: the next attempt starts
        when the one before has not answered for a moment.
Rule 2: every failure is "upstream_connect". The exception is a shortage of sockets in
        this process: that is "gateway_overloaded", and no account's fault.

    socket ─▶ [TLS to the proxy] ─▶ [CONNECT] ─▶ [TLS to the origin] ─▶ Connection
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import cache
from ipaddress import ip_address

import aiohappyeyeballs

from gateway.errors import UpstreamError
from gateway.transport.connection import Connection, ConnectionOwner
from gateway.transport.gathering import Gathering
from gateway.transport.proxy_tunnel import ProxyTunnel, TunnelRefused, connect_request
from gateway.transport.request import Origin, Route, authority_of
from gateway.transport.resolver import Resolver
from gateway.transport.shortage import (
    AddressInfo,
    ConnectAttempts,
    Shortage,
    create_socket,
)
from gateway.transport.tls import TlsStream
from gateway.transport.tls_sessions import TlsSessions

NEXT_ADDRESS_DELAY_S = 0.25
"""The head start of one address before the next is tried beside it (RFC 8305, 5)."""


@cache
def tls_context() -> ssl.SSLContext:
    """
    TLS towards upstreams: the system's authorities, the host's name is checked.

    A process has one: to read the authorities takes some 0.04 seconds, so a daemon
    does that when it listens already, in a thread.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # ``TlsStream`` cannot
    return context


class Dialer:
    """
    Opens connections.

    Args:
        tls: None for the process's own, which is made when it is needed.
        resolver: the process has one.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
        shortage: Shortage | None = None,
        gathering: Gathering | None = None,
    ) -> None:
        self.gathering = gathering or Gathering()
        self._tls = tls
        self._tls_sessions = TlsSessions()
        self._resolver = resolver or Resolver()
        self._shortage = shortage or Shortage()

    async def dial(
        self, route: Route, owner: ConnectionOwner, timeout_s: float
    ) -> Connection:
        """
        A connection by *route*, ready for a request.

        Args:
            timeout_s: for all steps together, the proxy's answer included.

        Raises:
            UpstreamError: "upstream_connect".
            Overloaded: "gateway_overloaded".
        """
        peer = route.proxy.origin if route.proxy else route.origin
        addresses: list[AddressInfo] = []
        attempts = ConnectAttempts()
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._addresses(peer)
                return await self._connect(route, addresses, owner, attempts)
        except TimeoutError as exc:  # ours, or the kernel's ETIMEDOUT
            detail = str(exc) or f"no connection after {timeout_s} s"
        except TunnelRefused as exc:
            detail = str(exc)
        except (OSError, ssl.SSLError, ValueError) as exc:  # or no host name
            if own := attempts.shortage(exc):
                raise self._shortage.refusal(own) from None
            detail = repr(exc)
        if addresses:
            self._resolver.expire(peer.host)
        via = f" by the proxy {authority_of(peer)}" if route.proxy else ""
        raise UpstreamError(
            "upstream_connect", detail=f"{route.origin.host}{via}: {detail}"
        )

    async def _connect(
        self,
        route: Route,
        addresses: list[AddressInfo],
        owner: ConnectionOwner,
        attempts: ConnectAttempts,
    ) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(route, owner, self.gathering)
        lowest = self._layers(route, connection)
        # A transport keeps the context that it was made in: not with these attempts.
        with attempts.recorded():
            sock = await aiohappyeyeballs.start_connection(
                addresses,
                happy_eyeballs_delay=NEXT_ADDRESS_DELAY_S,
                interleave=1,
                loop=loop,
                socket_factory=create_socket,
            )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # a peer that vanished is noticed even while no timeout runs
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        transport, _ = await loop.create_connection(lambda: lowest, sock=sock)
        try:
            await connection.opened()
        except BaseException:
            transport.abort()
            raise
        return connection

    def _layers(self, route: Route, connection: Connection) -> asyncio.Protocol:
        """Put below *connection* what *route* needs; the lowest reads the socket."""
        lowest: asyncio.Protocol = connection
        if route.origin.scheme == "https":
            lowest = self._encrypted(route.origin, lowest)
        if route.proxy is not None and not route.is_forwarded:
            lowest = ProxyTunnel(connect_request(route, route.proxy), lowest)
        if route.proxy is not None and route.proxy.origin.scheme == "https":
            lowest = self._encrypted(route.proxy.origin, lowest)
        return lowest

    def _encrypted(self, origin: Origin, above: asyncio.Protocol) -> TlsStream:
        server = self._tls_sessions.of(origin.host, origin.port)
        return TlsStream(self._tls or tls_context(), origin.host, above, server)

    async def _addresses(self, peer: Origin) -> list[AddressInfo]:
        if literal := literal_address(peer):
            return literal
        return await self._resolver.addresses(peer.host, peer.port)


def literal_address(origin: Origin) -> list[AddressInfo]:
    """The host of *origin* as an address, if it is one; needs no thread."""
    try:
        address = ip_address(origin.host)
    except ValueError:
        return []
    if address.version == 6 and "%" in origin.host:
        return []  # the zone is the resolver's work
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    place = (origin.host, origin.port) + ((0, 0) if address.version == 6 else ())
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)]
