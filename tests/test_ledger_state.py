"""What the next process knows."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from gateway.budget import DaySum
from gateway.ledger.state import Kept, State
from gateway.usage import Usage
from tests.ledger_places import (  # noqa: F401
    OpenLedger,
    Place,
    open_ledger_fixture,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
    record_of,
    sqlite_place_fixture,
    written,
)

DAY = 86400.0


async def test_a_kept_response_is_found_by_its_user_alone(
    place: Place, open_ledger: OpenLedger
) -> None:
    state = State(await open_ledger(place))
    kept = Kept("resp_1", "alice", "openai-1", b"\x00\xff{}")
    await state.keep(kept)

    assert kept == await state.find("resp_1", "alice")
    assert await state.find("resp_1", "bob") is None
    assert await state.find("resp_2", "alice") is None


async def test_keeping_again_replaces(place: Place, open_ledger: OpenLedger) -> None:
    state = State(await open_ledger(place))
    await state.keep(Kept("resp_1", "alice", "openai-1", b"old"))
    await state.keep(Kept("resp_1", "bob", "openai-1", b"other"))

    await state.keep(Kept("resp_1", "alice", "openai-2", b"new"))

    assert Kept("resp_1", "alice", "openai-2", b"new") == (
        await state.find("resp_1", "alice")
    )
    assert Kept("resp_1", "bob", "openai-1", b"other") == (
        await state.find("resp_1", "bob")
    )


async def test_a_forgotten_response_is_gone(
    place: Place, open_ledger: OpenLedger
) -> None:
    state = State(await open_ledger(place))
    await state.keep(Kept("resp_1", "alice", "openai-1", b""))
    await state.keep(Kept("resp_1", "bob", "openai-1", b""))

    await state.forget("resp_1", "alice")
    await state.forget("resp_9", "alice")

    assert await state.find("resp_1", "alice") is None
    assert await state.find("resp_1", "bob") is not None


async def test_an_expired_response_is_not_found(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    state = State(ledger)
    await state.keep(Kept("resp_1", "alice", "openai-1", b""))
    await ledger.stop()
    place.execute("UPDATE response SET expires_at = '2026-01-01 00:00:00+00:00'")

    again = State(await open_ledger(place))

    assert await again.find("resp_1", "alice") is None


async def test_accounts_states_outlive_the_process(
    place: Place, open_ledger: OpenLedger
) -> None:
    rows = [
        {"account": "a", "model": "", "until": 1.5, "reason": "rate limit"},
        {"account": "a", "model": "gpt-5", "until": 2.5, "reason": "overload"},
        {"account": "b", "model": "", "until": 3.5, "reason": "quota"},
    ]
    first = await place.open()
    State(first).keep_accounts(rows)
    await first.stop()

    second = State(await open_ledger(place))

    assert rows == sorted(await second.accounts(), key=lambda row: row["until"])


async def test_an_account_that_recovered_leaves_no_state(
    place: Place, open_ledger: OpenLedger
) -> None:
    first = await place.open()
    State(first).keep_accounts([{"account": "a"}, {"account": "b"}])
    await first.stop()
    ledger = await open_ledger(place)
    state = State(ledger)
    await state.accounts()

    state.keep_accounts([{"account": "b"}])
    await written(ledger)

    assert [{"account": "b"}] == await State(ledger).accounts()


async def test_sums_by_day_are_those_of_utc(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    today = datetime.now(UTC).date()
    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC).timestamp()
    usage = Usage(100, 20, 0, 0, 50, 30)
    for started_at, user, cost in (
        (midnight, "alice", 0.5),
        (midnight + 1, "alice", None),
        (midnight - 1, "alice", 0.25),
        (midnight + 1, "bob", 1.0),
        (time.time() - 90 * DAY, "alice", 9.0),
    ):
        ledger.add(
            record_of(user=user, usage=usage, started_at=started_at, cost_usd=cost)
        )
    await written(ledger)

    sums = await State(ledger).day_sums()

    yesterday = datetime.fromtimestamp(midnight - 1, UTC).date()
    assert [
        DaySum("alice", yesterday, 0.25, 150),
        DaySum("alice", today, 0.5, 300),
        DaySum("bob", today, 1.0, 150),
    ] == sorted(sums)
