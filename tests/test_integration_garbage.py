"""
What a request has made is gone with it, and does not wait for the cycle collector.

A body may have megabytes, and the collector of a busy gateway would stop it to find
them.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.queueing import ONE, holding
from tests.kit.scripted import ScriptedUpstream

PAIRS = [(a, b) for a in answers.PROTOCOLS for b in answers.PROTOCOLS]


@contextmanager
def no_garbage() -> Iterator[None]:
    """Nothing that the block has made is left over for the collector."""
    gc.collect()
    gc.disable()
    # What stood before is not looked at: the gateway of an earlier test may come free
    # at any moment.
    gc.freeze()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [type(found) for found in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
    own = (kind for kind in kinds if kind.__module__.startswith("gateway."))
    assert {} == Counter(kind.__qualname__ for kind in own)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("client", "account"), PAIRS)
async def test_an_answer(
    serve: Serve, upstream: ScriptedUpstream, client: str, account: str, stream: bool
) -> None:
    gateway = await serve()
    asker = gateway.client()

    async def ask() -> None:
        reply = await asker.ask(client, f"{account}-x", stream=stream)
        if stream:
            endings.whole(client, reply)
        assert 200 == reply.status
        await gateway.log.wait_finished(asker.asked[-1])
        await upstream.idle()

    await ask()
    with no_garbage():
        await ask()


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(plays.status(500), id="refused"),
        pytest.param(plays.cut(2), id="cut"),
        pytest.param(plays.reset(2), id="reset"),
    ],
)
async def test_a_failure(
    serve: Serve, upstream: ScriptedUpstream, play: plays.Play
) -> None:
    gateway = await serve()
    asker = gateway.client()

    async def ask() -> None:
        upstream.next(play)
        await asker.ask("responses", "responses-x")
        await gateway.log.wait_finished(asker.asked[-1])
        await upstream.idle()

    await ask()
    with no_garbage():
        await ask()


async def test_who_waited_in_line(serve: Serve, upstream: ScriptedUpstream) -> None:
    gateway = await serve(limits={**ONE, "ping_interval_s": 0.01})
    asker = gateway.client()

    async def ask() -> None:
        async with holding(asker, upstream):
            waiting = asyncio.create_task(asker.ask("chat", "chat-x"))
            await gateway.inside.waiting("alice", 1)
        endings.whole("chat", await waiting)
        await upstream.idle()

    await ask()
    with no_garbage():
        await ask()
