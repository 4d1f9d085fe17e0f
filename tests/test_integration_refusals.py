"""
What an upstream refuses: its head decides, its body explains, in whatever form.

The first account misbehaves, the second answers; or there is one account, and the
client must read what happened in its own protocol's words.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import anthropic
import pytest

from gateway.relay import failures
from gateway.telemetry.log import keep_secret
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, Play, ScriptedUpstream
from tests.kit.settings import account, key_of

GOOD = Answer(id="good")
BIG = "x" * 300_000
CLIENTS_WORDS = "tools.0: the schema is not valid"

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
each_account = pytest.mark.parametrize("speaks", answers.PROTOCOLS)
either = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


async def pair(serve: Serve, upstream: ScriptedUpstream, speaks: str) -> Gateway:
    """A gateway with two accounts for every client; "…-first" is preferred."""
    rows = [
        account(upstream, f"{speaks}-first", priority=1, models=["*"]),
        account(upstream, f"{speaks}-second", priority=2, models=["*"]),
    ]
    upstream.always(plays.ok(GOOD), account=f"{speaks}-second")
    return await serve(accounts=rows)


async def moved(gateway: Gateway, reply: Reply, speaks: str) -> str:
    """The second account answered; the reason for which the first was left alone."""
    assert 200 == reply.status
    assert b"All is well." in reply.body or "All is well." == reply.text
    assert b"boom" not in reply.body
    line = await gateway.finished(reply)
    assert ("ok", 2, f"{speaks}-second") == (
        line["outcome"],
        line["attempts"],
        line["account"],
    )
    (cooled,) = gateway.log.events("account.cooled", account=f"{speaks}-first")
    return str(cooled["reason"])


# --- the head decides -------------------------------------------------------------


def coded(status: int, coding: str, body: bytes) -> Play:
    """A refusal whose body is said to be compressed."""

    async def play(exchange: Exchange) -> None:
        await exchange.reply(status, body, {"content-encoding": coding})

    return play


def endless(status: int) -> Play:
    """A refusal whose body never ends."""

    async def play(exchange: Exchange) -> None:
        await exchange.head(status, {"content-type": "application/json"})
        while True:
            await exchange.send(b'{"error": ')
            await asyncio.sleep(0.01)

    return play


def silent(status: int) -> Play:
    """A refusal whose body never comes."""

    async def play(exchange: Exchange) -> None:
        await exchange.head(status, {"content-type": "application/json"})
        await asyncio.Event().wait()

    return play


def broken(status: int) -> Play:
    """A refusal whose body breaks off."""

    async def play(exchange: Exchange) -> None:
        await exchange.head(status, {"content-type": "application/json"})
        await exchange.send(b'{"error": {"mess')
        exchange.close()

    return play


ERROR = json.dumps({"error": {"message": "boom"}}).encode()
UNREADABLE = {
    "429-endless": (endless(429), "rate_limited"),
    "429-silent": (silent(429), "rate_limited"),
    "401-silent": (silent(401), "refused"),
    "402-endless": (endless(402), "quota"),
    "429-broken": (broken(429), "rate_limited"),
    "429-br": (coded(429, "br", b"\x0b\x02\x80boom\x03"), "rate_limited"),
    "401-br": (coded(401, "br", b"\x0b\x02\x80boom\x03"), "refused"),
    "529-unknown-coding": (coded(529, "x-snappy", ERROR), "overloaded"),
    "429-no-gzip": (coded(429, "gzip", ERROR), "rate_limited"),
    "401-cut-gzip": (coded(401, "gzip", gzip.compress(ERROR)[:-9]), "refused"),
    "402-no-zstd": (coded(402, "zstd", ERROR), "quota"),
    "503-big": (plays.status(503, {"error": {"message": BIG}}), "failed"),
    "429-huge": (plays.status(429, {"error": {"message": BIG * 5}}), "rate_limited"),
}


@pytest.mark.parametrize(
    ("protocol", "stream"),
    [(protocol, True) for protocol in answers.PROTOCOLS] + [("chat", False)],
)
@pytest.mark.parametrize(("play", "reason"), UNREADABLE.values(), ids=list(UNREADABLE))
async def test_the_head_of_a_refusal_decides(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    stream: bool,
    play: Play,
    reason: str,
) -> None:
    monkeypatch.setattr(failures, "REFUSAL_BODY_S", 0.2)
    gateway = await pair(serve, upstream, protocol)
    upstream.always(play, account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, "x", stream=stream)

    assert reason == await moved(gateway, reply, protocol)


def test_the_bounds_of_a_refusals_body_are_small() -> None:
    assert 2 <= failures.REFUSAL_BODY_S <= 5
    assert 300_000 < failures.MAX_REFUSAL_BYTES <= 4 * 1024 * 1024


@each_protocol
async def test_a_refusals_body_is_not_read_beyond_its_bound(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    """However long it may take."""
    monkeypatch.setattr(failures, "REFUSAL_BODY_S", 600.0)
    monkeypatch.setattr(failures, "MAX_REFUSAL_BYTES", 1000)
    gateway = await pair(serve, upstream, protocol)
    upstream.always(endless(429), account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, "x")

    assert "rate_limited" == await moved(gateway, reply, protocol)


@each_protocol
@either
async def test_a_clients_own_mistake_passes_however_much_it_quotes(
    gateway: Gateway, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    error = {"type": "invalid_request_error", "message": f"no: {BIG}"}
    upstream.always(plays.status(400, {"error": error}))

    reply = await gateway.client().ask(protocol, f"{protocol}-x", stream=stream)

    assert (400, json.dumps({"error": error}).encode()) == (reply.status, reply.body)
    assert "client" == (await gateway.finished(reply))["origin"]
    assert not gateway.log.events("account.cooled")


@each_protocol
async def test_a_mistake_that_cannot_be_passed_on_keeps_its_status(
    gateway: Gateway,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    monkeypatch.setattr(failures, "MAX_REFUSAL_BYTES", 1000)
    upstream.always(plays.status(413, {"error": {"message": BIG}}))

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    endings.before(protocol, reply)
    assert 413 == reply.status
    assert not gateway.log.events("account.cooled")


# --- a 200 that is no answer ------------------------------------------------------

# The forms themselves: see test_protocols_failures.
SPENT = {"code": "insufficient_quota", "message": "boom"}
ODD_FORMS: dict[str, tuple[Any, str]] = {
    "code-and-msg": ({"code": 500, "msg": "boom", "success": False}, "failed"),
    "array": ([{"error": {"code": 503, "status": "UNAVAILABLE"}}], "overloaded"),
    "string": ("Insufficient credits: boom", "quota"),
    "big": ({"error": {**SPENT, "boom": BIG}}, "quota"),
}
each_form = pytest.mark.parametrize(
    ("form", "reason"), ODD_FORMS.values(), ids=list(ODD_FORMS)
)


@each_protocol
@each_account
@each_form
async def test_a_whole_200_without_an_answer_is_a_failure(
    serve: Serve,
    upstream: ScriptedUpstream,
    protocol: str,
    speaks: str,
    form: Any,
    reason: str,
) -> None:
    gateway = await pair(serve, upstream, speaks)
    body = json.dumps(form).encode()
    upstream.always(plays.raw(body, "application/json"), account=f"{speaks}-first")

    reply = await gateway.client().ask(protocol, "x", stream=False)

    assert reason == await moved(gateway, reply, speaks)


@each_account
@each_form
@pytest.mark.parametrize("how", ["event", "named", "json", "json-as-a-stream"])
async def test_a_stream_that_begins_with_a_failure_is_one(
    serve: Serve,
    upstream: ScriptedUpstream,
    speaks: str,
    form: Any,
    reason: str,
    how: str,
) -> None:
    """Of the same protocol and converted, as an event and as plain JSON."""
    body = json.dumps(form).encode()
    kind = "application/json" if how == "json" else "text/event-stream"
    if not how.startswith("json"):
        name = b"event: error\n" if how == "named" else b""
        body = name + b"data: " + body + b"\n\n"
    elif how == "json-as-a-stream" and (len(body) > 64_000 or isinstance(form, str)):
        pytest.skip("as a stream it is too long, or no JSON object")
    for protocol in ("messages", "chat"):
        gateway = await pair(serve, upstream, speaks)
        upstream.always(plays.raw(body, kind), account=f"{speaks}-first")

        reply = await gateway.client().ask(protocol, "x")

        assert reason == await moved(gateway, reply, speaks)


@each_protocol
@each_account
@pytest.mark.parametrize("form", [form for form, _ in ODD_FORMS.values()][:-1])
async def test_within_a_stream_it_is_one_ending(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, speaks: str, form: Any
) -> None:
    """Never an answer that looks complete, though the upstream says that it is over."""
    gateway = await serve(accounts=[account(upstream, speaks, models=["*"])])

    async def play(exchange: Exchange) -> None:
        await plays.begun(exchange, 2)
        stream = answers.stream(speaks, Answer(), exchange.request.json)
        await exchange.send(b"data: " + json.dumps(form).encode() + b"\n\n")
        await exchange.send(stream.tail[-1] if speaks == "chat" else b"")
        await exchange.end()

    upstream.always(play)
    reply = await gateway.client().ask(protocol, "x")

    kinds = [one.kind for one in reply.events if one.kind in endings.TERMINALS]
    assert 1 == len(kinds) and kinds[0] in ("response.failed", "error")
    assert "All is " == reply.text
    line = await gateway.finished(reply)
    assert ("failed", "upstream") == (line["outcome"], line["origin"])


@each_protocol
async def test_text_under_the_name_of_an_error_is_one(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await pair(serve, upstream, protocol)
    body = b"event: error\ndata: Insufficient credits: boom\n\n"
    upstream.always(plays.raw(body), account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, "x")

    assert "quota" == await moved(gateway, reply, protocol)


@each_protocol
@either
async def test_a_clients_mistake_in_a_200_cools_no_account(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, stream: bool
) -> None:
    gateway = await pair(serve, upstream, protocol)
    error = {"code": "context_length_exceeded", "message": CLIENTS_WORDS, "param": "x"}
    body = json.dumps({"error": error}).encode()
    upstream.always(plays.raw(body, "application/json"), account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, "x", stream=stream)

    assert 400 == reply.status
    assert CLIENTS_WORDS in endings.before(protocol, reply).message
    assert 1 == len(upstream.received())
    assert not gateway.log.events("account.cooled")


# --- in the client's own words ----------------------------------------------------

PAIRS = [
    pytest.param(protocol, speaks, id=f"{speaks}-to-{protocol}")
    for protocol in answers.PROTOCOLS
    for speaks in answers.PROTOCOLS
    if protocol != speaks
]
MISTAKES: dict[str, tuple[int, Any]] = {
    "openai": (
        400,
        {
            "error": {
                "message": CLIENTS_WORDS,
                "type": "invalid_request_error",
                "param": "tools",
                "code": "invalid_function_parameters",
            }
        },
    ),
    "anthropic": (
        400,
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": CLIENTS_WORDS},
        },
    ),
    "vllm": (
        400,
        {"object": "error", "message": CLIENTS_WORDS, "type": "BadRequestError"},
    ),
    "fastapi": (422, {"detail": [{"loc": ["tools", 0], "msg": CLIENTS_WORDS}]}),
    "too-large": (
        413,
        {
            "type": "error",
            "error": {"type": "request_too_large", "message": CLIENTS_WORDS},
        },
    ),
}


@pytest.mark.parametrize(("protocol", "speaks"), PAIRS)
@pytest.mark.parametrize(("status", "body"), MISTAKES.values(), ids=list(MISTAKES))
async def test_a_mistake_is_reported_in_the_clients_form(
    serve: Serve,
    upstream: ScriptedUpstream,
    protocol: str,
    speaks: str,
    status: int,
    body: Any,
) -> None:
    gateway = await serve(accounts=[account(upstream, speaks, models=["*"])])
    upstream.always(plays.status(status, body))
    stream = protocol != "responses"

    reply = await gateway.client().ask(protocol, "x", stream=stream)

    error = endings.before(protocol, reply)
    assert status == reply.status
    assert CLIENTS_WORDS in error.message
    if protocol == "messages":
        known = {400: "invalid_request_error", 422: "invalid_request_error"}
        assert known.get(status, "request_too_large") == error.type
    elif "error" in body and "code" in body["error"]:
        assert ("invalid_function_parameters", "tools") == (
            error.code,
            reply.json["error"]["param"],
        )
    assert 1 == len(upstream.received())


@pytest.mark.parametrize(("protocol", "speaks"), PAIRS)
async def test_the_words_that_are_passed_on_hold_no_key(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, speaks: str
) -> None:
    gateway = await serve(accounts=[account(upstream, speaks, models=["*"])])
    keep_secret(["the-key-of-the-account"])
    words = "tools.0: the-key-of-the-account may not use AKIAABCDEFGHIJKLMNOP"
    error = {"type": "invalid_request_error", "message": words}
    upstream.always(plays.status(400, {"error": error}))

    reply = await gateway.client().ask(protocol, "x")

    message = endings.before(protocol, reply).message
    assert message.startswith("tools.0: [redacted] may not use [redacted]")


OVERLOADS = {
    "529": plays.status(529),
    "503": plays.status(503, {"error": {"code": "server_is_overloaded"}}),
    "gemini": plays.status(503, [{"error": {"status": "UNAVAILABLE", "code": 503}}]),
    "whole": plays.raw(b'{"error":{"type":"overloaded_error"}}', "application/json"),
    "event": plays.raw(b'data: {"error":{"code":"server_is_overloaded"}}\n\n'),
}


@each_account
@either
@pytest.mark.parametrize("play", OVERLOADS.values(), ids=list(OVERLOADS))
async def test_messages_clients_know_an_overload(
    serve: Serve, upstream: ScriptedUpstream, speaks: str, stream: bool, play: Play
) -> None:
    """Claude Code turns to its fall-back model then; the others get a 503."""
    if not stream and play is OVERLOADS["event"]:
        pytest.skip("a whole answer has no events")
    gateway = await serve(accounts=[account(upstream, speaks, models=["*"])])
    upstream.always(play)

    for protocol in answers.PROTOCOLS:
        reply = await gateway.client().ask(protocol, "x", stream=stream)

        error = endings.before(protocol, reply)
        expected = (503, "upstream_error")
        if protocol == "messages":
            expected = (529, "overloaded_error")
        assert expected == (reply.status, error.type)
        line = await gateway.finished(reply)
        assert (expected[0], "upstream") == (line["status"], line["origin"])


@each_account
async def test_messages_clients_know_an_overload_within_a_stream(
    serve: Serve, upstream: ScriptedUpstream, speaks: str
) -> None:
    gateway = await serve(accounts=[account(upstream, speaks, models=["*"])])
    code = "overloaded_error" if speaks == "messages" else "server_is_overloaded"
    upstream.next(plays.failed(code, deltas=2), plays.cut(2))

    error = endings.in_stream("messages", await gateway.client().ask("messages", "x"))
    assert "overloaded_error" == error.type
    error = endings.in_stream("messages", await gateway.client().ask("messages", "x"))
    assert "api_error" == error.type


@each_account
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("play", "error"),
    [
        pytest.param(OVERLOADS["529"], anthropic.InternalServerError, id="overload"),
        pytest.param(plays.status(500), anthropic.InternalServerError, id="failure"),
        pytest.param(
            plays.failed("x", deltas=2), anthropic.APIStatusError, id="within"
        ),
    ],
)
async def test_the_sdk_sees_the_class_that_it_has_for_it(
    serve: Serve,
    upstream: ScriptedUpstream,
    speaks: str,
    stream: bool,
    play: Play,
    error: type[anthropic.APIStatusError],
) -> None:
    gateway = await serve(accounts=[account(upstream, speaks, models=["*"])])
    upstream.always(play)
    async with anthropic.AsyncAnthropic(
        api_key=key_of("alice"), base_url=gateway.base_url, max_retries=0
    ) as client:
        with pytest.raises(error) as caught:
            answer = await client.messages.create(
                model="x",
                max_tokens=9,
                messages=[{"role": "user", "content": "say something"}],
                stream=stream,
            )
            if stream:
                async for _ in answer:  # type: ignore[union-attr]
                    pass
    kind = caught.value.body["error"]["type"]  # type: ignore[index]
    overload = play is OVERLOADS["529"]
    assert ("overloaded_error" if overload else "api_error") == kind
    if overload:
        assert 529 == caught.value.status_code
