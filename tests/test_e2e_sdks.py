"""
The vendors' SDKs for Python in front of the gateway.

Every way to read an answer, raw and by helper: a turn, and each kind of failure with
its true reason. Partial text and then a cut must never pass for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest

from tests.conftest import Serve
from tests.kit import answers, plays
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import key_of, user

pytestmark = pytest.mark.timeout(120)

SAID: Any = [{"role": "user", "content": "say something"}]
Read = Callable[[Any, str, list[str]], Awaitable[bool]]
"""Reads one answer into the list; whether it came to its proper end."""


# --- the ways to read ---


async def responses_raw(sdk: Any, model: str, text: list[str]) -> bool:
    whole = False
    async for event in await sdk.responses.create(
        model=model, input="say something", stream=True
    ):
        if event.type == "response.output_text.delta":
            text.append(event.delta)
        whole = event.type == "response.completed"
    return whole


async def responses_helper(sdk: Any, model: str, text: list[str]) -> bool:
    async with sdk.responses.stream(model=model, input="say something") as stream:
        response = await stream.get_final_response()
    text.append(response.output_text)
    return bool(response.status == "completed")


async def responses_body(sdk: Any, model: str, text: list[str]) -> bool:
    response = await sdk.responses.create(model=model, input="say something")
    text.append(response.output_text)
    return bool(response.status == "completed")


async def chat_raw(sdk: Any, model: str, text: list[str]) -> bool:
    whole = False
    async for chunk in await sdk.chat.completions.create(
        model=model, messages=SAID, stream=True
    ):
        for choice in chunk.choices:
            text.append(choice.delta.content or "")
            whole = whole or bool(choice.finish_reason)
    return whole


async def chat_helper(sdk: Any, model: str, text: list[str]) -> bool:
    async with sdk.chat.completions.stream(model=model, messages=SAID) as stream:
        choice = (await stream.get_final_completion()).choices[0]
    text.append(choice.message.content)
    return bool(choice.finish_reason)


async def chat_body(sdk: Any, model: str, text: list[str]) -> bool:
    body = await sdk.chat.completions.create(model=model, messages=SAID)
    text.append(body.choices[0].message.content)
    return bool(body.choices[0].finish_reason)


async def messages_raw(sdk: Any, model: str, text: list[str]) -> bool:
    whole = False
    async for event in await sdk.messages.create(
        model=model, max_tokens=99, messages=SAID, stream=True
    ):
        if event.type == "content_block_delta":
            text.append(event.delta.text)
        whole = event.type == "message_stop"
    return whole


async def messages_helper(sdk: Any, model: str, text: list[str]) -> bool:
    async with sdk.messages.stream(model=model, max_tokens=99, messages=SAID) as stream:
        message = await stream.get_final_message()
    text.append(message.content[0].text)
    return bool(message.stop_reason)


async def messages_body(sdk: Any, model: str, text: list[str]) -> bool:
    message = await sdk.messages.create(model=model, max_tokens=99, messages=SAID)
    text.append(message.content[0].text)
    return bool(message.stop_reason)


STREAMS = [
    responses_raw,
    responses_helper,
    chat_raw,
    chat_helper,
    messages_raw,
    messages_helper,
]
ALL = [*STREAMS, responses_body, chat_body, messages_body]
each_stream = pytest.mark.parametrize("read", STREAMS, ids=lambda read: read.__name__)
each_way = pytest.mark.parametrize("read", ALL, ids=lambda read: read.__name__)


def protocol_of(read: Read) -> str:
    return read.__name__.partition("_")[0]


@asynccontextmanager
async def sdk_of(gateway: Gateway, read: Read, key: str = "") -> AsyncIterator[Any]:
    """The vendor's client of the protocol; it repeats nothing."""
    options: Any = {"api_key": key or key_of("alice"), "max_retries": 0}
    if protocol_of(read) == "messages":
        async with anthropic.AsyncAnthropic(
            base_url=gateway.base_url, **options
        ) as one:
            yield one
    else:
        async with openai.AsyncOpenAI(
            base_url=gateway.base_url + "/v1", **options
        ) as other:
            yield other


@each_way
@pytest.mark.parametrize("account", answers.PROTOCOLS)
async def test_a_turn_on_an_account_of_each_protocol(
    serve: Serve, read: Read, account: str
) -> None:
    gateway = await serve()
    text: list[str] = []
    async with sdk_of(gateway, read) as sdk:
        whole = await read(sdk, f"{account}-x", text)

    assert (True, "All is well.") == (whole, "".join(text))


