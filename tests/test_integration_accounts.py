"""
More ways in which a first account fails, and what a client may know of them: nothing.

Beside the table of ``test_integration_failover``: words of overload, nonsense about
when to return, names that do not resolve, and what the gateway itself must translate.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.scripted import Play, ScriptedUpstream
from tests.kit.settings import HASTY, Table, account

GOOD = Answer(id="good")
CAPACITY = "Selected model is at capacity. Please try a different model."

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)


def limited(**headers: str) -> Play:
    return plays.status(
        429, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def said(status: int, code: str, message: str = "boom") -> Play:
    return plays.status(status, {"error": {"code": code, "message": message}})


TROUBLE: dict[str, Play] = {
    "405": plays.status(405),
    "407": plays.status(407),
    "421": plays.status(421),
    "425": plays.status(425),
    "451": plays.status(451),
    "499": plays.status(499),
    "520": plays.status(520, "<html>web server is down</html>"),
    "522": plays.status(522, "error code: 522"),
    "599": plays.status(599, ""),
    "302": plays.status(302, "", {"location": "http://127.0.0.1:9/"}),
    "404-web-page": plays.status(404, "<html>no API here</html>"),
    "403-web-page": plays.status(403, "<html>are you human?</html>"),
    "400-quota": said(400, "insufficient_quota"),
    "400-overloaded": said(400, "server_is_overloaded"),
    "429-insufficient-quota": said(429, "insufficient_quota"),
    "429-usage-limit": plays.status(
        429, {"error": {"type": "usage_limit_reached", "resets_at": 99999999999}}
    ),
    "429-usage-limit-text": plays.status(
        429, {"error": {"type": "usage_limit_reached", "resets_at": "never"}}
    ),
    "503-slow-down": said(503, "slow_down"),
    "503-capacity": said(503, "server_error", CAPACITY),
    "retry-after-text": limited(retry_after="soon"),
    "retry-after-year-9999": limited(retry_after="Fri, 31 Dec 9999 23:59:59 GMT"),
    "retry-after-past": limited(retry_after="Thu, 01 Jan 1970 00:00:00 GMT"),
    "retry-after-nan": limited(retry_after="nan"),
    "retry-after-infinite": limited(retry_after="inf"),
    "retry-after-huge": limited(retry_after="9" * 400),
    "retry-after-ms-negative": limited(retry_after_ms="-1"),
    "reset-requests-nonsense": limited(x_ratelimit_reset_requests="1y2z"),
    "reset-tokens-negative": limited(x_ratelimit_reset_tokens="-6m0s"),
    "codex-reset-negative": limited(
        x_codex_primary_used_percent="100", x_codex_primary_reset_after_seconds="-9"
    ),
    "codex-reset-text": limited(
        x_codex_primary_used_percent="lots", x_codex_primary_reset_after_seconds="soon"
    ),
    "unified-reset-year-9999": limited(
        anthropic_ratelimit_unified_status="rejected",
        anthropic_ratelimit_unified_reset="253402300799",
    ),
    "unified-reset-text": limited(anthropic_ratelimit_unified_reset="tomorrow"),
    "capacity-in-stream": plays.failed("server_error", CAPACITY),
    "capacity-after-preamble": plays.failed("server_error", CAPACITY, deltas=0),
    "unknown-failure": plays.failed("flux_capacitor", "it broke"),
    "fin-before-head": plays.eof(None),
    "empty-after-head": plays.eof(-1),
    "reset-after-head": plays.reset(-1),
    "half-first-event": plays.half_event(0),
    "half-first-event-broken": plays.half_event(0, broken=True),
    "text-plain": plays.raw(b"Service busy", "text/plain"),
    "no-sse-bytes": plays.raw(b"\x00\xff\xfe garbage\n\n"),
    "json-null": plays.raw(b"null", "application/json"),
    "no-json-data": plays.raw(b"data: {not json\n\n"),
    "only-newlines": plays.raw(b"\n\n\n\n"),
    "slow-status": plays.status(500, after_s=0.1),
}
SLOW: dict[str, Play] = {
    "slow-head": plays.ok(head_after_s=5.0),
    "one-byte-a-while": plays.trickle(1.5),
}


async def pair(
    serve: Serve,
    upstream: ScriptedUpstream,
    protocol: str,
    *,
    waits: Table | None = None,
    **config: Any,
) -> Gateway:
    """
    A gateway with two accounts of *protocol*: "…-first" is preferred.

    Args:
        waits: the limits of the upstream.
    """
    rows: list[Table] = [
        account(upstream, f"{protocol}-first", priority=1),
        account(upstream, f"{protocol}-second", priority=2),
    ]
    upstream.always(plays.ok(GOOD), account=f"{protocol}-second")
    return await serve(accounts=rows, upstream=waits, **config)


async def clean(gateway: Gateway, protocol: str, reply: Reply) -> None:
    """One whole answer of the second account, and nothing of the first."""
    endings.whole(protocol, reply)
    for trace in (b"first", b"boom", b"capacity", b"upstream says"):
        assert trace not in reply.body
    ident = answers.body(protocol, GOOD, {})["id"]
    idents = [
        (data.get("response") or data.get("message") or data).get("id")
        for event in reply.events
        if event.data != "[DONE]"
        for data in [event.json]
    ]
    assert {ident} == {one for one in idents if one}
    line = await gateway.finished(reply)
    assert ("ok", 2, f"{protocol}-second") == (
        line["outcome"],
        line["attempts"],
        line["account"],
    )


def test_the_table_is_long_enough() -> None:
    assert len(TROUBLE | SLOW) >= 40


@each_protocol
@pytest.mark.parametrize("play", (TROUBLE | SLOW).values(), ids=TROUBLE | SLOW)
async def test_the_client_does_not_notice(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, play: Play
) -> None:
    waits = HASTY if play in SLOW.values() else None
    gateway = await pair(serve, upstream, protocol, waits=waits)
    upstream.always(play, account=f"{protocol}-first")

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    await clean(gateway, protocol, reply)
    (cooled,) = gateway.log.events("account.cooled", account=f"{protocol}-first")
    assert cooled["reason"] and 0 < cooled["until_s"] < 40 * 86400


@each_protocol
@pytest.mark.parametrize(
    "base_url",
    [
        pytest.param("http://no-such-host.invalid/v1", id="dns-fails"),
        pytest.param("http://127.0.0.1:9/v1", id="connection-refused"),
    ],
)
async def test_an_account_that_cannot_be_reached_is_passed_over(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, base_url: str
) -> None:
    rows = [
        {**account(upstream, f"{protocol}-first"), "base_url": base_url},
        account(upstream, f"{protocol}-second", priority=2),
    ]
    upstream.always(plays.ok(GOOD))
    gateway = await serve(accounts=rows, upstream={"connect_timeout_s": 3.0})

    reply = await gateway.client().ask(protocol, f"{protocol}-x")

    await clean(gateway, protocol, reply)
    (failed,) = gateway.log.events("attempt.failed")
    assert "upstream_connect" == failed["error_code"]


FINAL = {
    "overloaded": plays.failed("server_is_overloaded"),
    "slow-down": plays.failed("slow_down"),
    "quota": plays.failed("insufficient_quota"),
    "status-quota": said(429, "insufficient_quota"),
    "status-overloaded": said(503, "server_is_overloaded"),
    "plain-429": plays.status(429),
}


@pytest.mark.parametrize("play", FINAL.values(), ids=FINAL)
async def test_what_is_final_for_codex_by_accident_is_reworded(
    serve: Serve, upstream: ScriptedUpstream, play: Play
) -> None:
    """With no account left: never the upstream's own code."""
    gateway = await serve(accounts=[account(upstream, "responses")])
    upstream.always(play)

    reply = await gateway.client().ask("responses", "responses-x")

    error = endings.before("responses", reply)
    for code in (b"server_is_overloaded", b"slow_down", b"insufficient_quota", b"boom"):
        assert code not in reply.body
    assert error.code not in ("", "None")
    if reply.status == 429:
        assert error.retry_after_s
    await gateway.explained(reply)


