"""The OpenAI SDKs over a websocket, as their users write it."""

from __future__ import annotations

import asyncio

import pytest
from openai import AsyncOpenAI
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketError,
    ResponsesWebSocketLimits,
)

from tests.conftest import Serve
from tests.kit import clients, plays
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import key_of, user

LIMITS = ResponsesWebSocketLimits(
    max_lanes=8,
    max_events_per_lane=500,
    max_events=1000,
    max_bytes_per_lane=1 << 22,
    max_bytes=1 << 22,
    max_response_bytes=None,
)


def openai(gateway: Gateway) -> AsyncOpenAI:
    url = f"{gateway.base_url}/v1"
    return AsyncOpenAI(base_url=url, api_key=key_of("alice"), max_retries=0)


async def test_openai_python_goes_on_from_a_response(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async with openai(gateway) as sdk, sdk.responses.connect() as connection:
        ident = None
        for said in ("first", "second"):
            await connection.response.create(
                model="chat-a",
                input=said,
                store=False,
                **({"previous_response_id": ident} if ident else {}),
            )
            text = ""
            async for event in connection:
                if event.type == "response.output_text.delta":
                    text += event.delta
                if event.type == "response.completed":
                    ident = event.response.id
                    break
            assert "All is well." == text

    assert b"first" in upstream.received()[1].body


async def test_openai_python_runs_lanes_and_reads_failures(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(
        users=[user("alice", max_concurrent=2)], limits={"ping_interval_s": 0.1}
    )
    upstream.next(plays.cut(2), model="responses-cut")
    upstream.next(plays.ok(interval_s=0.15), model="responses-a")
    async with (
        openai(gateway) as sdk,
        sdk.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        names = {"a": "responses-a", "b": "chat-a", "c": "messages-a"}
        lanes = {name: session.lane(name) for name in names}
        for name, model in names.items():
            await lanes[name].send(_create(model))
        done = await asyncio.gather(
            *[lane.get_final_response() for lane in lanes.values()]
        )
        cut = session.lane("cut")
        await cut.send(_create("responses-cut"))
        failed = await cut.get_final_response()
        unknown = session.lane("unknown")
        await unknown.send(_create("nothing"))
        with pytest.raises(ResponsesWebSocketError) as raised:
            await unknown.get_final_response()

    assert ["All is well."] * 3 == [response.output_text for response in done]
    assert "failed" == failed.status and failed.error
    assert "request id: " in failed.error.message
    assert "model_not_found" in str(raised.value.event)


def _create(model: str) -> dict[str, str]:
    return {"type": "response.create", "model": model, "input": "x"}


@clients.needs_node_sdks
@clients.needs_node_websockets
async def test_openai_node(gateway: Gateway) -> None:
    models = ("responses-a", "chat-a", "messages-a", "nothing")
    rows = await clients.node(
        "responsesWebSocket", f"{gateway.base_url}/v1", key_of("alice"), *models
    )

    for model in models[:3]:
        assert ("All is well.", "response.completed", None) == (
            rows[model]["text"],
            rows[model]["terminal"],
            rows[model]["error"],
        )
    assert "No account serves" in rows["nothing"]["error"]["message"]
