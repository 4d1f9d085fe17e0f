"""Conversations of many turns stay where they began, and move only if they must."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays
from tests.kit.asking import Client
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream
from tests.kit.settings import account

MANY = {"max_concurrent": 500, "max_queued": 500}
CODEX = {"user-agent": "codex_exec/0.50", "originator": "codex_exec"}
CLAUDE = {"user-agent": "claude-cli/2.0 (external, cli)"}
NAMED = {
    "codex": ("responses", "session-id", CODEX),
    "claude": ("messages", "x-claude-code-session-id", CLAUDE),
    "chat": ("chat", "x-session-id", {}),
}


async def turn(client: Client, kind: str, session: str) -> None:
    protocol, header, agent = NAMED[kind]
    reply = await client.ask(
        protocol, f"{protocol}-x", headers={header: session, **agent}
    )
    endings.whole(protocol, reply)


def places(upstream: ScriptedUpstream, kind: str) -> dict[str, list[str]]:
    """The accounts that each session was sent to, in order, the failed ones too."""
    went: dict[str, list[str]] = defaultdict(list)
    for request in upstream.received():
        went[request.headers[NAMED[kind][1]]].append(request.account)
    return went


async def four(serve: Serve, upstream: ScriptedUpstream, kind: str) -> Gateway:
    protocol = NAMED[kind][0]
    rows = [account(upstream, f"{protocol}-{n}") for n in range(4)]
    return await serve(accounts=rows, limits=MANY)


@pytest.mark.parametrize("kind", NAMED)
async def test_conversations_of_twenty_turns_stay_on_one_account(
    serve: Serve, upstream: ScriptedUpstream, kind: str
) -> None:
    gateway = await four(serve, upstream, kind)

    async def conversation(name: str) -> None:
        for _ in range(20):
            await turn(gateway.client(), kind, name)

    await asyncio.gather(*(conversation(f"session-{n}") for n in range(8)))

    went = places(upstream, kind)
    assert [20] * 8 == [len(accounts) for accounts in went.values()]
    assert {1} == {len(set(accounts)) for accounts in went.values()}
    assert len({accounts[0] for accounts in went.values()}) > 1


@pytest.mark.parametrize("kind", NAMED)
async def test_killing_one_of_four_moves_only_its_sessions(
    serve: Serve, upstream: ScriptedUpstream, kind: str
) -> None:
    """400 sessions: 20-30 % each; those of the dead one finish elsewhere, and stay."""
    gateway = await four(serve, upstream, kind)
    names = [f"session-{n}" for n in range(400)]

    async def all_once(some: list[str]) -> None:
        for start in range(0, len(some), 50):
            batch = some[start : start + 50]
            await asyncio.gather(*(turn(gateway.client(), kind, n) for n in batch))

    await all_once(names)
    first = {name: went[0] for name, went in places(upstream, kind).items()}
    shares = Counter(first.values())
    assert 4 == len(shares) and all(80 <= n <= 120 for n in shares.values()), shares

    dead = min(shares)
    upstream.always(plays.cut(None), account=dead)
    some = names[::8]
    await all_once(some)
    await all_once(some)
    last = {name: went[-2:] for name, went in places(upstream, kind).items()}

    for name in some:
        if first[name] == dead:
            assert 1 == len(set(last[name])) and dead not in last[name]
        else:
            assert [first[name]] * 2 == last[name]


async def test_two_users_with_one_session_id_are_two_sessions(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """What alice moves does not move bob."""
    rows = [account(upstream, f"chat-{n}", priority=n) for n in (1, 2)]
    gateway = await serve(accounts=rows, limits=MANY)
    await turn(gateway.client("bob"), "chat", "shared")
    upstream.next(plays.status(503), account="chat-1")
    await turn(gateway.client("alice"), "chat", "shared")
    await turn(gateway.client("alice"), "chat", "shared")

    assert ["chat-1", "chat-1", "chat-2", "chat-2"] == [
        request.account for request in upstream.received()
    ]


def test_every_protocol_has_its_conversation() -> None:
    assert set(answers.PROTOCOLS) == {row[0] for row in NAMED.values()}
