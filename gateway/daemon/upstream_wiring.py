"""The way to the upstreams: one dialer, and what speaks HTTP or websocket over it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from urllib.request import getproxies_environment

from gateway.config.schema import Config
from gateway.content_coding import DecodeScheduler
from gateway.relay.upstream import Upstream, socket_transport
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer, tls_context
from gateway.transport.http_transport import HttpTransport
from gateway.transport.proxy_routing import proxy_rule
from gateway.transport.shortage import Shortage


def make_upstream(
    config: Config, scheduler: DecodeScheduler, shortage: Shortage
) -> Upstream:
    """The way to the accounts of *config*."""
    dialer = Dialer(shortage=shortage)
    proxies = proxy_rule(getproxies_environment())
    transport = HttpTransport(ConnectionPool(dialer), scheduler, proxies)
    make_sockets = partial(socket_transport, dialer, transport, proxies)
    upstream = Upstream(transport, config.upstream, make_sockets, dialer.gathering)
    replace_upstream(upstream, config)
    return upstream


async def warm_up(config: Config) -> None:
    """Make what the first connection by TLS would otherwise have to wait for."""
    proxies = getproxies_environment().values()
    servers = [account.base_url for account in config.account]
    if any(url.lower().startswith("https:") for url in (*servers, *proxies)):
        with suppress(OSError):  # no descriptor is left; the first connection says so
            await asyncio.to_thread(tls_context)


def replace_upstream(upstream: Upstream, config: Config) -> None:
    """Take up a changed *config*."""
    upstream.replace(config.upstream, config.account)
    upstream.gathering.set_period(config.server.coalesce_ms / 1000)
