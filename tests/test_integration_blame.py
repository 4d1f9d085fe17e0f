"""
What one user, or one pool of accounts, brings about stays with it.

The second account answers everybody; the first misbehaves for one of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.accounts.accounts import Accounts
from gateway.config.schema import Account
from gateway.daemon.app import components_of
from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.answer import Answer
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, Play, ScriptedUpstream
from tests.kit.settings import account, user

each_protocol = pytest.mark.parametrize("protocol", answers.PROTOCOLS)
MARK = "x-of-one-client"
"""A header that makes the upstream refuse; the gateway does not know it."""


def refusing_marked(status: int) -> Play:
    """Refuse who sends ``MARK``; serve everybody else."""
    good = plays.ok(Answer(id="good"))
    bad = plays.status(status, {"error": {"code": "who_knows", "message": "no"}})

    async def play(exchange: Exchange) -> None:
        marked = MARK in exchange.request.headers
        await (bad if marked else good)(exchange)

    return play


def three(upstream: ScriptedUpstream, protocol: str) -> list[Any]:
    return [account(upstream, f"{protocol}-{n}") for n in "123"]


@each_protocol
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("served_before", [True, False])
async def test_one_users_refused_requests_take_no_account_from_another(
    serve: Serve,
    upstream: ScriptedUpstream,
    protocol: str,
    status: int,
    served_before: bool,
) -> None:
    gateway = await serve(accounts=three(upstream, protocol))
    upstream.always(refusing_marked(status))
    alice, bob = gateway.client("alice"), gateway.client("bob")
    model = f"{protocol}-x"
    if served_before:
        endings.whole(protocol, await alice.ask(protocol, model))

    for _ in range(5):
        reply = await bob.ask(protocol, model, headers={MARK: "1"})
        assert 502 == reply.status
    upstream.requests.clear()

    endings.whole(protocol, await alice.ask(protocol, model))
    assert 1 == len(upstream.received())
    ready = await alice.send("/readyz", method="GET")
    assert 200 == ready.status or not served_before


@each_protocol
@pytest.mark.parametrize("names", [["alice"], ["alice", "bob"]])
@pytest.mark.parametrize("reload", [True, False])
async def test_a_key_that_is_dead_for_everybody_is_asked_four_times_at_most(
    serve: Serve,
    upstream: ScriptedUpstream,
    protocol: str,
    names: list[str],
    reload: bool,
) -> None:
    """With one user in the whole gateway, too, and a reload in between."""
    rows = three(upstream, protocol)
    gateway = await serve(accounts=rows, users=[user(name) for name in names])
    upstream.always(plays.status(401))

    for n in range(12):
        reply = await gateway.client(names[n % len(names)]).ask(
            protocol, f"{protocol}-x"
        )
        assert 502 == reply.status
        if reload and n == 3:
            components = components_of(gateway.inside.app)
            components.reload(components._config)
    for row in rows:
        assert 1 <= len(upstream.received(row["name"])) <= 4
        assert gateway.log.events("account.cooled", account=row["name"])


def accounts_of(**fields: Any) -> list[Account]:
    return [
        Account(name="a", **{"base_url": "http://h", "protocol": "chat", **fields}),
        Account(name="b", base_url="http://h", protocol="chat", api_key="k"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"api_key": "new"},
        {"base_url": "http://other"},
        {"auth": "x-api-key"},
        {"headers": {"OpenAI-Organization": "ours"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_lets_the_gateway_in_clears_the_account_when_it_changes(
    change: dict[str, Any],
) -> None:
    rows = [
        {
            "account": name,
            "model": "",
            "reason": "refused",
            "since": 0.0,
            "until": 1e12,
            "told": False,
            "strikes": 4,
        }
        for name in "ab"
    ]
    pool = Accounts(accounts_of(api_key="old"), dict)
    pool.status.load(rows)
    assert not pool.status.states()["a"]["available"]

    pool.replace(accounts_of(api_key="old", priority=7))
    assert not pool.status.states()["a"]["available"]
    pool.replace(accounts_of(**{"api_key": "old", **change}))
    assert pool.status.states()["a"]["available"]
    assert not pool.status.states()["b"]["available"]


# --- what passes by itself --------------------------------------------------------

PASSING: dict[str, Play] = {
    "500": plays.status(500),
    "503": plays.status(503, headers={"retry-after": "20"}),
    "reset": plays.reset(None),
    "failed": plays.failed("server_error", deltas=0),
}


def failing_marked(bad: Play) -> Play:
    """Fail for who sends ``MARK``; serve everybody else."""
    good = plays.ok()

    async def play(exchange: Exchange) -> None:
        marked = MARK in exchange.request.headers
        await (bad if marked else good)(exchange)

    return play


@each_protocol
@pytest.mark.parametrize("bad", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("stream", [True, False])
async def test_one_users_requests_that_fail_everywhere_harm_no_other_user(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, bad: Play, stream: bool
) -> None:
    gateway = await serve(accounts=three(upstream, protocol))
    upstream.always(failing_marked(bad))
    alice, bob = gateway.client("alice"), gateway.client("bob")
    model = f"{protocol}-x"

    for _ in range(6):
        reply = await alice.ask(protocol, model, stream=stream)
        assert (200, False) == (reply.status, reply.broken)
        failed = await bob.ask(protocol, model, stream=stream, headers={MARK: "1"})
        assert failed.status >= 429


@each_protocol
@pytest.mark.parametrize("bad", PASSING.values(), ids=PASSING)
async def test_a_model_that_fails_everywhere_takes_no_other_with_it(
    serve: Serve, upstream: ScriptedUpstream, protocol: str, bad: Play
) -> None:
    gateway = await serve(accounts=three(upstream, protocol))
    upstream.always(bad, model=f"{protocol}-dead")
    ask = gateway.client().ask

    for _ in range(6):
        endings.whole(protocol, await ask(protocol, f"{protocol}-x"))
        assert (await ask(protocol, f"{protocol}-dead")).status >= 429


# --- pools ------------------------------------------------------------------------


async def test_a_dead_pool_leaves_the_others_their_second_account(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """A hundred requests for what is dead, then each of the others is served."""
    rows = [
        account(upstream, "chat-dead-1", models=["dead"]),
        account(upstream, "chat-dead-2", models=["dead"]),
        *[account(upstream, f"chat-first-{n}", models=[f"m{n}"]) for n in range(12)],
        account(upstream, "chat-second", models=["m*"], priority=2),
    ]
    gateway = await serve(accounts=rows, users=[user("alice", max_concurrent=0)])
    upstream.always(plays.status(500))
    upstream.always(plays.ok(), account="chat-second")
    ask = gateway.client().ask

    for _ in range(4):
        await asyncio.gather(*[ask("chat", "dead") for _ in range(25)])

    for n in range(12):
        endings.whole("chat", await ask("chat", f"m{n}"))


async def test_invented_models_leave_an_accounts_quota_known(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    rows = [
        account(upstream, "chat-first", priority=1, models=["*"]),
        account(upstream, "chat-second", priority=2, models=["*"]),
    ]
    gateway = await serve(accounts=rows)
    no_model = {"error": {"code": "model_not_found", "message": "no"}}
    upstream.always(plays.status(402), account="chat-first")
    ask = gateway.client().ask
    endings.whole("chat", await ask("chat", "real"))
    upstream.always(plays.status(404, no_model))
    for n in range(300):
        await ask("chat", f"invented-{n}", stream=False)
    upstream.always(plays.ok(), account="chat-second")
    upstream.requests.clear()

    endings.whole("chat", await ask("chat", "real"))

    assert [] == upstream.received("chat-first")


# --- streams that break -----------------------------------------------------------


async def pair(serve: Serve, upstream: ScriptedUpstream, protocol: str) -> Gateway:
    """Two accounts, "…-first" preferred, and its streams all break within the text."""
    rows = [
        account(upstream, f"{protocol}-first", priority=1),
        account(upstream, f"{protocol}-second", priority=2),
    ]
    upstream.always(plays.cut(2), account=f"{protocol}-first")
    return await serve(accounts=rows)


@each_protocol
async def test_an_account_whose_streams_all_break_is_left_alone(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await pair(serve, upstream, protocol)
    alice, bob = gateway.client("alice"), gateway.client("bob")
    model = f"{protocol}-x"
    for client in (alice, bob, alice):
        endings.in_stream(protocol, await client.ask(protocol, model))

    for client in (bob, alice):
        endings.whole(protocol, await client.ask(protocol, model))

    assert 3 == len(upstream.received(f"{protocol}-first"))
    (cooled,) = gateway.log.events("account.cooled")
    assert ("failed", f"{protocol}-first") == (cooled["reason"], cooled["account"])


@each_protocol
async def test_one_users_broken_streams_are_not_enough(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await pair(serve, upstream, protocol)
    for _ in range(5):
        reply = await gateway.client().ask(protocol, f"{protocol}-x")
        endings.in_stream(protocol, reply)

    assert not gateway.log.events("account.cooled")


@each_protocol
async def test_a_whole_answer_in_between_is_one(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    """A stream's, or one that comes at once."""
    gateway = await pair(serve, upstream, protocol)
    alice, bob = gateway.client("alice"), gateway.client("bob")
    model, first = f"{protocol}-x", f"{protocol}-first"
    for stream in (True, False):
        for client in (alice, bob):
            endings.in_stream(protocol, await client.ask(protocol, model))
        upstream.next(plays.ok(), account=first)
        reply = await alice.ask(protocol, model, stream=stream)
        assert 200 == reply.status

    assert 6 == len(upstream.received(first))
    assert not gateway.log.events("account.cooled")


@each_protocol
async def test_where_no_other_account_fits_it_is_asked_all_the_same(
    serve: Serve, upstream: ScriptedUpstream, protocol: str
) -> None:
    gateway = await serve(accounts=[account(upstream, protocol)])
    upstream.always(plays.cut(2))
    clients = [gateway.client("alice"), gateway.client("bob")]
    for n in range(45):
        reply = await clients[n % 2].ask(protocol, f"{protocol}-x")
        endings.in_stream(protocol, reply)

    assert 45 == len(upstream.received())
    upstream.always(plays.ok())
    endings.whole(protocol, await clients[0].ask(protocol, f"{protocol}-x"))
