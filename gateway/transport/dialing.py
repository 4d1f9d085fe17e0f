"""
A new connection to an upstream: name, address, socket, TLS.

Rule 1: a host with several addresses is tried the happy-eyeballs way: the next one
        starts when the one before has not answered for a moment.
Rule 2: every way in which this fails is "upstream_connect".
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import ip_address
from typing import Any

import aiohappyeyeballs

from gateway.errors import UpstreamError
from gateway.transport.connection import Connection, Keeper
from gateway.transport.request import Origin

NEXT_ADDRESS_DELAY_S = 0.25
"""How long one address has before the next is tried beside it (RFC 8305, 5)."""

ADDRESSES_TTL_S = 10.0
"""How long the addresses of a name are taken from memory."""

_Addresses = list[tuple[Any, Any, int, str, Any]]  # as getaddrinfo gives them


def tls_context() -> ssl.SSLContext:
    """How https upstreams are checked: the system's authorities, the host's name."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Opens connections; remembers addresses for a few seconds."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._known: dict[Origin, tuple[float, _Addresses]] = {}

    async def dial(
        self, origin: Origin, keeper: Keeper, timeout_s: float
    ) -> Connection:
        """
        A connection to *origin*, ready for a request.

        Raises:
            UpstreamError: "upstream_connect".
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connect(origin, keeper)
        except TimeoutError as exc:  # ours, or the kernel's ETIMEDOUT
            detail = str(exc) or f"no connection after {timeout_s} s"
        except (OSError, ssl.SSLError, UnicodeError) as exc:
            detail = repr(exc)
        self._known.pop(origin, None)
        raise UpstreamError("upstream_connect", detail=f"{origin.host}: {detail}")

    async def _connect(self, origin: Origin, keeper: Keeper) -> Connection:
        loop = asyncio.get_running_loop()
        sock = await aiohappyeyeballs.start_connection(
            await self._addresses(origin),
            happy_eyeballs_delay=NEXT_ADDRESS_DELAY_S,
            interleave=1,
            loop=loop,
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # a peer that vanished is noticed even while no time-out runs
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        secure = origin.scheme == "https"
        _, connection = await loop.create_connection(
            lambda: Connection(origin, keeper),
            sock=sock,
            ssl=self._tls if secure else None,
            server_hostname=origin.host if secure else None,
        )
        return connection

    async def _addresses(self, origin: Origin) -> _Addresses:
        now = asyncio.get_running_loop().time()
        until, addresses = self._known.get(origin, (0.0, []))
        if now < until:
            return addresses
        addresses = literal_address(origin) or await _resolve(origin)
        self._known[origin] = (now + ADDRESSES_TTL_S, addresses)
        return addresses


async def _resolve(origin: Origin) -> _Addresses:
    loop = asyncio.get_running_loop()
    return list(
        await loop.getaddrinfo(
            origin.host,
            origin.port,
            type=socket.SOCK_STREAM,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_ADDRCONFIG,
        )
    )


def literal_address(origin: Origin) -> _Addresses:
    """The address that *origin*'s host is itself, if it is one: needs no thread."""
    try:
        address = ip_address(origin.host)
    except ValueError:
        return []
    if address.version == 6 and "%" in origin.host:
        return []  # the zone is the resolver's affair
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    place = (origin.host, origin.port) + ((0, 0) if address.version == 6 else ())
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)]
