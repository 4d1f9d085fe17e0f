"""Clients of every protocol before an account that is asked over websockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer, Tool
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account
from tests.kit.socket_account import (
    MODEL,
    NEXT,
    TURN,
    message,
    no_leak,
    ok_line,
    over_sockets,
    pool_of,
)
from tests.kit.socket_upstream import (
    Ask,
    SocketUpstream,
    error,
    messages_of,
    ok,
    says,
)
from tests.kit.websocket import CODEX, socket

QUOTA = {"used-percent": "5", "window-minutes": "300", "reset-at": "1800000000"}

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
both = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@pytest.fixture
async def gateway(serve: Serve, sockets: SocketUpstream) -> AsyncIterator[Gateway]:
    gateway = await serve(accounts=[over_sockets(sockets)])
    yield gateway
    await no_leak(gateway)


# --- what clients get ---------------------------------------------------------------


@each_protocol
@both
async def test_every_client_gets_what_http_would_have_brought(
    gateway: Gateway, sockets: SocketUpstream, protocol: str, stream: bool
) -> None:
    reply = await gateway.client().ask(protocol, MODEL, stream=stream)

    if stream:
        endings.whole(protocol, reply)
    else:
        assert 200 == reply.status and "All is well." in reply.body.decode()
    await ok_line(
        gateway, input_tokens=11, output_tokens=7, upstream_protocol="responses"
    )
    assert "stream" not in sockets.asked[0].json


async def test_events_are_the_bytes_that_http_would_have_brought(
    serve: Serve, upstream: ScriptedUpstream, sockets: SocketUpstream
) -> None:
    answer = Answer(tool=Tool("f", {"a": "ä\n"}), reasoning="so", id="1")
    upstream.always(plays.ok(answer))
    sockets.always = ok(answer)
    http = account(upstream, "http", "responses", models=["http"])
    gateway = await serve(accounts=[over_sockets(sockets, models=["ws"]), http])

    one = await gateway.client().ask("responses", "http")
    other = await gateway.client().ask("responses", "ws")

    kinds = [event.kind for event in one.events]
    assert kinds == [event.kind for event in other.events] and len(kinds) > 6
    assert [event.name for event in one.events] == [e.name for e in other.events]
    changed = [event.json for event in one.events]
    text = str(changed).replace("'http'", "'ws'")
    assert text == str([event.json for event in other.events])


async def test_one_socket_serves_one_request_after_another(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    for _ in range(3):
        endings.whole("responses", await gateway.client().ask("responses", MODEL))

    assert [1, 1, 1] == [ask.number for ask in sockets.asked]
    await no_leak(gateway)
    assert 1 == len(pool_of(gateway).live) == len(sockets.live)


async def test_requests_at_once_have_sockets_of_their_own(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    sockets.always = ok(interval_s=0.002)
    client = gateway.client()

    replies = await asyncio.gather(
        *[client.ask("responses", MODEL) for _ in range(4)],
        gateway.client("bob").ask("responses", MODEL),
    )

    for reply in replies:
        endings.whole("responses", reply)
    assert 5 == len({ask.number for ask in sockets.asked})


async def test_users_and_programs_never_share_a_socket(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    for user in ("alice", "bob"):
        await gateway.client(user).ask("responses", MODEL)
    for session in ("s1", "s2", "s1"):
        headers = {"session-id": session}
        await gateway.client().ask("responses", MODEL, headers=headers)

    assert [1, 2, 3, 4, 3] == [ask.number for ask in sockets.asked]


async def test_the_upgrade_has_the_account_s_key_and_the_client_s_family(
    serve: Serve, sockets: SocketUpstream
) -> None:
    row = over_sockets(sockets, api_key="env:TEST_KEY_WS", headers={"X-Own": "1"})
    gateway = await serve(accounts=[row])
    headers = {
        "session-id": "s1",
        "x-codex-turn-state": "t1",
        "x-openai-internal-codex-responses-lite": "true",
        "openai-beta": "other=1",
    }

    await gateway.client().ask(
        "responses", MODEL, headers=headers, client_metadata={"turn_id": "7"}
    )

    seen = sockets.handshakes[0]
    assert "Bearer sk-ws" == seen["authorization"]
    assert ("s1", "1") == (seen["session-id"], seen["x-own"])
    assert "other=1, responses_websockets=2026-02-06" == seen["openai-beta"]
    assert not {"x-codex-turn-state", "content-type", "content-length"} & seen.keys()
    assert sockets.asked[0].json["client_metadata"] == {
        "turn_id": "7",
        "x-codex-turn-state": "t1",
        "ws_request_header_x_openai_internal_codex_responses_lite": "true",
    }


async def test_headers_of_the_upgrade_and_of_metadata_reach_the_client(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    sockets.headers = {
        "x-request-id": "req_up",
        "x-ratelimit-remaining-requests": "9",
        "x-models-etag": "e1",
    }
    state = {"x-codex-turn-state": "t1", "content-type": "bad/one"}
    metadata = {"type": "response.metadata", "headers": state}
    sockets.next(says(metadata), ok())
    sockets.always = ok()

    async def play(ask: Ask) -> None:
        first, *rest = messages_of(Answer(), ask.json)
        await ask.send({"type": "codex.rate_limits", "x": 1}, first, metadata, *rest)

    sockets._next.clear()
    sockets.next(play)
    first = await gateway.client().ask("responses", MODEL)
    second = await gateway.client().ask("responses", MODEL)

    assert "t1" == first.headers["x-codex-turn-state"]
    assert "9" == first.headers["x-ratelimit-remaining-requests"]
    assert first.headers["content-type"] == "text/event-stream"
    assert "req_up" == second.headers["x-upstream-request-id"]
    assert "e1" == second.headers["x-models-etag"]
    assert "x-ratelimit-remaining-requests" not in second.headers


# --- a conversation that goes on ----------------------------------------------------


async def test_only_new_items_are_sent_where_the_socket_knows_the_rest(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    client = gateway.client()
    await client.ask("responses", MODEL, input=TURN, store=False)
    await client.ask("responses", MODEL, input=NEXT, store=False)
    last = [*NEXT, message("All is well.", "assistant"), message("c")]
    await client.ask("responses", MODEL, input=last, store=False)

    first, second, third = [ask.json for ask in sockets.asked]
    assert "previous_response_id" not in first
    assert [message("b")] == second["input"]
    assert second["previous_response_id"].startswith("resp_")
    assert [message("c")] == third["input"]
    assert third["previous_response_id"] != second["previous_response_id"]
    assert 1 == len(sockets.handshakes)


@pytest.mark.parametrize(
    ("items", "more"),
    [
        pytest.param(NEXT[:1] + NEXT[2:], {}, id="answer-missing"),
        pytest.param(
            [*TURN, message("else", "assistant"), message("b")], {}, id="else"
        ),
        pytest.param(NEXT, {"instructions": "new"}, id="other-instructions"),
        pytest.param(NEXT[:2], {}, id="nothing-new"),
        pytest.param([message("z"), *NEXT[1:]], {}, id="other-beginning"),
    ],
)
async def test_everything_is_sent_where_anything_else_differs(
    gateway: Gateway, sockets: SocketUpstream, items: list[Any], more: Any
) -> None:
    client = gateway.client()
    await client.ask("responses", MODEL, input=TURN)
    await client.ask("responses", MODEL, input=items, **more)

    assert items == sockets.asked[1].json["input"]
    assert "previous_response_id" not in sockets.asked[1].json


async def test_an_upstream_that_forgets_gets_everything_again_unseen(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    client = gateway.client()
    await client.ask("responses", MODEL, input=TURN)
    sockets.next(error(None, "previous_response_not_found"))
    reply = await client.ask("responses", MODEL, input=NEXT)

    endings.whole("responses", reply)
    await ok_line(gateway)
    assert NEXT == sockets.asked[2].json["input"]
    assert 1 == len(sockets.handshakes)

    more = [*NEXT, message("All is well.", "assistant"), message("c")]
    await client.ask("responses", MODEL, input=more)
    assert more == sockets.asked[3].json["input"], "it was asked to remember again"


@both
async def test_a_parent_that_the_client_names_is_never_changed(
    gateway: Gateway, sockets: SocketUpstream, stream: bool
) -> None:
    sockets.next(error(None, "previous_response_not_found", param="x"))
    reply = await gateway.client().ask(
        "responses", MODEL, previous_response_id="resp_x", stream=stream
    )

    assert 400 == reply.status
    assert "previous_response_not_found" == reply.json["error"]["code"]
    assert "resp_x" == sockets.asked[0].json["previous_response_id"]
    assert 1 == len(sockets.asked)


async def test_the_socket_that_knows_a_named_parent_serves_it(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    client = gateway.client()
    sockets.always = ok(interval_s=0.002)
    many = [client.ask("responses", MODEL, input=[message(x)]) for x in "abc"]
    replies = await asyncio.gather(*many)
    for reply in reversed(replies):
        ident = reply.last.json["response"]["id"]
        await client.ask("responses", MODEL, previous_response_id=ident)

    numbers = [ask.number for ask in sockets.asked]
    assert sorted(numbers[:3]) == sorted(numbers[3:]) == [1, 2, 3]


async def test_what_it_says_of_its_quota_reaches_codex(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    """
    On a socket that is used again the account says it in no other way; over HTTP Codex
    reads headers alone.
    """
    primary = {"used_percent": 5, "window_minutes": 300, "reset_at": 1800000000}
    quota = {"type": "codex.rate_limits", "rate_limits": {"primary": primary}}

    async def play(ask: Ask) -> None:
        texts = messages_of(Answer(), ask.json)
        await ask.send(quota, *texts[:5], quota, *texts[5:], quota)

    sockets.always = play
    async with socket(gateway, headers=CODEX) as one:
        turns = [await one.turn(model=MODEL, input="x") for _ in range(2)]
    handshakes = len(sockets.handshakes)
    reply = await gateway.client().ask("responses", MODEL)

    for turn in turns:
        quotas = [one for one in turn.frames if one["type"] == "codex.rate_limits"]
        assert [quota] * 2 == quotas
        assert "response.completed" == turn.last["type"]
    assert 1 == handshakes
    headers = {name: reply.headers[f"x-codex-primary-{name}"] for name in QUOTA}
    assert QUOTA == headers


# --- the life of the pool -----------------------------------------------------------


async def test_answers_in_the_background_and_other_paths_go_over_http(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    client = gateway.client()
    await client.ask("responses", MODEL, stream=False, background=True)
    await client.send(
        "/v1/responses/compact", b'{"model":"%s","input":[]}' % MODEL.encode()
    )

    assert 2 == len(sockets.posted) and not sockets.handshakes


async def test_a_create_larger_than_the_server_s_limit_goes_over_http(
    gateway: Gateway, sockets: SocketUpstream
) -> None:
    sockets.headers = {"x-codex-websocket-max-message-bytes": "300"}
    client = gateway.client()
    await client.ask("responses", MODEL, input=[message("x" * 400)])
    await client.ask("responses", MODEL)

    assert (1, 1, 1) == (
        len(sockets.posted),
        len(sockets.asked),
        len(sockets.handshakes),
    )


async def test_the_stop_closes_every_socket(
    serve: Serve, sockets: SocketUpstream
) -> None:
    gateway = await serve(accounts=[over_sockets(sockets)])
    await gateway.client().ask("responses", MODEL)
    pool = pool_of(gateway)

    await components_of(gateway.inside.app).upstream.stop()

    assert not pool.live and pool._timer is None
    await gateway.log.wait_for(lambda: not sockets.live, "the server has it still")
