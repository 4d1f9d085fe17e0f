"""The scripted upstream does what a test tells it, as real clients see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import anthropic
import openai
import pytest

from tests.kit import answers, plays
from tests.kit.answer import Answer, Tool
from tests.kit.asking import LAST_EVENT, Client
from tests.kit.scripted import Play, ScriptedUpstream


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(default=plays.ok()) as server:
        yield server


@pytest.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(upstream.base_url("a"), "k", session)


@pytest.fixture(autouse=True)
def without_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account's base URL ends before the endpoint, the gateway's before /v1."""
    bare = {"responses": "/responses", "chat": "/chat/completions"}
    monkeypatch.setattr("tests.kit.asking.PATHS", {**bare, "messages": "/messages"})


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
async def test_a_whole_stream_ends_with_the_last_word(
    client: Client, protocol: str
) -> None:
    reply = await client.ask(protocol, "m")

    assert LAST_EVENT[protocol] == reply.last.kind
    assert "All is well." == reply.text


SHAPES = [
    pytest.param(plays.shaped(line_end=b"\r\n"), id="crlf"),
    pytest.param(plays.shaped(chunk=1), id="split-at-every-byte"),
    pytest.param(plays.shaped(last_blank_line=False), id="no-last-blank-line"),
]


@pytest.mark.parametrize("play", SHAPES)
async def test_odd_shapes_are_the_same_answer(
    client: Client, upstream: ScriptedUpstream, play: Play
) -> None:
    upstream.next(play)

    reply = await client.ask("responses", "m")

    assert "response.completed" == reply.last.kind


BREAKS = [
    pytest.param(plays.eof(1), False, id="eof"),
    pytest.param(plays.cut(1), True, id="cut"),
    pytest.param(plays.reset(1), True, id="reset"),
    pytest.param(plays.half_event(1), False, id="half-event"),
    pytest.param(plays.half_event(1, broken=True), True, id="half-event-then-cut"),
]


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
@pytest.mark.parametrize("play, broken", BREAKS)
async def test_a_break_comes_after_what_was_written(
    client: Client,
    upstream: ScriptedUpstream,
    protocol: str,
    play: Play,
    broken: bool,
) -> None:
    upstream.next(play)

    reply = await client.ask(protocol, "m")

    assert broken == reply.broken
    assert b"All " in reply.body
    assert b"well" not in reply.body


@pytest.mark.parametrize("play", [plays.cut(None), plays.reset(None)])
async def test_a_break_may_come_before_the_head(
    client: Client, upstream: ScriptedUpstream, play: Play
) -> None:
    upstream.next(play)

    with pytest.raises(aiohttp.ClientConnectionError):
        await client.ask("chat", "m")


async def test_live_requests_are_counted_by_account(
    client: Client, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.always(plays.held(gate), account="a")
    asking = [asyncio.create_task(client.ask("chat", "m")) for _ in range(3)]
    await upstream.wait_for(3)

    assert 3 == upstream.live["a"]

    gate.set()
    await asyncio.gather(*asking)
    await upstream.idle()

    assert (0, 3) == (upstream.live["a"], upstream.most["a"])
    assert 3 == upstream.most_served("a")


async def test_a_client_that_hangs_up_is_noticed(
    client: Client, upstream: ScriptedUpstream
) -> None:
    upstream.next(plays.silence(1))
    async with client.open("messages", "m") as response:
        await response.content.readany()
        response.close()
    await upstream.idle()

    assert upstream.requests[0].cut_by_client
    assert 0 == upstream.live["a"]


async def test_what_is_queued_for_a_model_goes_before_the_rest(
    client: Client, upstream: ScriptedUpstream
) -> None:
    upstream.always(plays.status(500))
    upstream.always(plays.status(501), model="m")
    upstream.next(plays.status(502), account="a", model="m")

    statuses = [(await client.ask("chat", "m")).status for _ in range(2)]

    assert [502, 501] == statuses
    assert 500 == (await client.ask("chat", "other")).status


async def test_the_request_is_kept_as_it_came(
    client: Client, upstream: ScriptedUpstream
) -> None:
    await client.ask("chat", "m", headers={"x-anything": "1"}, extra=[1, 2])

    request = upstream.requests[0]
    assert ("m", "k", "1") == (
        request.model,
        request.key,
        request.headers["x-anything"],
    )
    assert [1, 2] == request.json["extra"]


CALL = Answer(tool=Tool("look", {"at": "that"}), reasoning="hm")


async def test_openai_reads_the_streams(upstream: ScriptedUpstream) -> None:
    """The answers are right in the eyes of the vendor's own reader."""
    upstream.always(plays.ok(CALL), model="call")
    async with openai.AsyncOpenAI(
        base_url=upstream.base_url("a"), api_key="k", max_retries=0
    ) as sdk:
        async with sdk.responses.stream(model="m", input="x") as stream:
            assert "All is well." == (await stream.get_final_response()).output_text
        async with sdk.responses.stream(model="call", input="x") as stream:
            item = (await stream.get_final_response()).output[1]
            assert '{"at": "that"}' == item.arguments  # type: ignore[union-attr]
        body = await sdk.responses.create(model="m", input="x")
        assert "All is well." == body.output_text
        async with sdk.chat.completions.stream(
            model="call", messages=[{"role": "user", "content": "x"}]
        ) as chat:
            calls = (await chat.get_final_completion()).choices[0].message.tool_calls
            assert "look" == calls[0].function.name  # type: ignore[index]


async def test_anthropic_reads_the_streams(upstream: ScriptedUpstream) -> None:
    """The answers are right in the eyes of the vendor's own reader."""
    upstream.always(plays.ok(CALL), model="call")
    async with anthropic.AsyncAnthropic(
        base_url=upstream.base_url("a"), api_key="k", max_retries=0
    ) as sdk:
        said = [{"role": "user", "content": "x"}]
        upstream.requests.clear()
        async with sdk.messages.stream(
            model="call", max_tokens=9, messages=said  # type: ignore[arg-type]
        ) as stream:
            message = await stream.get_final_message()

    assert ["thinking", "tool_use"] == [block.type for block in message.content]
    assert {"at": "that"} == message.content[1].input  # type: ignore[union-attr]
