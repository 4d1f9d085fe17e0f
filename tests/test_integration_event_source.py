"""
``aiohttp-sse-client``, a reader that is not ours, reads the gateway's streams.

It knows the standard and no protocol. At the end of a body it would connect again for
ever, so ``read`` stops it there.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp_sse_client.client import EventSource, MessageEvent

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.asking import LAST_EVENT, PATHS, question
from tests.kit.gateway import Gateway
from tests.kit.scripted import Play, ScriptedUpstream

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


class Over(Exception):
    """The body is at its end."""


async def read(gateway: Gateway, protocol: str, model: str) -> list[MessageEvent]:
    """Every event until the gateway closes the body."""

    def stop() -> None:
        raise Over

    events = []
    client = gateway.client()
    source = EventSource(
        gateway.base_url + PATHS[protocol],
        option={"method": "POST"},
        session=client.session,
        on_error=stop,
        json=question(protocol, model),
        headers={"authorization": f"Bearer {client.key}"},
    )
    try:
        async with source:
            async for event in source:
                events.append(event)
    except Over:
        pass
    return events


def kind(event: MessageEvent) -> str:
    if event.data == "[DONE]":
        return str(event.data)
    return str(json.loads(event.data).get("type", event.type))


@each_protocol
@pytest.mark.parametrize(
    "play",
    [plays.ok(), plays.shaped(chunk=1), plays.shaped(last_blank_line=False)],
    ids=["plain", "split-at-every-byte", "no-last-blank-line"],
)
async def test_a_whole_stream(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, play: Play
) -> None:
    upstream.next(play)

    events = await read(gateway, protocol, f"{protocol}-x")

    assert LAST_EVENT[protocol] == kind(events[-1])
    assert "well" in "".join(event.data for event in events)


ENDINGS = {"responses": "response.failed", "chat": "error", "messages": "error"}


@each_protocol
@pytest.mark.parametrize(
    "play",
    [plays.cut(2), plays.eof(2), plays.reset(2), plays.half_event(2)],
    ids=["cut", "eof", "reset", "half-event"],
)
async def test_a_broken_stream_ends_with_the_named_event(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, play: Play
) -> None:
    upstream.next(play)

    events = await read(gateway, protocol, f"{protocol}-x")

    assert ENDINGS[protocol] == events[-1].type
    error = json.loads(events[-1].data)["error"]
    assert endings.FAILED[protocol] == error["type"]
    assert "(request id: " in error["message"]
    assert ENDINGS[protocol] not in [event.type for event in events[:-1]]


@each_protocol
async def test_a_queue_that_is_waited_in(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Comments are no events; the ending after them is the only one."""
    gateway = await serve(
        limits={"max_concurrent": 1, "ping_interval_s": 0.05, "queue_timeout_s": 0.9}
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    holder = asyncio.create_task(gateway.client().ask("chat", "chat-x"))
    await upstream.wait_for(1)
    events = await read(gateway, protocol, f"{protocol}-x")
    gate.set()
    await holder

    assert [ENDINGS[protocol]] == [event.type for event in events]
    error = json.loads(events[0].data)["error"]
    assert error["message"].startswith("Concurrency limit exceeded for user")
