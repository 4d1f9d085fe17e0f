"""The way to an account's server, step by step: its name, a connection, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from yarl import URL

from gateway.config.schema import Account
from gateway.errors import UpstreamError
from gateway.telemetry import log
from gateway.transport.dialing import tls_context
from gateway.transport.proxy_routing import maybe_proxy

STEP_S = 10.0


class WayStep(NamedTuple):
    """One step: whether it went well, milliseconds, what there is to say."""

    step: str
    ok: bool
    ms: float | None
    detail: str


async def way_to(account: Account) -> AsyncIterator[WayStep]:
    """The steps ``name``, ``connect`` and ``tls``, up to the first that fails."""
    skipped = _skipped(account)
    if skipped:
        for step in ("name", "connect", "tls"):
            yield WayStep(step, True, None, skipped)
        return
    parts = urlsplit(account.base_url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    loop, found = asyncio.get_running_loop(), ""

    async def name() -> str:
        nonlocal found
        rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = str(rows[0][4][0])
        return f"{len(rows)} addresses" if len(rows) > 1 else "1 address"

    async def connect() -> str:
        _, writer = await asyncio.open_connection(found, port)
        writer.close()
        return f"port {port}"

    async def tls() -> str:
        _, writer = await asyncio.open_connection(
            found, port, ssl=tls_context(), server_hostname=host
        )
        version = writer.get_extra_info("ssl_object").version()
        writer.close()
        return str(version)

    for step, act in (("name", name), ("connect", connect)):
        done = await _timed(step, act)
        yield done
        if not done.ok:
            return
    yield await _timed("tls", tls) if is_tls else WayStep("tls", True, None, "no TLS")


async def certificate_left_s(account: Account) -> float | None:
    """
    For how many seconds the certificate of *account*'s server is still valid; None
    without TLS, behind a proxy, or where it cannot be seen.
    """
    parts = urlsplit(account.base_url)
    if parts.scheme != "https" or _skipped(account):
        return None
    try:
        async with asyncio.timeout(STEP_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 443, ssl=tls_context()
            )
    except OSError:
        return None
    certificate = writer.get_extra_info("peercert") or {}
    writer.close()
    if "notAfter" not in certificate:
        return None
    return ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()


def _skipped(account: Account) -> str:
    """Why the steps are not taken; "" if they are."""
    if account.embedded:
        return "inside the gateway"
    try:
        proxy = maybe_proxy(URL(account.base_url), getproxies_environment())
    except UpstreamError:
        return "through a proxy that is not an HTTP one"
    return "through the proxy of the environment" if proxy else ""


async def _timed(step: str, act: Callable[[], object]) -> WayStep:
    began = time.monotonic()
    try:
        async with asyncio.timeout(STEP_S):
            detail = str(await act())  # type: ignore[misc]  # each is a coroutine
        ok = True
    except TimeoutError:
        ok, detail = False, f"nothing after {STEP_S:g} s"
    except OSError as error:  # ssl.SSLError and socket.gaierror are such
        ok, detail = False, log.detail(error.strerror or str(error) or repr(error))
    return WayStep(step, ok, round((time.monotonic() - began) * 1000, 1), detail)
