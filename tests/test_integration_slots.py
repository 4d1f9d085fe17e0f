"""Slots are live work: none is left behind, and none is given back too early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.admission.registry import Registry
from gateway.client.answer import ClientAnswer
from gateway.daemon.app import components_of
from gateway.errors import GatewayError
from gateway.ledger.ledger import Ledger
from gateway.relay import drains
from gateway.relay.conversation import Conversations
from gateway.relay.failover import Relay
from gateway.relay.upstream import Upstream
from gateway.relay.whole_attempt import WholeAttempt
from gateway.transport.http_response import HttpResponse
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

PAIRS = [(one, one) for one in answers.PROTOCOLS] + [
    ("responses", "chat"),
    ("chat", "messages"),
    ("messages", "responses"),
]
each_pair = pytest.mark.parametrize(
    ("protocol", "upstreams"), PAIRS, ids=["-on-".join(pair) for pair in PAIRS]
)
streamed = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def in_use(gateway: Gateway) -> dict[tuple[str, str], int]:
    """The slots that are taken, by scope and name."""
    counts = components_of(gateway.inside.app).registry.counts()
    return {(one.scope, one.name): one.in_use for one in counts if one.in_use}


async def all_free(gateway: Gateway) -> None:
    """Return once no slot is taken."""
    await gateway.log.wait_for(lambda: not in_use(gateway), "a slot was not given back")


# --- whatever interrupts an attempt, and wherever ---------------------------------


AWAITS: dict[str, tuple[type, str]] = {
    "the-users-slot": (Registry, "user_slot"),
    "earlier-turns": (Conversations, "resume"),
    "the-accounts-slot": (Registry, "account_slot"),
    "connecting": (Upstream, "open"),
    "head": (HttpResponse, "head"),
    "preamble": (HttpResponse, "read"),
    "the-next-account": (Relay, "_pause"),
}
OF_STREAMS: dict[str, tuple[type, str]] = {
    "first-output": (ClientAnswer, "send"),
    "within-the-stream": (HttpResponse, "pump"),
    "the-terminal": (ClientAnswer, "finish"),
}
AT_THE_END: dict[str, tuple[type, str]] = {
    "keeping-the-turn": (Conversations, "keep"),
    "the-ledgers-commit": (Ledger, "close"),
}
PLACES = [
    *(
        (name, place, True)
        for name, place in (AWAITS | OF_STREAMS | AT_THE_END).items()
    ),
    *((name, place, False) for name, place in (AWAITS | AT_THE_END).items()),
]


def interrupted(
    patch: pytest.MonkeyPatch, place: tuple[type, str], do: Callable[[], Awaitable[Any]]
) -> None:
    """*do* comes before what is awaited at *place*, once."""
    owner, name = place
    inner, done = getattr(owner, name), []

    async def outer(*given: Any, **named: Any) -> Any:
        if not done:
            done.append(True)
            await do()
        return await inner(*given, **named)

    patch.setattr(owner, name, outer)


@pytest.mark.parametrize("drain_s", [0.0, 60.0], ids=["cancelled", "drained"])
@pytest.mark.parametrize(
    ("place", "stream"),
    [(place, stream) for _, place, stream in PLACES],
    ids=[f"{name}-{'stream' if stream else 'whole'}" for name, _, stream in PLACES],
)
@pytest.mark.parametrize("upstreams", ["responses", "chat"], ids=["same", "converted"])
async def test_a_client_that_leaves_at_any_await_leaves_no_slot_behind(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[type, str],
    stream: bool,
    upstreams: str,
    drain_s: float,
) -> None:
    gateway = await serve(upstream={"client_gone_drain_s": drain_s})
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    interrupted(monkeypatch, place, hang)
    upstream.next(plays.ok(interval_s=0.02))
    if place == AWAITS["the-next-account"]:
        upstream.next(plays.status(503))
    client = gateway.client()
    asked = asyncio.create_task(
        client.ask("responses", f"{upstreams}-x", stream=stream)
    )
    waiting = asyncio.create_task(reached.wait())
    await asyncio.wait([asked, waiting], return_when="FIRST_COMPLETED", timeout=20)
    asked.cancel()
    waiting.cancel()
    await asyncio.wait([asked, waiting])

    await all_free(gateway)
    if reached.is_set():
        line = await gateway.log.wait_finished(client.asked[0])
        assert "client_gone" == line["outcome"]


@pytest.mark.parametrize(
    ("place", "stream"),
    [(place, stream) for _, place, stream in PLACES],
    ids=[f"{name}-{'stream' if stream else 'whole'}" for name, _, stream in PLACES],
)
@pytest.mark.parametrize("upstreams", ["responses", "chat"], ids=["same", "converted"])
async def test_a_failure_at_any_await_leaves_no_slot_behind(
    gateway: Gateway,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[type, str],
    stream: bool,
    upstreams: str,
) -> None:
    async def fail() -> None:
        raise GatewayError("ledger_unavailable")

    interrupted(monkeypatch, place, fail)
    upstream.next(plays.ok(interval_s=0.02))
    await gateway.client().ask("responses", f"{upstreams}-x", stream=stream)

    await all_free(gateway)


@streamed
async def test_a_request_that_cannot_be_converted_leaves_no_slot_behind(
    gateway: Gateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    reply = await gateway.client().ask(
        "chat", "messages-x", stream=stream, n=3, logprobs=True
    )

    assert 400 == reply.status
    await all_free(gateway)
    assert [] == upstream.received()


# --- the client has left, the upstream works on ------------------------------------


def draining(gateway: Gateway) -> bool:
    registry = components_of(gateway.inside.app).registry
    assert isinstance(registry, Registry)
    return any(holder.state == "draining" for holder in registry._holders.all)


async def silent_body(exchange: Any) -> None:
    """The head of a whole answer, and half of its body."""
    await exchange.head(200, {"content-type": "application/json"}, length=1000)
    await exchange.send(b"{" + b" " * 500)
    await asyncio.Event().wait()


class Leaver:
    """Asks, and hangs up within the answer."""

    def __init__(self, gateway: Gateway, patch: pytest.MonkeyPatch) -> None:
        self._client = gateway.client()
        self._gateway = gateway
        self._reading = asyncio.Event()
        read = WholeAttempt._read

        async def reading(attempt: WholeAttempt, *args: Any) -> Any:
            self._reading.set()
            return await read(attempt, *args)

        patch.setattr(WholeAttempt, "_read", reading)

    async def leave(self, protocol: str, model: str, stream: bool) -> None:
        if stream:
            async with self._client.open(protocol, model) as response:
                await response.content.readany()
                response.close()
            return
        self._reading.clear()
        asking = self._client.ask(protocol, model, stream=False)
        task = asyncio.create_task(asking)
        await self._reading.wait()
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("max_queued", [0, 20])
@streamed
@each_pair
async def test_the_users_slot_follows_the_drain_until_the_user_asks_again(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    upstreams: str,
    stream: bool,
    max_queued: int,
) -> None:
    """One generation at a time, however often the user hangs up and asks again."""
    gateway = await serve(limits={"max_concurrent": 1, "max_queued": max_queued})
    leaver = Leaver(gateway, monkeypatch)
    for _ in range(3):
        upstream.next(plays.silence(1) if stream else silent_body)
        await leaver.leave(protocol, f"{upstreams}-x", stream)
        await gateway.log.wait_for(lambda: draining(gateway), "it is not drained")
        assert {("user", "alice"): 1, ("account", upstreams): 1} == in_use(gateway)
    reply = await gateway.client().ask(protocol, f"{upstreams}-x")

    endings.whole(protocol, reply)
    await all_free(gateway)
    await upstream.idle()
    assert [True] * 3 == [one.cut_by_client for one in upstream.received()[:3]]


@streamed
async def test_a_drain_that_ends_by_itself_gives_both_slots_back(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    gateway = await serve(limits={"max_concurrent": 1})
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with gateway.client().open("chat", "chat-x") as response:
        await response.content.readany()
        response.close()
    await gateway.log.wait_for(lambda: draining(gateway), "it is not drained")
    gate.set()
    await all_free(gateway)
    line = await gateway.log.wait_finished(gateway.client().asked[0])

    assert ("client_gone", True) == (line["outcome"], line["output_tokens"] > 0)
    assert not upstream.received()[0].cut_by_client


async def test_drains_are_bounded_in_number(
    serve: Serve, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is not read on: its upstream is cut, its slots are free."""
    monkeypatch.setattr(drains, "MAX_DRAINS", 1)
    gateway = await serve()
    leaver = Leaver(gateway, monkeypatch)
    gate = asyncio.Event()
    upstream.next(plays.held(gate), plays.silence(1))
    await leaver.leave("chat", "chat-x", True)
    await gateway.log.wait_for(lambda: draining(gateway), "it is not drained")
    await leaver.leave("chat", "chat-x", True)
    second = upstream.received()[1]
    async with asyncio.timeout(20):
        await second.over.wait()

    assert second.cut_by_client
    assert not upstream.received()[0].over.is_set()
    assert 1 == in_use(gateway)["account", "chat"]
    gate.set()
    await all_free(gateway)


