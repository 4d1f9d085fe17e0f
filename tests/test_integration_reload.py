"""
A reload at every moment of a request's life.

What runs goes on as it began; what waits, or is still arriving, is judged by the new
config; and no slot is lost on the way.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.config.changes import Changes, compare
from gateway.config.parse import parse
from gateway.config.schema import Config
from gateway.daemon.app import components_of
from gateway.daemon.wiring import Components
from gateway.errors import ClientError
from tests.conftest import Serve
from tests.kit import badly, endings, plays, seen, settings
from tests.kit.asking import Reply, question
from tests.kit.gateway import Gateway
from tests.kit.scripted import Exchange, Play, ScriptedUpstream

SECRETS = {
    "TEST_KEY_CHAT": "sk-chat",
    "TEST_KEY_CHAT_2": "sk-chat-2",
    "TEST_KEY_NEW": "sk-chat-new",
}


def components(gateway: Gateway) -> Components:
    return components_of(gateway.inside.app)


def parsed(accounts: list[settings.Table], **config: Any) -> Config:
    text = settings.config_text(listen=["127.0.0.1:1"], accounts=accounts, **config)
    return parse(text, lambda name: SECRETS[name.removeprefix("env:")])


@dataclass
class Scene:
    """One request of alice's, brought to a moment, and what holds it there."""

    gateway: Gateway
    upstream: ScriptedUpstream
    accounts: list[settings.Table]
    users: list[settings.Table]
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    looked_up: threading.Event = field(default_factory=threading.Event)
    releases: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def reload(self, **changed: Any) -> Changes:
        config = parsed(
            changed.pop("accounts", self.accounts),
            users=changed.pop("users", self.users),
            **changed,
        )
        changes = compare(components(self.gateway)._config, config)
        components(self.gateway).reload(changes.config)
        return changes

    def ask(self, **options: Any) -> asyncio.Task[Reply]:
        client = self.gateway.client("alice")
        return asyncio.create_task(client.ask("chat", "chat-x", **options))

    async def release(self) -> None:
        self.gate.set()
        self.looked_up.set()
        for release in self.releases:
            await release()


Moment = Callable[[Scene], Awaitable[asyncio.Task[Reply]]]


def after(gate: asyncio.Event, play: Play) -> Play:
    async def late(exchange: Exchange) -> None:
        await gate.wait()
        await play(exchange)

    return late


async def _occupied(scene: Scene, user: str) -> None:
    """Another request of *user* has the only slot until the release."""
    scene.upstream.next(plays.held(scene.gate))
    client = scene.gateway.client(user)
    running = asyncio.create_task(client.ask("chat", "chat-x"))
    await scene.upstream.wait_for(1)
    await seen.output(client.asked[0])

    async def over() -> None:
        endings.whole("chat", await running)

    scene.releases.append(over)


async def user_slot(scene: Scene) -> asyncio.Task[Reply]:
    await _occupied(scene, "alice")
    asking = scene.ask()
    await scene.gateway.inside.waiting("alice", 1)
    return asking


async def account_slot(scene: Scene) -> asyncio.Task[Reply]:
    await _occupied(scene, "bob")
    asking = scene.ask()

    def waits() -> bool:
        counts = components(scene.gateway).registry.counts("account")
        return any(one.waiting for one in counts)

    await scene.gateway.log.wait_for(waits, "no request waits for the account")
    return asking


async def body_arriving(scene: Scene) -> asyncio.Task[Reply]:
    body = json.dumps(question("chat", "chat-x")).encode()
    may_go_on = asyncio.Event()

    async def halting() -> AsyncIterator[bytes]:
        yield body[:10]
        await may_go_on.wait()
        yield body[10:]

    async def send() -> Reply:
        client = scene.gateway.client("alice")
        return await client.send("/v1/chat/completions", halting())

    async def go_on() -> None:
        may_go_on.set()

    scene.releases.append(go_on)
    sending = asyncio.create_task(send())
    requests = components(scene.gateway).open_requests

    def arrives() -> bool:
        return any(scope.record.user for scope in requests)

    await scene.gateway.log.wait_for(arrives, "nothing arrives")
    return sending