@each_way
async def test_a_turn_on_the_trial_account(serve: Serve, read: Read) -> None:
    gateway = await serve()
    text: list[str] = []
    async with sdk_of(gateway, read) as sdk:
        whole = await read(sdk, "trial", text)

    assert whole and "say something" in "".join(text)


@each_stream
@pytest.mark.parametrize(
    "play",
    [plays.cut(2), plays.reset(2), plays.eof(2), plays.half_event(2)],
    ids=["cut", "reset", "eof", "half-event"],
)
@pytest.mark.parametrize("account", answers.PROTOCOLS)
async def test_partial_text_and_then_a_cut_raises_the_true_reason(
    serve: Serve, upstream: ScriptedUpstream, read: Read, play: Any, account: str
) -> None:
    gateway = await serve()
    upstream.next(play, account=account)
    text: list[str] = []
    async with sdk_of(gateway, read) as sdk:
        with pytest.raises((openai.APIError, anthropic.APIError)) as raised:
            await read(sdk, f"{account}-x", text)

    message = str(raised.value)
    assert "The upstream " in message and "(request id: " in message
    assert "".join(text) in ("", "All is ")
    request_id = message.partition("(request id: ")[2].partition(")")[0]
    await gateway.log.wait_finished(request_id)
    gateway.log.explains(request_id)


@each_stream
async def test_a_queue_time_out_after_pings_raises_the_true_reason(
    serve: Serve, upstream: ScriptedUpstream, read: Read
) -> None:
    gateway = await serve(
        users=[user("alice", max_concurrent=1)],
        limits={"ping_interval_s": 0.05, "queue_timeout_s": 0.4},
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    holder = asyncio.create_task(gateway.client().ask("chat", "chat-x"))
    await upstream.wait_for(1)
    async with sdk_of(gateway, read) as sdk:
        with pytest.raises((openai.APIError, anthropic.APIError)) as raised:
            await read(sdk, f"{protocol_of(read)}-x", [])
    gate.set()
    await holder

    message = str(raised.value)
    assert "Concurrency limit exceeded for user (1 of 1 running" in message
    assert "(request id: " in message


@each_way
async def test_a_queue_time_out_before_pings_is_a_typed_429(
    serve: Serve, upstream: ScriptedUpstream, read: Read
) -> None:
    gateway = await serve(
        users=[user("alice", max_concurrent=1)],
        limits={"ping_interval_s": 5.0, "queue_timeout_s": 0.1},
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    holder = asyncio.create_task(gateway.client().ask("chat", "chat-x"))
    await upstream.wait_for(1)
    async with sdk_of(gateway, read) as sdk:
        with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as error:
            await read(sdk, f"{protocol_of(read)}-x", [])
    gate.set()
    await holder

    raised: Any = error.value
    assert "Concurrency limit exceeded for user" in str(raised)
    assert 1 <= int(raised.response.headers["retry-after"]) <= 60
    await gateway.log.wait_finished(raised.request_id)
    gateway.log.explains(raised.request_id)


REFUSALS: list[Any] = [
    pytest.param(
        "gw-wrong",
        "{}-x",
        (openai.AuthenticationError, anthropic.AuthenticationError),
        "This API key is not known",
        id="unknown-key",
    ),
    pytest.param(
        "",
        "no-such-model",
        (openai.NotFoundError, anthropic.NotFoundError),
        "No account serves",
        id="unknown-model",
    ),
]


@each_way
@pytest.mark.parametrize("key, model, raises, sentence", REFUSALS)
async def test_a_refusal_is_a_typed_exception_with_its_id(
    serve: Serve, read: Read, key: str, model: str, raises: Any, sentence: str
) -> None:
    gateway = await serve()
    async with sdk_of(gateway, read, key) as sdk:
        with pytest.raises(raises) as error:
            await read(sdk, model.format(protocol_of(read)), [])

    raised: Any = error.value
    assert sentence in str(raised)
    assert raised.request_id in str(raised)
    await gateway.log.wait_finished(raised.request_id)
    gateway.log.explains(raised.request_id)


@each_way
async def test_a_dead_upstream_is_a_typed_exception(
    serve: Serve, upstream: ScriptedUpstream, read: Read
) -> None:
    gateway = await serve()
    upstream.always(plays.cut(None))
    async with sdk_of(gateway, read) as sdk:
        with pytest.raises(
            (openai.InternalServerError, anthropic.InternalServerError)
        ) as error:
            await read(sdk, f"{protocol_of(read)}-x", [])

    raised: Any = error.value
    assert 502 == raised.status_code
    assert "The upstream broke the connection" in str(raised)
