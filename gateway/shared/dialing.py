"""
From an address to a ready connection: sentinels, TLS, RESP3, password, database.

The whole of it has ``DIAL_S``: a caller goes on without the engine after that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway.shared.address import EngineAddress, Host
from gateway.shared.connection import EngineConnection, OnPush
from gateway.shared.errors import EngineLost, EngineRefused

DIAL_S = 1.0
SENTINEL_S = 0.3  # for one of them, before the next is asked


async def dial(
    address: EngineAddress,
    name: str,
    on_push: OnPush = lambda channel, message: None,
    on_lost: Callable[[EngineLost], object] = lambda error: None,
    *,
    dial_s: float = DIAL_S,
) -> EngineConnection:
    """
    A connection to the engine at *address*.

    Args:
        name: what the engine's list of clients shows.
        on_lost: not called for a connection that never was ready.

    Raises:
        EngineLost: it cannot be reached in time.
        EngineRefused: it does not let us in, or does not speak RESP3.
    """
    ready = False

    def lost(error: EngineLost) -> None:
        if ready:
            on_lost(error)

    connection = EngineConnection(on_push, lost)
    try:
        async with asyncio.timeout(dial_s):
            host = await _master(address) if address.master else None
            await _connect(connection, address, host)
            await _introduce(connection, address, name)
    except BaseException as error:
        await connection.closed()
        if isinstance(error, TimeoutError):
            raise EngineLost("no connection in time") from None
        raise
    if connection.lost:
        raise connection.lost
    ready = True
    return connection


async def _connect(
    connection: EngineConnection, address: EngineAddress, host: Host | None
) -> None:
    loop = asyncio.get_running_loop()
    try:
        if address.path:
            await loop.create_unix_connection(lambda: connection, address.path)
            return
        where = host or address.hosts[0]
        if host is not None:
            connection.place = f"{host.name}:{host.port}"
        context = _tls(address) if address.tls else None
        await loop.create_connection(
            lambda: connection,
            where.name,
            where.port,
            ssl=context,
            server_hostname=where.name if context else None,
        )
    except ssl.SSLError as error:
        raise EngineRefused(f"TLS: {error.reason or 'failed'}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise EngineLost(f"cannot connect: {reason}") from None


def _tls(address: EngineAddress) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=address.ca or None)
    except OSError as error:
        reason = error.strerror or "no certificates"
        raise EngineRefused(f"{address.ca} cannot be read: {reason}") from None


async def _introduce(
    connection: EngineConnection, address: EngineAddress, name: str
) -> None:
    """Our protocol, password, name and database; with sentinels, also its role."""
    words = ["HELLO", "3"]
    if address.password:
        words += ["AUTH", address.user or "default", address.password]
    replies = [connection.send(*words, "SETNAME", name)]
    if address.db:
        replies.append(connection.send("SELECT", address.db))
    if address.master:
        replies.append(connection.send("ROLE"))
    # All are read: the first failure ends the connection, and so the others.
    found = await asyncio.gather(*replies, return_exceptions=True)
    for one in found:
        if isinstance(one, EngineLost):
            refused = "refused" in str(one)
            raise EngineRefused(str(one)) if refused else one
        if isinstance(one, BaseException):
            raise one
    if address.master and _text(found[-1], 0) != "master":
        raise EngineLost("the sentinels name an engine that is no primary")


# --- sentinels ------------------------------------------------------------------------


async def _master(address: EngineAddress) -> Host:
    """
    Where the primary is, by the first sentinel that knows.

    Raises:
        EngineLost: none of them knows.
    """
    why = "no sentinel answers"
    for host in address.hosts:
        with suppress(TimeoutError, EngineLost):
            async with asyncio.timeout(SENTINEL_S):
                found = await _ask_sentinel(address, host)
            if found:
                return found
            why = f"no sentinel knows {address.master}"
    raise EngineLost(why)


async def _ask_sentinel(address: EngineAddress, host: Host) -> Host | None:
    connection = EngineConnection()
    try:
        await _connect(connection, address, host)
        if address.sentinel_password:
            connection.cast("AUTH", address.sentinel_password)
        reply = await connection.send(
            "SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master
        )
        name, port = _text(reply, 0), _text(reply, 1)
        return Host(name, int(port)) if name and port.isdecimal() else None
    finally:
        await connection.closed()


def _text(reply: Any, index: int) -> str:
    if isinstance(reply, list) and len(reply) > index:
        item = reply[index]
        return item.decode("utf-8", "replace") if isinstance(item, bytes) else ""
    return ""