async def connecting(scene: Scene) -> asyncio.Task[Reply]:
    """The name of the account is being looked up."""
    asked = threading.Event()

    def look_up(host: str, port: int, **_: object) -> list[object]:
        asked.set()
        scene.looked_up.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    patch = pytest.MonkeyPatch()
    patch.setattr(socket, "getaddrinfo", look_up)

    async def undo() -> None:
        patch.undo()

    scene.releases.append(undo)
    url = scene.upstream.base_url("chat").replace("127.0.0.1", "up.test")
    scene.accounts[0] = {**scene.accounts[0], "base_url": url}
    scene.reload()
    asking = scene.ask()
    await scene.gateway.log.wait_for(asked.is_set, "no name is looked up")
    return asking


def upstream_at(deltas: int | None) -> Moment:
    """No head yet (None), the head (-1), the preamble (0), or output."""

    async def moment(scene: Scene) -> asyncio.Task[Reply]:
        play = (
            after(scene.gate, plays.ok())
            if deltas is None
            else plays.held(scene.gate, deltas)
        )
        scene.upstream.next(play)
        asking = scene.ask()
        await scene.upstream.wait_for(1)
        if deltas is not None:
            await has_come(scene, deltas)
        return asking

    return moment


async def has_come(scene: Scene, deltas: int) -> None:
    """Return once the gateway has read so much of the only answer."""
    if deltas > 0:
        return await seen.output(scene.gateway.client("alice").asked[0])
    [scope] = components(scene.gateway).open_requests
    [attempt] = scope.record.attempts

    def is_there() -> bool:
        return attempt.status == 200 and (deltas < 0 or attempt.received_bytes > 0)

    await scene.gateway.log.wait_for(is_there, "no answer has come")


async def ledger_commit(scene: Scene) -> asyncio.Task[Reply]:
    ledger = components(scene.gateway).ledger
    commits = asyncio.Event()
    real = ledger.close

    async def close(record: Any) -> None:
        commits.set()
        await scene.gate.wait()
        await real(record)

    ledger.close = close  # type: ignore[method-assign]
    asking = scene.ask()
    async with asyncio.timeout(20):
        await commits.wait()
    return asking


WAITING: dict[str, Moment] = {
    "user-slot": user_slot,
    "account-slot": account_slot,
    "body": body_arriving,
}
RUNNING: dict[str, Moment] = {
    "connecting": connecting,
    "head": upstream_at(None),
    "head-is-there": upstream_at(-1),
    "preamble": upstream_at(0),
    "streaming": upstream_at(1),
    "commit": ledger_commit,
}

Change = Callable[[Scene], None]


def user_removed(scene: Scene) -> None:
    scene.reload(users=[scene.users[1]])


def key_changed(scene: Scene) -> None:
    other = settings.user("somebody-else")["key_sha256"]
    scene.reload(users=[{**scene.users[0], "key_sha256": other}, scene.users[1]])


def limits_changed(scene: Scene) -> None:
    """Fewer slots, no places in line, and impatience."""
    small = {"max_concurrent": 1, "max_queued": 0, "queue_timeout_s": 0.001}
    scene.reload(
        users=[{**user, **small} for user in scene.users],
        upstream={"first_event_timeout_s": 0.05, "idle_timeout_s": 0.05},
    )


def account_removed(scene: Scene) -> None:
    scene.reload(accounts=[settings.TRIAL])


def account_renamed(scene: Scene) -> None:
    scene.reload(accounts=[{**scene.accounts[0], "name": "chat-2"}])


def account_replaced(scene: Scene) -> None:
    scene.reload(
        accounts=[
            {
                **scene.accounts[0],
                "base_url": scene.upstream.base_url("elsewhere"),
                "api_key": "env:TEST_KEY_NEW",
            }
        ]
    )


def models_changed(scene: Scene) -> None:
    scene.reload(accounts=[{**scene.accounts[0], "models": ["other-*"]}])


