"""Kept turns: chains of them, what deleting leaves, and every bound."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.ledger import response_rows
from gateway.ledger import response_store as store_module
from gateway.ledger.database import Database
from gateway.ledger.ledger import Ledger
from gateway.ledger.response_store import (
    PreviousTurn,
    ResponseStore,
    StoredConversation,
    StoredTurn,
)
from tests.ledger_places import (  # noqa: F401
    OpenLedger,
    Place,
    open_ledger_fixture,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
    sqlite_place_fixture,
)
from tests.test_ledger_schema import make

PAST = "2026-01-01 00:00:00+00:00"


def body(name: str, padding: int = 0) -> bytes:
    said = [f"asked {name}" + "x" * padding]
    response = {"id": f"resp_{name}", "output": [f"answered {name}"]}
    return orjson.dumps({"input": said, "response": response})


async def store(
    turns: ResponseStore,
    name: str,
    previous: str = "",
    user: str = "alice",
    padding: int = 0,
) -> None:
    """Store the turn *name*, which continues *previous*."""
    last_turn = PreviousTurn()
    if previous:
        conversation = await found(turns, previous, user)
        last_turn = conversation.last_turn
    row = StoredTurn(f"resp_{name}", user, "chat-1", body(name, padding), last_turn)
    await turns.store(row)


async def found(
    turns: ResponseStore, name: str, user: str = "alice"
) -> StoredConversation:
    conversation = await turns.find(f"resp_{name}", user)
    assert conversation is not None
    return conversation


async def words(turns: ResponseStore, name: str, user: str = "alice") -> str | None:
    """The conversation up to *name*: its letters as they were asked and answered."""
    conversation = await turns.find(f"resp_{name}", user)
    if conversation is None:
        return None
    return " ".join(item.rstrip("x")[-1] for item in conversation.items)


def count(place: Place) -> int:
    return int(place.rows("SELECT count(*) FROM response")[0][0])


async def test_a_conversation_is_found_whole_by_its_user_alone(
    place: Place, open_ledger: OpenLedger
) -> None:
    turns = ResponseStore(await open_ledger(place))
    await store(turns, "a")
    await store(turns, "b", "a")
    await store(turns, "c", "b")
    await store(turns, "d", "b")

    assert "a a b b c c" == await words(turns, "c")
    assert "a a b b d d" == await words(turns, "d")
    assert "a a" == await words(turns, "a")
    assert await words(turns, "c", "bob") is None
    assert await words(turns, "z") is None
    conversation = await found(turns, "b")
    assert ["asked a", "answered a", "asked b"] == conversation.input_items
    assert "resp_b" == conversation.response["id"]
    assert (2, len(body("a")) * 2) == (
        conversation.last_turn.turns,
        conversation.last_turn.total_bytes,
    )


async def test_another_users_turn_is_nothing_to_go_on_from(
    place: Place, open_ledger: OpenLedger
) -> None:
    turns = ResponseStore(await open_ledger(place))
    await store(turns, "a", user="bob")
    stolen = (await found(turns, "a", "bob")).last_turn
    await turns.store(StoredTurn("resp_b", "alice", "chat-1", body("b"), stolen))

    assert await words(turns, "b") is None


async def test_twenty_turns_take_twenty_times_as_much_as_one(
    place: Place, open_ledger: OpenLedger
) -> None:
    turns = ResponseStore(await open_ledger(place))
    for n in range(20):
        await store(turns, f"{n}", f"{n - 1}" if n else "", padding=10_000)

    [(size, counted)] = place.rows("SELECT sum(length(body)), sum(bytes) FROM response")
    assert size == counted
    assert 20 * 10_000 < size < 21 * 10_100
    assert 40 == len((await found(turns, "19")).items)


async def test_what_was_deleted_early_leaves_what_is_later_whole(
    place: Place, open_ledger: OpenLedger
) -> None:
    turns = ResponseStore(await open_ledger(place))
    await store(turns, "a")
    await store(turns, "b", "a")
    await store(turns, "c", "b")

    await turns.delete("resp_a", "alice")
    await turns.delete("resp_b", "alice")
    await turns.delete("resp_z", "alice")
    await turns.delete("resp_c", "bob")

    assert [None, None, "a a b b c c"] == [await words(turns, n) for n in "abc"]
    assert 3 == count(place)


async def test_the_last_turn_takes_along_what_was_kept_for_it(
    place: Place, open_ledger: OpenLedger
) -> None:
    turns = ResponseStore(await open_ledger(place))
    for name, previous in (("a", ""), ("b", "a"), ("c", "b"), ("d", "b")):
        await store(turns, name, previous)
    await turns.delete("resp_b", "alice")
    await turns.delete("resp_c", "alice")
    assert "a a b b d d" == await words(turns, "d")
    assert 3 == count(place)

    await turns.delete("resp_d", "alice")

    assert "a a" == await words(turns, "a")
    assert 1 == count(place)


async def test_keeping_again_replaces_and_leaves_what_is_later_whole(
    place: Place, open_ledger: OpenLedger
) -> None:
    """Clients choose request ids, and an id of ours is made of one."""
    turns = ResponseStore(await open_ledger(place))
    await store(turns, "a")
    await store(turns, "b", "a")
    await store(turns, "a", user="bob")
    last_turn = (await found(turns, "b")).last_turn

    await turns.store(StoredTurn("resp_a", "alice", "chat-1", body("n"), last_turn))

    assert "a a b b n n" == await words(turns, "a")
    assert "a a b b" == await words(turns, "b")
    assert "a a" == await words(turns, "a", "bob")


async def test_a_turn_that_replaces_the_one_it_goes_on_from(
    place: Place, open_ledger: OpenLedger
) -> None:
    turns = ResponseStore(await open_ledger(place))
    await store(turns, "a")
    last_turn = (await found(turns, "a")).last_turn

    await turns.store(StoredTurn("resp_a", "alice", "chat-1", body("b"), last_turn))

    assert "a a b b" == await words(turns, "a")


async def test_what_its_earlier_turn_was_removed_of_is_not_kept(
    place: Place, open_ledger: OpenLedger
) -> None:
    turns = ResponseStore(await open_ledger(place))
    await store(turns, "a")
    last_turn = (await found(turns, "a")).last_turn
    await turns.delete("resp_a", "alice")

    await turns.store(StoredTurn("resp_b", "alice", "chat-1", body("b"), last_turn))

    assert await words(turns, "b") is None
    assert 0 == count(place)


async def test_an_expired_turn_is_not_found_but_what_goes_on_from_it_is(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    turns = ResponseStore(ledger)
    await store(turns, "a")
    await store(turns, "b", "a")
    await ledger.stop()
    early = "UPDATE response SET expires_at = '%s' WHERE response_id = 'resp_a'"
    place.execute(early % PAST)

    again = ResponseStore(await open_ledger(place))

    assert [None, "a a b b"] == [await words(again, name) for name in "ab"]


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param("DELETE FROM response WHERE response_id = 'resp_a'", id="broken"),
        pytest.param(
            "UPDATE response SET parent_id = (SELECT turn_id FROM response"
            " WHERE response_id = 'resp_c') WHERE response_id = 'resp_a'",
            id="circular",
        ),
        pytest.param("UPDATE response SET parent_id = turn_id", id="its-own"),
        pytest.param("UPDATE response SET bytes = 9000000", id="too-large"),
    ],
)
async def test_a_chain_that_cannot_be_had_whole_is_not_found(
    place: Place, open_ledger: OpenLedger, harm: str
) -> None:
    turns = ResponseStore(await open_ledger(place))
    for name, previous in (("a", ""), ("b", "a"), ("c", "b")):
        await store(turns, name, previous)

    place.execute(harm)

    assert await words(turns, "c") is None


async def test_a_conversation_is_bounded_in_turns(
    place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = ResponseStore(await open_ledger(place))
    for name, previous in (("a", ""), ("b", "a"), ("c", "b")):
        await store(turns, name, previous)
    monkeypatch.setattr(store_module, "MAX_TURNS", 2)

    assert [True, True, False] == [bool(await words(turns, name)) for name in "abc"]
    await store(turns, "d", "b")
    await store(turns, "e", "a")
    assert await words(turns, "d") is None
    assert "a a e e" == await words(turns, "e")
    assert 4 == count(place), "d is not even kept"


async def test_a_conversation_is_bounded_in_bytes(
    place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_BYTES", 5_000)
    turns = ResponseStore(await open_ledger(place))
    await store(turns, "a", padding=2_000)
    await store(turns, "b", "a", padding=2_000)
    await store(turns, "c", "b", padding=2_000)
    await store(turns, "d", padding=6_000)

    assert ["a a", "a a b b", None, None] == [await words(turns, n) for n in "abcd"]
    assert 2 == count(place), "the others are not even kept"
    monkeypatch.setattr(store_module, "MAX_BYTES", 3_000)
    assert await words(turns, "b") is None


async def test_what_a_user_keeps_is_bounded_and_the_oldest_ends_go_first(
    place: Place, open_ledger: OpenLedger
) -> None:
    turns = ResponseStore(await open_ledger(place, response_max_bytes=10_000))
    await store(turns, "a", padding=2_000)
    await store(turns, "b", padding=2_000)
    await store(turns, "c", "a", padding=2_000)
    await store(turns, "o", user="bob", padding=9_000)
    await store(turns, "d", padding=2_000)

    await store(turns, "e", padding=2_000)

    left = [name for name in "abcde" if await words(turns, name)]
    assert ["a", "c", "d", "e"] == left, "b was the oldest that nothing goes on from"
    for n in range(20):
        await store(turns, f"{n}", padding=1_000)
        [(size,)] = place.rows(
            "SELECT sum(bytes) FROM response WHERE \"user\" = 'alice'"
        )
        assert size <= 10_000
    assert await words(turns, "o", "bob")


async def test_a_bound_of_zero_is_none(place: Place, open_ledger: OpenLedger) -> None:
    turns = ResponseStore(await open_ledger(place, response_max_bytes=0))
    await store(turns, "a", padding=2_000)
    await store(turns, "b", padding=2_000)

    assert 2 == count(place)


async def test_expired_conversations_are_purged_from_their_ends(
    place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few at a time, and never what a later turn needs."""
    ledger = await open_ledger(place)
    turns = ResponseStore(ledger)
    for name, previous in zip("abcdefgh", ["", "a", "b", "c", "", "e", "", "g"]):
        await store(turns, name, previous)
    await ledger.stop()
    place.execute(
        f"UPDATE response SET expires_at = '{PAST}' WHERE response_id <> 'resp_f'"
    )
    monkeypatch.setattr(response_rows, "READ_STEP", 1)
    database = Database(place.url, place.base)
    removed = []
    while not removed or removed[-1]:
        with database.write() as connection:
            removed.append(
                response_rows.purge(
                    connection, store_module.datetime.now(store_module.UTC), 2
                )
            )
    database.dispose()

    assert [2, 2, 2, 0] == removed
    again = ResponseStore(await open_ledger(place))
    assert "e e f f" == await words(again, "f")
    assert 2 == count(place)


