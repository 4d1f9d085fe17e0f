"""Requests that wait in the queue of the gateway."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.kit import endings, plays
from tests.kit.asking import Client
from tests.kit.scripted import ScriptedUpstream

ONE = {"max_concurrent": 1, "ping_interval_s": 0.05}
COMMENT = re.compile(rb": queued position=(\d+)( expected=\d+s)?")


@asynccontextmanager
async def holding(
    client: Client,
    upstream: ScriptedUpstream,
    model: str = "responses-hold",
    protocol: str = "responses",
    **options: Any,
) -> AsyncIterator[asyncio.Event]:
    """Somebody of this user runs until the event is set, or the block is over."""
    gate = asyncio.Event()
    upstream.next(plays.held(gate), model=model)
    before = len(upstream.received())
    task = asyncio.create_task(client.ask(protocol, model, **options))
    await upstream.wait_for(before + 1)
    try:
        yield gate
    finally:
        gate.set()
        endings.whole(protocol, await task)


async def queued(response: object) -> int:
    """The place in the queue that the next comment tells."""
    line = await response.content.readuntil(b"\n\n")  # type: ignore[attr-defined]
    match = COMMENT.match(line)
    assert match, line
    return int(match[1])