def account_added(scene: Scene) -> None:
    more = {**scene.accounts[0], "name": "chat-2", "max_concurrent": 5}
    scene.reload(accounts=[scene.accounts[0], more])


CHANGES: dict[str, Change] = {
    "user-removed": user_removed,
    "key-changed": key_changed,
    "limits-changed": limits_changed,
    "account-removed": account_removed,
    "account-renamed": account_renamed,
    "account-replaced": account_replaced,
    "models-changed": models_changed,
    "account-added": account_added,
}

REFUSED = {
    ("user-slot", "user-removed"): (401, "user_removed"),
    ("account-slot", "user-removed"): (401, "user_removed"),
    ("body", "user-removed"): (401, "user_removed"),
    ("body", "key-changed"): (401, "unknown_key"),
    ("user-slot", "account-removed"): (404, "model_not_found"),
    ("account-slot", "account-removed"): (404, "model_not_found"),
    ("body", "account-removed"): (404, "model_not_found"),
    ("user-slot", "models-changed"): (404, "model_not_found"),
    ("account-slot", "models-changed"): (404, "model_not_found"),
    ("body", "models-changed"): (404, "model_not_found"),
}
"""What cannot be served any more; everything else gets its whole answer."""


@asynccontextmanager
async def scene_of(
    serve: Serve, upstream: ScriptedUpstream, **limits: Any
) -> AsyncIterator[Scene]:
    users = [
        settings.user("alice", max_concurrent=1, queue_timeout_s=30.0),
        settings.user("bob", max_concurrent=1),
    ]
    accounts = [{**settings.account(upstream, "chat"), **limits}]
    gateway = await serve(accounts=accounts, users=users)
    scene = Scene(gateway, upstream, accounts, users)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(scene.release)
        yield scene


async def check_all_is_given_back(gateway: Gateway) -> None:
    def nothing_held() -> bool:
        counts = components(gateway).registry.counts()
        return not any(one.in_use or one.waiting for one in counts)

    await gateway.log.wait_for(nothing_held, "a slot is held for no request")
    assert [] == await components(gateway).registry.holders()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", [*WAITING, *RUNNING])
async def test_a_reload_at_any_moment(
    serve: Serve, upstream: ScriptedUpstream, moment: str, change: str
) -> None:
    one = {"max_concurrent": 1} if moment == "account-slot" else {}
    async with scene_of(serve, upstream, **one) as scene:
        asking = await {**WAITING, **RUNNING}[moment](scene)
        CHANGES[change](scene)
        for _ in range(
            3
        ):  # a waiter that is to be refused is refused without a release
            await asyncio.sleep(0)
        await scene.release()
        reply = await asking

    gateway = scene.gateway
    expected = REFUSED.get((moment, change))
    if expected:
        status, code = expected
        assert status == reply.status, reply.body
        line = await gateway.finished(reply)
        assert ("refused", code) == (line["outcome"], line["error_code"])
    else:
        endings.whole("chat", reply)
    await check_all_is_given_back(gateway)


@pytest.mark.parametrize("change", ["account-renamed", "account-replaced"])
async def test_who_waited_is_served_by_what_took_the_accounts_place(
    serve: Serve, upstream: ScriptedUpstream, change: str
) -> None:
    async with scene_of(serve, upstream, max_concurrent=1) as scene:
        asking = await account_slot(scene)
        CHANGES[change](scene)
        if change == "account-renamed":
            # The new name has a slot of its own: none needs to be given back.
            endings.whole("chat", await asking)
        await scene.release()
        reply = await asking

    line = await scene.gateway.finished(reply)
    last = upstream.received()[-1]
    if change == "account-renamed":
        assert "chat-2" == line["account"]
    else:
        assert ("elsewhere", "Bearer sk-chat-new") == (
            last.account,
            last.headers["authorization"],
        )


