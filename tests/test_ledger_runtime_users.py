"""Users and keys in the database, and how a change of them is noticed."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection

from gateway.config.schema import Budget, User
from gateway.ledger import runtime_changes, runtime_users
from gateway.ledger.database import Database, LedgerError
from gateway.ledger.ledger import Ledger
from gateway.ledger.runtime_changes import RuntimeChanges
from gateway.ledger.runtime_users import RuntimeKey, UserChangeError
from tests.kit.inprocess import logging_to
from tests.kit.logs import Log
from tests.ledger_places import (  # noqa: F401
    OpenLedger,
    Place,
    open_ledger_fixture,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
    sqlite_place_fixture,
)

NOW = datetime(2026, 11, 24, 12, 0, 0, 250000, tzinfo=UTC)
CAROL = User("carol", (), 3, 0, 2.5, None, 1 << 40, Budget(5.0, 0.25, 1 << 40, 60))


def key(digit: str, user: str = "carol", label: str = "") -> RuntimeKey:
    return RuntimeKey(digit * 64, user, label, NOW, None)


async def known(ledger: Ledger) -> runtime_users.RuntimeUsers:
    return await ledger.read(runtime_users.load)


async def test_a_user_comes_back_as_it_was_made(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    labelled = RuntimeKey("b" * 64, "carol", "laptop", NOW, NOW)

    def make(connection: Connection) -> None:
        runtime_users.add_user(connection, CAROL, NOW)
        runtime_users.add_user(connection, User("dave", ()), NOW)
        runtime_users.add_key(connection, key("a"))
        runtime_users.add_key(connection, labelled)

    await ledger.change(make)

    found = await known(ledger)
    whole = dataclasses.replace(CAROL, key_sha256=("a" * 64, "b" * 64))
    assert (whole, User("dave", ())) == found.users
    assert {"a" * 64: key("a"), "b" * 64: labelled} == found.keys
    assert {"carol": NOW, "dave": NOW} == found.created_at


async def test_a_change_and_a_removal(place: Place, open_ledger: OpenLedger) -> None:
    ledger = await open_ledger(place)

    def change(connection: Connection) -> tuple[User, User]:
        for name in ("carol", "dave"):
            runtime_users.add_user(connection, User(name, ()), NOW)
            runtime_users.add_key(connection, key(name[0], name))
        runtime_users.add_key(connection, key("e", "dave"))
        runtime_users.remove_user(connection, "carol")
        assert "d" * 64 == runtime_users.remove_key(connection, "dave", "d" * 8)
        return runtime_users.set_user(
            connection, "dave", lambda one: dataclasses.replace(one, max_concurrent=0)
        )

    before, after = await ledger.change(change)

    found = await known(ledger)
    assert (None, 0) == (before.max_concurrent, after.max_concurrent)
    assert (after,) == found.users
    assert ["e" * 64] == list(found.keys)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("user_exists", lambda c: runtime_users.add_user(c, CAROL, NOW)),
        ("unknown_user", lambda c: runtime_users.remove_user(c, "eve")),
        ("unknown_user", lambda c: runtime_users.set_user(c, "eve", lambda u: u)),
        ("unknown_user", lambda c: runtime_users.add_key(c, key("f", "eve"))),
        ("unknown_user", lambda c: runtime_users.remove_key(c, "eve", "a" * 8)),
        ("unknown_key", lambda c: runtime_users.remove_key(c, "carol", "b" * 8)),
        ("unknown_key", lambda c: runtime_users.remove_key(c, "carol", "a" * 7)),
        ("ambiguous_key", lambda c: runtime_users.remove_key(c, "carol", "a" * 8)),
        ("too_many_users", lambda c: runtime_users.add_user(c, User("x", ()), NOW)),
        ("too_many_keys", lambda c: runtime_users.add_key(c, key("c"))),
    ],
)
async def test_a_change_that_cannot_be_made_changes_nothing(
    sqlite_place: Place,
    open_ledger: OpenLedger,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    change: runtime_changes.Callable[[Connection], object],
) -> None:
    ledger = await open_ledger(sqlite_place)
    monkeypatch.setattr(runtime_users, "MAX_USERS", 1)
    monkeypatch.setattr(runtime_users, "MAX_KEYS", 2)

    def make(connection: Connection) -> None:
        runtime_users.add_user(connection, CAROL, NOW)
        runtime_users.add_key(connection, key("a"))
        same = key("a")._replace(key_sha256="a" * 63 + "b")
        runtime_users.add_key(connection, same)

    await ledger.change(make)
    before = await known(ledger)

    with pytest.raises(UserChangeError) as caught:
        await ledger.change(change)

    assert code == caught.value.code
    assert before == await known(ledger)


async def test_a_change_is_seen_here_at_once_and_by_others_when_they_look(
    place: Place, open_ledger: OpenLedger
) -> None:
    here, there = [RuntimeChanges(await open_ledger(place)) for _ in range(2)]
    seen: list[str] = []

    def note(name: str) -> runtime_changes.Refresh:
        async def refresh() -> None:
            seen.append(name)

        return refresh

    for changes, name in ((here, "here"), (there, "there")):
        changes.watch("users", note(name))
        changes.watch("other", note(f"{name}-other"))
        await changes.look()
    assert ["here", "here-other", "there", "there-other"] == seen
    seen.clear()

    assert 7 == await here.change("users", lambda connection: 7)
    assert ["here"] == seen

    await there.look()
    await there.look()
    assert ["here", "there"] == seen


async def test_changes_at_the_same_time_are_all_made(
    place: Place, open_ledger: OpenLedger
) -> None:
    all_changes = [RuntimeChanges(await open_ledger(place)) for _ in range(2)]

    async def add(number: int) -> bool:
        def change(connection: Connection) -> None:
            user = User(f"user-{number // 2}", ())  # each name twice
            runtime_users.add_user(connection, user, NOW)

        try:
            await all_changes[number % 2].change("users", change)
        except UserChangeError:
            return False
        return True

    made = await asyncio.gather(*map(add, range(12)))

    assert 6 == sum(made)
    assert [(6,)] == place.rows("SELECT version FROM runtime_version")


async def test_a_database_that_is_away_is_noted_once(
    sqlite_place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_changes, "LOOK_EVERY_S", 0.001)
    changes = RuntimeChanges(await open_ledger(sqlite_place))
    looks = 0

    async def refresh() -> None:
        nonlocal looks
        looks += 1
        if looks < 4:
            raise OSError("away")

    changes.watch("users", refresh)
    with logging_to(Log()) as log:
        task = asyncio.create_task(changes.follow())
        await log.wait_events("changes.read")
        task.cancel()

        assert 4 == looks
        assert ["away"] == [line["detail"] for line in log.events("changes.unread")]


def test_a_ledger_whose_file_is_gone_is_not_made_anew_by_a_change(
    sqlite_place: Place,
) -> None:
    database = Database(sqlite_place.url, sqlite_place.base)
    database.prepare()
    (sqlite_place.base / "ledger.db").unlink()

    with pytest.raises(LedgerError), database.change():
        pass

    assert not (sqlite_place.base / "ledger.db").exists()
    database.dispose()