async def test_what_an_older_version_kept_is_found_and_goes_on(
    place: Place, open_ledger: OpenLedger
) -> None:
    """Its rows hold their whole conversation."""
    database = Database(place.url, place.base)
    make(database.url, "0002", {})
    database.dispose()
    old: dict[str, Any] = {"response": {"id": "resp_b", "output": ["answered b"]}}
    old["items"] = ["asked a", "answered a", "asked b", "answered b"]
    insert_old(place, orjson.dumps(old))

    turns = ResponseStore(await open_ledger(place))
    await store(turns, "c", "b")

    assert ["asked a", "answered a", "asked b"] == (await found(turns, "b")).input_items
    assert "a a b b" == await words(turns, "b")
    assert "a a b b c c" == await words(turns, "c")
    assert await words(turns, "b", "bob") is None
    assert (await found(turns, "b")).last_turn.total_bytes == len(orjson.dumps(old))


def insert_old(place: Place, kept: bytes) -> None:
    """A row as version 0002 wrote it."""
    from sqlalchemy import create_engine, text

    engine = create_engine(Database(place.url, place.base).url)
    with engine.begin() as connection:
        connection.execute(
            text(
                'INSERT INTO response (response_id, "user", account, created_at,'
                " expires_at, body) VALUES ('resp_b', 'alice', 'chat-1',"
                " '2026-11-01 00:00:00', '2096-11-01 00:00:00', :body)"
            ),
            {"body": kept},
        )
    engine.dispose()


async def test_a_batch_that_is_written_twice_keeps_once(
    place: Place, open_ledger: OpenLedger
) -> None:
    """As after a connection that was lost at its commit."""
    ledger: Ledger = await open_ledger(place)
    turns = ResponseStore(ledger)
    rows: list[Any] = []
    written = ledger.write

    async def twice(*writes: Any) -> None:
        rows.extend(writes)
        await written(*writes)
        await written(*writes)

    ledger.write = twice  # type: ignore[method-assign]
    await store(turns, "a")
    await store(turns, "b", "a")

    assert (2, 2) == (len(rows), count(place))
    assert "a a b b" == await words(turns, "b")