@each_protocol
async def test_a_refused_account_is_out_loudly(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """An error in the log, a detail of /readyz, and no request for it."""
    gateway = await pair(serve, upstream, protocol)
    upstream.always(plays.status(401), account=f"{protocol}-first")

    for _ in range(4):
        endings.whole(protocol, await gateway.client().ask(protocol, f"{protocol}-x"))

    assert 1 == len(upstream.received(f"{protocol}-first"))
    (cooled,) = gateway.log.events("account.cooled", account=f"{protocol}-first")
    assert ("error", "refused") == (cooled["level"], cooled["reason"])
    ready = await gateway.client().send("/readyz", method="GET")
    assert 200 == ready.status
    accounts = ready.json["accounts"]
    assert "refused" == accounts[f"{protocol}-first"]["reason"]
    assert {"available": True} == accounts[f"{protocol}-second"]


REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
HISTORY = [
    {"type": "message", "role": "user", "content": "one"},
    {**REASONING, "encrypted_content": "sealed-elsewhere" * 8},
    {"type": "message", "role": "user", "content": "two"},
]


async def test_reasoning_that_cannot_be_read_is_left_out_and_asked_again_once(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(accounts=[account(upstream, "responses")])
    refusal = said(400, "invalid_encrypted_content", "could not be verified")
    upstream.next(refusal)

    reply = await gateway.client().ask(
        "responses", "responses-x", input=HISTORY, headers={"session-id": "s-1"}
    )

    endings.whole("responses", reply)
    first, second = upstream.received()
    assert 3 == len(first.json["input"])
    assert ["message", "message"] == [item["type"] for item in second.json["input"]]
    assert 2 == (await gateway.finished(reply))["attempts"]


async def test_reasoning_is_left_out_only_once(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """An upstream that goes on refusing gets no third request."""
    gateway = await serve(accounts=[account(upstream, "responses")])
    upstream.always(said(400, "invalid_encrypted_content", "could not be verified"))

    reply = await gateway.client().ask("responses", "responses-x", input=HISTORY)

    assert 400 == reply.status
    assert 2 == len(upstream.received())


async def test_the_turn_state_of_another_account_is_not_sent(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """To its own account it goes; after a move it does not."""
    gateway = await pair(serve, upstream, "responses")
    state = {"x-codex-turn-state": "state-of-the-first-account"}
    upstream.next(plays.ok(headers=state), account="responses-first")
    ask = gateway.client().ask
    session = {"session-id": "s-1"}
    first = await ask("responses", "responses-x", headers=session)
    assert state["x-codex-turn-state"] == first.headers["x-codex-turn-state"]
    await ask("responses", "responses-x", headers={**session, **state})
    upstream.always(plays.status(503), account="responses-first")
    await ask("responses", "responses-x", headers={**session, **state})

    sent = [
        (request.account, request.headers.get("x-codex-turn-state"))
        for request in upstream.received()
    ]
    own = state["x-codex-turn-state"]
    assert [
        ("responses-first", None),
        ("responses-first", own),
        ("responses-first", own),
        ("responses-second", None),
    ] == sent


async def test_windows_survive_a_restart(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """An account with a minute of retry-after is left alone by the next process."""
    rows = [
        account(upstream, "chat-first", priority=1),
        account(upstream, "chat-second", priority=2),
    ]
    gateway = await serve(daemon=True, accounts=rows)
    upstream.always(limited(retry_after="60"), account="chat-first")
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))
    gateway.daemon.terminate()
    assert 0 == await gateway.daemon.exited()
    gateway.daemon.log.text.clear()
    gateway.daemon.log.lines.clear()
    gateway.client().asked.clear()
    await gateway.daemon.start()

    reply = await gateway.client().ask("chat", "chat-x")

    endings.whole("chat", reply)
    assert 1 == len(upstream.received("chat-first"))
    ready = await gateway.client().send("/readyz", method="GET")
    assert not ready.json["accounts"]["chat-first"]["available"]


@each_protocol
async def test_both_refuse_in_turn_and_it_heals(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """Now one, now the other is down: no client sees it."""
    gateway = await pair(serve, upstream, protocol)
    names = [f"{protocol}-first", f"{protocol}-second"]
    for turn in range(4):
        upstream.always(plays.status(503), account=names[turn % 2])
        upstream.always(plays.ok(GOOD), account=names[1 - turn % 2])
        async with asyncio.timeout(10):
            reply = await gateway.client().ask(protocol, f"{protocol}-x")
        endings.whole(protocol, reply)