async def test_an_account_that_is_added_serves_those_who_wait(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async with scene_of(serve, upstream, max_concurrent=1) as scene:
        asking = await account_slot(scene)
        account_added(scene)
        endings.whole("chat", await asking)  # while the other's slot is still taken


async def test_what_a_stream_began_with_decides_its_price(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    price = {"price": {"input": 100.0, "output": 100.0, "cached": 100.0}}
    async with scene_of(serve, upstream, **price) as scene:
        asking = await upstream_at(1)(scene)
        account_removed(scene)
        await scene.release()
        reply = await asking
        spent = components(scene.gateway).budget_guard._budgets._used["alice"].usd

    endings.whole("chat", reply)
    assert 0 < sum(spent.values())


async def test_an_answer_to_the_old_key_says_nothing_of_the_new_one(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """Neither a refusal nor a success of an attempt that began before the reload."""
    async with scene_of(serve, upstream) as scene:
        upstream.next(after(scene.gate, plays.status(401)))
        asking = scene.ask()
        await upstream.wait_for(1)
        account_replaced(scene)
        await scene.release()
        await asking

        assert {"chat": {"available": True}} == components(
            scene.gateway
        ).accounts.status.states()


MENDED = {
    "api_key": "env:TEST_KEY_NEW",
    "auth": "api-key",
    "headers": {"x-project": "right"},
    "base_url": None,
    "protocol": "responses",
    "rename": {"chat-x": "other"},
}


@pytest.mark.parametrize("field_", MENDED)
async def test_what_an_account_was_left_alone_for_is_forgotten_once_mended(
    serve: Serve, upstream: ScriptedUpstream, field_: str
) -> None:
    async with scene_of(serve, upstream) as scene:
        upstream.always(plays.status(401))
        await scene.ask()
        await scene.ask()
        accounts = components(scene.gateway).accounts
        value = MENDED[field_] or upstream.base_url("elsewhere")
        if accounts.status.states()["chat"]["available"]:
            accounts._health.failed(  # a second user's word, or a probe's
                "chat", "chat-x", _refused(), 1e9, 1e9
            )
        scene.reload(accounts=[{**scene.accounts[0], field_: value}])

        assert {"chat": {"available": True}} == accounts.status.states()


def _refused() -> Any:
    from gateway.accounts.verdict import judge_status

    return judge_status(401, {}, b"", 0.0)


async def test_other_changes_leave_an_accounts_mark_alone(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async with scene_of(serve, upstream) as scene:
        upstream.always(plays.status(429, headers={"retry-after": "30"}))
        await scene.ask()
        accounts = components(scene.gateway).accounts
        before = accounts.status.states()
        assert not before["chat"]["available"]
        other = {"max_concurrent": 7, "priority": 2, "models": ["chat-*", "more"]}
        scene.reload(accounts=[{**scene.accounts[0], **other}])

        assert not accounts.status.states()["chat"]["available"]


async def test_a_mark_is_not_restored_for_an_account_that_was_changed_meanwhile(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """A restart with another key is a mended account, as by a reload."""
    async with scene_of(serve, upstream) as scene:
        upstream.always(plays.status(429, headers={"retry-after": "30"}))
        await scene.ask()
        accounts = components(scene.gateway).accounts
        rows = accounts.status.dump()
        assert rows
        accounts._health.forget("chat")
        accounts.status.load([dict(row) for row in rows])
        assert not accounts.status.states()["chat"]["available"]
        scene.reload(accounts=[{**scene.accounts[0], "api_key": "env:TEST_KEY_NEW"}])
        accounts.status.load([dict(row) for row in rows])

        assert accounts.status.states()["chat"]["available"]


async def test_a_body_that_is_bad_and_late_is_still_a_400(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """A reload while it arrives changes nothing for a user that remains."""
    async with scene_of(serve, upstream) as scene:
        reader, writer = await badly.connect(scene.gateway)
        head = badly.raw_head("chat", scene.gateway, "content-length: 4", "late-bad")
        writer.write(head + b"{")
        requests = components(scene.gateway).open_requests
        await scene.gateway.log.wait_for(
            lambda: any(scope.record.user for scope in requests), "nothing"
        )
        account_added(scene)
        writer.write(b'"x"')
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert ClientError("invalid_request").code in str(
        await scene.gateway.log.wait_finished("late-bad")
    )