@streamed
async def test_drains_are_bounded_in_size(
    serve: Serve,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    monkeypatch.setattr(drains, "MAX_DRAIN_BYTES", 200_000)
    gateway = await serve()

    async def endless(exchange: Any) -> None:
        kind = "text/event-stream" if stream else "application/json"
        await exchange.head(200, {"content-type": kind})
        begun = answers.stream("chat", Answer(), exchange.request.json).begun(1)
        await exchange.send(b"".join(begun) if stream else b"{")
        while True:
            await exchange.send(
                b": " + b" " * 10_000 + b"\n\n" if stream else b" " * 10_000
            )
            await asyncio.sleep(0.001)

    upstream.next(endless)
    await Leaver(gateway, monkeypatch).leave("chat", "chat-x", stream)
    await all_free(gateway)
    await upstream.idle()

    assert upstream.received()[0].cut_by_client


# --- what a wait is measured by ------------------------------------------------------


async def test_an_attempt_does_not_count_as_waiting(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """``queue_timeout_s`` is for the waits alone, however long an account took."""
    rows = [
        account(upstream, "chat-a", priority=1, models=["chat-x"]),
        account(upstream, "chat-b", priority=2, max_concurrent=1),
    ]
    gateway = await serve(accounts=rows, limits={"queue_timeout_s": 3.0})
    gate = asyncio.Event()
    upstream.always(plays.status(503, after_s=3.5), account="chat-a")
    upstream.next(plays.held(gate), account="chat-b", model="chat-held")
    holding = asyncio.create_task(gateway.client("bob").ask("chat", "chat-held"))
    await upstream.wait_for(1, "chat-b")
    asked = asyncio.create_task(gateway.client().ask("chat", "chat-x"))
    await gateway.log.wait_for(
        lambda: gateway.log.events("attempt.failed"), "it has not failed"
    )
    gate.set()

    endings.whole("chat", await asked)
    endings.whole("chat", await holding)
