"""A gateway before an account that is spoken to over websockets, and its sockets."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.daemon.app import components_of
from gateway.transport.websocket.socket_pool import SocketPool
from tests.kit.gateway import Gateway
from tests.kit.settings import Table
from tests.kit.socket_upstream import SocketUpstream

MODEL = "responses-model"


def over_sockets(sockets: SocketUpstream, **fields: Any) -> Table:
    return {
        "name": "ws",
        "protocol": "responses",
        "base_url": sockets.base_url("ws"),
        "models": ["responses-*"],
        "transport": "websocket",
        **fields,
    }


def pool_of(gateway: Gateway) -> SocketPool:
    sockets = components_of(gateway.inside.app).upstream.sockets
    assert sockets
    return sockets.pool


async def no_leak(gateway: Gateway) -> None:
    """Every socket is idle, none is half open, and no task is left of one."""
    pool = pool_of(gateway)

    def settled() -> bool:
        return all(one.is_idle and one.socket.is_usable for one in pool.live.values())

    await gateway.log.wait_for(settled, "a socket is busy")
    assert not +pool._opening
    assert not [task for task in asyncio.all_tasks() if "drain" in task.get_name()]


async def ok_line(gateway: Gateway, **facts: Any) -> None:
    """The last request was answered by the one attempt at the account."""
    request_id = gateway.client().asked[-1]
    line = await gateway.log.wait_finished(request_id)
    expected = {"outcome": "ok", "account": "ws", "attempts": 1, **facts}
    assert expected == {name: line[name] for name in expected}


def message(text: str, role: str = "user") -> Any:
    kind = "input_text" if role == "user" else "output_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


TURN = [message("a")]
NEXT = [*TURN, message("All is well.", "assistant"), message("b")]
