"""An account that is asked over websockets is changed while some are in use."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Serve
from tests.kit import endings
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.settings import Table, secret_name
from tests.kit.socket_account import MODEL, over_sockets
from tests.kit.socket_upstream import SocketUpstream, gated, ok
from tests.test_integration_reload_daemon import reloaded


async def ask(gateway: Gateway) -> Reply:
    return await gateway.client().ask("responses", MODEL)


async def change(
    gateway: Gateway, sockets: SocketUpstream, accounts: list[Table]
) -> None:
    """Take up *accounts* while one socket is busy and one is idle."""
    gate, asked = asyncio.Event(), len(sockets.asked)
    sockets.next(gated(gate, ok()))
    busy = asyncio.create_task(ask(gateway))
    await gateway.log.wait_for(lambda: len(sockets.asked) > asked, "it is not asked")
    endings.whole("responses", await ask(gateway))
    open_before = len(sockets.live)

    gateway.daemon.configure(accounts=accounts)
    await reloaded(gateway.daemon)
    await gateway.log.wait_for(lambda: 1 == len(sockets.live), "an idle one is open")
    gate.set()
    endings.whole("responses", await busy)
    await gateway.log.wait_for(lambda: not sockets.live, "one of before is open")
    assert 2 == open_before


@pytest.mark.timeout(120)
async def test_what_runs_ends_well_and_what_follows_uses_the_new_account(
    serve: Serve, sockets: SocketUpstream
) -> None:
    other = {**over_sockets(sockets), "name": "other", "models": ["other-*"]}
    first = {**over_sockets(sockets), "api_key": f"env:{secret_name('ws')}"}
    gateway = await serve(daemon=True, accounts=[first, other])

    await change(gateway, sockets, [{**first, "transport": "http"}, other])
    endings.whole("responses", await ask(gateway))
    assert (1, 0) == (len(sockets.posted), len(sockets.live))

    gateway.daemon.configure(accounts=[first, other])
    await reloaded(gateway.daemon)
    endings.whole("responses", await ask(gateway))
    assert (1, 1) == (len(sockets.posted), len(sockets.live))
    assert "Bearer sk-ws" == sockets.handshakes[-1]["authorization"]

    new_key = {**first, "api_key": f"env:{secret_name('other')}"}
    await change(gateway, sockets, [new_key, other])
    endings.whole("responses", await ask(gateway))
    assert "Bearer sk-other" == sockets.handshakes[-1]["authorization"]

    await change(gateway, sockets, [other])
    assert 404 == (await ask(gateway)).status
    assert not sockets.live
