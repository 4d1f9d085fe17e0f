"""
What becomes of everything an account can do wrong, when no other account is left.

Before the first output: a plain HTTP status with the protocol's error body. After it:
the protocol's own ending. In either case the reason is mapped, the log explains it,
and nothing of the upstream's own words or addresses reaches the client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import event
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, Play, ScriptedUpstream
from tests.kit.settings import HASTY

SECRET = "secret-upstream-words"
IN_MESSAGES = {503: (529, "overloaded_error"), 502: (502, "api_error")}
"""What Messages clients read for a failure of this status of the others."""

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


@pytest.fixture
async def impatient(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """A gateway that waits for nothing longer than a second."""
    monkeypatch.setattr("gateway.relay.failover.SAME_PAUSE_S", (0.01, 0.02))
    yield await serve(upstream=HASTY)


def said(code: int, headers: dict[str, str] | None = None) -> Play:
    body = {"error": {"message": SECRET, "type": "x", "code": "y"}}
    return plays.status(code, body, headers)


BEFORE: list[Any] = [
    # play, HTTP status, error.type
    pytest.param(said(401), 502, "upstream_error", id="401"),
    pytest.param(said(403), 502, "upstream_error", id="403"),
    pytest.param(said(402), 502, "upstream_error", id="402"),
    pytest.param(said(429), 429, "rate_limit_error", id="429"),
    pytest.param(
        said(429, {"retry-after": "7"}), 429, "rate_limit_error", id="429-retry-after"
    ),
    pytest.param(said(529), 503, "upstream_error", id="529"),
    pytest.param(said(500), 502, "upstream_error", id="500"),
    pytest.param(said(502), 502, "upstream_error", id="502"),
    pytest.param(said(503), 502, "upstream_error", id="503"),
    pytest.param(
        plays.status(502, f"<html>{SECRET}</html>"),
        502,
        "upstream_error",
        id="502-html",
    ),
    pytest.param(said(302), 502, "upstream_error", id="redirect"),
    pytest.param(plays.cut(None), 502, "upstream_error", id="closed-before-head"),
    pytest.param(plays.reset(None), 502, "upstream_error", id="reset-before-head"),
    pytest.param(plays.silence(None), 502, "upstream_error", id="no-head"),
    pytest.param(plays.silence(-1), 502, "upstream_error", id="head-then-silence"),
    pytest.param(plays.silence(0), 502, "upstream_error", id="preamble-then-silence"),
    pytest.param(plays.EMPTY, 502, "upstream_error", id="empty-stream"),
    pytest.param(plays.eof(0), 502, "upstream_error", id="eof-after-preamble"),
    pytest.param(plays.cut(0), 502, "upstream_error", id="cut-after-preamble"),
    pytest.param(plays.reset(0), 502, "upstream_error", id="reset-after-preamble"),
    pytest.param(plays.HTML, 502, "upstream_error", id="html-with-200"),
    pytest.param(plays.JSON_FOR_SSE, 502, "upstream_error", id="json-for-sse"),
    pytest.param(
        plays.raw(b": ping\n\n: ping\n\n"), 502, "upstream_error", id="only-comments"
    ),
    pytest.param(
        plays.raw(b"data: not json\n\n"), 502, "upstream_error", id="data-not-json"
    ),
    pytest.param(plays.raw(b"\x00\xff\xfe" * 99), 502, "upstream_error", id="binary"),
]


@each_protocol
@pytest.mark.parametrize("play, status, kind", BEFORE)
async def test_before_output_a_failure_is_a_status(
    impatient: Gateway,
    upstream: ScriptedUpstream,
    protocol: str,
    play: Play,
    status: int,
    kind: str,
) -> None:
    upstream.always(play)
    if protocol == "messages":
        status, kind = IN_MESSAGES.get(status, (status, kind))

    reply = await impatient.client().ask(protocol, f"{protocol}-x")

    error = endings.before(protocol, reply)
    line = await impatient.explained(reply)
    assert (status, kind) == (reply.status, error.type)
    assert SECRET not in error.message and "127.0.0.1" not in error.message
    assert ("failed", "upstream", status) == (
        line["outcome"],
        line["origin"],
        line["status"],
    )
    assert impatient.log.events("attempt.failed", request_id=reply.request_id)
    await upstream.idle()
    assert 0 == upstream.live[protocol]


@each_protocol
@pytest.mark.parametrize("play, status, kind", BEFORE[:9] + BEFORE[11:14])
async def test_a_non_stream_failure_is_the_same_status(
    impatient: Gateway,
    upstream: ScriptedUpstream,
    protocol: str,
    play: Play,
    status: int,
    kind: str,
) -> None:
    upstream.always(play)
    if protocol == "messages":
        status, kind = IN_MESSAGES.get(status, (status, kind))

    reply = await impatient.client().ask(protocol, f"{protocol}-x", stream=False)

    error = endings.before(protocol, reply)
    assert (status, kind) == (reply.status, error.type)
    assert SECRET not in error.message
    await impatient.explained(reply)


NON_STREAM = [
    pytest.param(plays.HTML, id="html-with-200"),
    pytest.param(plays.raw(b"", "application/json"), id="empty"),
    pytest.param(plays.raw(b'{"half": ', "application/json"), id="half"),
    pytest.param(plays.raw(b"[1]", "application/json"), id="not-an-object"),
]


@each_protocol
@pytest.mark.parametrize("play", NON_STREAM)
async def test_a_body_that_is_no_answer_is_a_failure(
    impatient: Gateway, upstream: ScriptedUpstream, protocol: str, play: Play
) -> None:
    upstream.always(play)

    reply = await impatient.client().ask(protocol, f"{protocol}-x", stream=False)

    endings.before(protocol, reply)
    assert 502 == reply.status
    await impatient.explained(reply)


AFTER = [
    pytest.param(plays.eof(2), id="eof"),
    pytest.param(plays.cut(2), id="cut"),
    pytest.param(plays.reset(2), id="reset"),
    pytest.param(plays.half_event(2), id="half-event"),
    pytest.param(plays.half_event(2, broken=True), id="half-event-cut"),
    pytest.param(plays.silence(2), id="silence"),
]


@each_protocol
@pytest.mark.parametrize("play", AFTER)
async def test_after_output_a_failure_is_the_protocols_ending(
    impatient: Gateway, upstream: ScriptedUpstream, protocol: str, play: Play
) -> None:
    """Half an event is never passed on; no second account is asked."""
    upstream.always(play)

    reply = await impatient.client().ask(protocol, f"{protocol}-x")

    error = endings.in_stream(protocol, reply)
    line = await impatient.explained(reply)
    assert "All is " == reply.text
    assert endings.FAILED[protocol] == error.type
    assert ("failed", "upstream", 1) == (
        line["outcome"],
        line["origin"],
        line["attempts"],
    )
    assert impatient.log.events("stream.failed", request_id=reply.request_id)
    await upstream.idle()
    assert 1 == len(upstream.received())


HIDDEN = [
    pytest.param("responses", "server_error", "response.failed", id="responses"),
    pytest.param("responses", "server_error", "error", id="responses-error"),
    pytest.param("responses", "server_error", "flat", id="responses-flat"),
    pytest.param("chat", "server_error", "error", id="chat"),
    pytest.param("chat", "server_error", "named", id="chat-named"),
    pytest.param("messages", "api_error", "error", id="messages"),
    pytest.param("messages", "api_error", "unnamed", id="messages-unnamed"),
]


@pytest.mark.parametrize("protocol, code, form", HIDDEN)
async def test_an_upstreams_own_failure_before_output_is_a_status(
    impatient: Gateway, upstream: ScriptedUpstream, protocol: str, code: str, form: str
) -> None:
    upstream.always(plays.failed(code, SECRET, form=form, deltas=0))

    reply = await impatient.client().ask(protocol, f"{protocol}-x")

    error = endings.before(protocol, reply)
    assert (502, endings.FAILED[protocol]) == (reply.status, error.type)
    assert SECRET not in error.message
    await impatient.explained(reply)


@pytest.mark.parametrize("protocol, code, form", HIDDEN)
async def test_an_upstreams_own_failure_after_output_is_an_ending_that_clients_read(
    impatient: Gateway, upstream: ScriptedUpstream, protocol: str, code: str, form: str
) -> None:
    """Whatever form the upstream chose, the client gets the one that it understands."""
    upstream.always(plays.failed(code, "boom", form=form, deltas=2))

    reply = await impatient.client().ask(protocol, f"{protocol}-x")

    assert "All is " == reply.text
    kinds = [event.kind for event in reply.events if event.kind in endings.TERMINALS]
    assert 1 == len(kinds)
    assert {"responses": "response.failed"}.get(protocol, "error") == kinds[0]
    assert "error" == reply.last.name or protocol != "messages"
    line = await impatient.finished(reply)
    assert ("failed", "upstream") == (line["outcome"], line["origin"])


CLIENTS_OWN = [400, 404, 413, 422]


@each_protocol
@pytest.mark.parametrize("status", CLIENTS_OWN)
async def test_the_clients_own_mistake_comes_back_with_the_upstreams_words(
    impatient: Gateway, upstream: ScriptedUpstream, protocol: str, status: int
) -> None:
    upstream.always(plays.status(status))

    reply = await impatient.client().ask(protocol, f"{protocol}-x")

    assert status == reply.status
    assert plays.error_body(protocol, status) == reply.json
    line = await impatient.finished(reply)
    assert ("client", status) == (line["origin"], line["status"])
    assert line["outcome"] in ("failed", "refused")
    assert 1 == len(upstream.received())


WORDS = "prompt is too long: 9 tokens > 4 maximum"
ERROR = {"type": "invalid_request_error", "message": WORDS}
STRANGE = [
    # protocol, data, event: forms that no client of the protocol reads
    pytest.param("chat", {"object": "error", "code": 400, **ERROR}, "", id="flat"),
    pytest.param("chat", {"code": 400, "msg": WORDS}, "", id="msg"),
    pytest.param("chat", {"detail": [{"loc": ["x"], "msg": WORDS}]}, "", id="detail"),
    pytest.param(
        "chat", {"choices": [{"index": 0}], "error": ERROR}, "", id="beside-choices"
    ),
    pytest.param("messages", {"type": "error", "error": ERROR}, "", id="unnamed"),
    pytest.param("messages", {"error": ERROR}, "error", id="untyped"),
    pytest.param("messages", {"type": "error", **ERROR}, "error", id="flat-typed"),
]


def failing(frame: bytes, deltas: int | None = 2) -> Play:
    """A stream that fails with *frame*, once *deltas* have left."""

    async def play(exchange: Exchange) -> None:
        await plays.begun(exchange, deltas)
        await exchange.send(frame)
        await exchange.end()

    return play


@pytest.mark.parametrize("protocol, data, name", STRANGE)
async def test_a_clients_mistake_in_a_strange_form_is_an_ending_that_clients_read(
    impatient: Gateway,
    upstream: ScriptedUpstream,
    protocol: str,
    data: dict[str, Any],
    name: str,
) -> None:
    """The SDKs pass over such a frame, or take it for a chunk."""
    upstream.always(failing(event(data, name)))

    reply = await impatient.client().ask(protocol, f"{protocol}-x")

    ending = endings.in_stream(protocol, reply)
    assert "All is " == reply.text
    assert ending.type in ("invalid_request_error", "validation_error")
    assert WORDS in ending.message
    line = await impatient.finished(reply)
    assert ("failed", "client") == (line["outcome"], line["origin"])


@pytest.mark.parametrize("protocol", ["chat", "messages"])
async def test_a_clients_mistake_in_the_protocols_own_form_passes(
    impatient: Gateway, upstream: ScriptedUpstream, protocol: str
) -> None:
    """To the byte: with whatever else the upstream says of it."""
    frame = event({"type": "error", "error": {**ERROR, "x": 1}, "y": 2}, "error")
    upstream.always(failing(frame))

    reply = await impatient.client().ask(protocol, f"{protocol}-x")

    assert frame == reply.frames[-1]
