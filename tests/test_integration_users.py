"""Users and keys that are made, changed and removed while the gateway runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.config.schema import Budget, User
from gateway.daemon.app import components_of
from gateway.daemon.wiring import Components
from gateway.endpoints import auth
from gateway.ledger import runtime_users
from gateway.ledger.ledger import Ledger
from tests.conftest import Serve
from tests.kit import endings, runtime, settings
from tests.kit.asking import Reply
from tests.kit.gateway import Gateway
from tests.kit.queueing import holding
from tests.kit.runtime import Change, added, change_elsewhere, removed, revoked
from tests.kit.scripted import ScriptedUpstream

WITHIN_S = 1.0  # what is changed at run time holds everywhere


def parts(gateway: Gateway) -> Components:
    return components_of(gateway.inside.app)


async def change(gateway: Gateway, what: Change) -> None:
    await parts(gateway).changes.change(runtime_users.KIND, what)


async def ask(gateway: Gateway, user: str = "carol") -> Reply:
    return await gateway.client(user).ask("chat", "chat-x")


async def refused(gateway: Gateway, code: str, user: str = "carol") -> Reply:
    reply = await ask(gateway, user)
    line = await gateway.finished(reply)
    assert code == line["error_code"]
    return reply


async def becomes(ready: Callable[[], Awaitable[bool]]) -> None:
    """*ready* is soon true; a slow machine may take longer, a broken program never."""
    async with asyncio.timeout(20 * WITHIN_S):
        while not await ready():
            await asyncio.sleep(0.02)


async def test_a_user_made_here_can_ask_at_once(gateway: Gateway) -> None:
    await refused(gateway, "unknown_key")

    await change(gateway, added("carol"))
    endings.whole("chat", await ask(gateway))

    await change(gateway, revoked("carol"))
    reply = await refused(gateway, "unknown_key")
    assert (401, "false") == (reply.status, reply.headers["x-should-retry"])


async def test_what_another_process_changes_is_noticed(
    gateway: Gateway, tmp_path: Path
) -> None:
    """On one kept connection: the client keeps its own."""

    async def status_is(wanted: int) -> bool:
        return wanted == (await ask(gateway)).status

    change_elsewhere(tmp_path, added("carol"))
    await becomes(lambda: status_is(200))
    change_elsewhere(tmp_path, revoked("carol"))
    await becomes(lambda: status_is(401))


async def test_a_look_is_more_frequent_than_the_promise() -> None:
    from gateway.ledger.runtime_changes import LOOK_EVERY_S

    assert LOOK_EVERY_S <= WITHIN_S / 2


async def test_limits_hold_as_for_a_user_of_the_config(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    await change(gateway, added("carol", max_concurrent=1, max_queued=0))

    async with holding(gateway.client("carol"), upstream):
        await refused(gateway, "queue_full")

        raised = User("carol", (), max_concurrent=2)
        await change(
            gateway, lambda c: runtime_users.set_user(c, "carol", lambda _: raised)
        )
        endings.whole("chat", await ask(gateway))


async def test_a_budget_holds_as_for_a_user_of_the_config(gateway: Gateway) -> None:
    await change(gateway, added("carol", budget=Budget(requests_per_minute=1)))

    endings.whole("chat", await ask(gateway))
    await refused(gateway, "budget_exceeded")


async def test_a_removed_user_finishes_what_runs_and_waits_no_more(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    await change(gateway, added("carol", max_concurrent=1))

    async with holding(gateway.client("carol"), upstream):  # it ends whole
        waiting = asyncio.create_task(ask(gateway))
        await gateway.inside.waiting("carol", 1)
        await change(gateway, removed("carol"))

        reply = await waiting
        assert 401 == reply.status
        assert "user_removed" == (await gateway.finished(reply))["error_code"]
        await refused(gateway, "unknown_key")


async def test_a_key_is_valid_until_the_moment_it_expires(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_at = datetime.now(UTC) + timedelta(hours=1)
    await change(gateway, added("carol", expires_at=ends_at))
    now = ends_at.timestamp() - 0.001

    class Clock:
        @staticmethod
        def time() -> float:
            return now

    monkeypatch.setattr(auth, "time", Clock)
    endings.whole("chat", await ask(gateway))

    now = ends_at.timestamp()
    assert 401 == (await refused(gateway, "expired_key")).status


async def test_the_config_wins_where_both_have_a_user(gateway: Gateway) -> None:
    def shadow(connection: runtime.Connection) -> None:
        runtime_users.add_user(connection, User("bob", (), max_queued=7), NOW)
        theirs = runtime.key_sha256(settings.key_of("carol"))
        key = runtime_users.RuntimeKey(theirs, "bob", "", NOW, None)
        runtime_users.add_key(connection, key)

    await change(gateway, shadow)

    endings.whole("chat", await ask(gateway, "bob"))
    await refused(gateway, "unknown_key", "carol")
    assert parts(gateway).live.users["bob"].max_queued is None
    await change(gateway, lambda connection: None)
    assert ["bob"] == [one["user"] for one in gateway.log.events("user.shadowed")]


NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


async def test_a_reload_keeps_the_users_of_the_run_time(
    gateway: Gateway, tmp_path: Path
) -> None:
    await change(gateway, added("carol"))

    parts(gateway).reload(parts(gateway).live.config)

    endings.whole("chat", await ask(gateway))


async def test_a_database_that_is_away_leaves_those_who_are_known(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(gateway, added("carol"))

    async def away(*_: object) -> None:
        raise OSError("away")

    ledger: Ledger = parts(gateway).ledger
    monkeypatch.setattr(ledger, "read", away)
    await gateway.log.wait_events("changes.unread")

    endings.whole("chat", await ask(gateway))
    monkeypatch.undo()


async def test_the_last_use_of_a_key_is_noted_and_written_later(
    gateway: Gateway,
) -> None:
    await change(gateway, added("carol"))
    for user in ("carol", "carol", "alice"):
        endings.whole("chat", await ask(gateway, user))
    components = parts(gateway)
    digests = {runtime.key_sha256(settings.key_of(user)) for user in ("carol", "alice")}
    assert digests == components.live.used_keys

    components.users.save_uses()
    await becomes(lambda: written(components, digests))

    assert set() == components.live.used_keys


async def written(components: Components, digests: set[str]) -> bool:
    uses = await components.ledger.read(runtime_users.key_uses)
    now = datetime.now(UTC)
    return digests == {
        digest for digest, at in uses.items() if now - at < timedelta(minutes=1)
    }


async def test_users_of_the_run_time_are_there_after_a_start(
    serve: Serve, tmp_path: Path
) -> None:
    change_elsewhere(tmp_path, added("carol", max_concurrent=1))

    gateway = await serve()

    endings.whole("chat", await ask(gateway))
