"""What the next process knows."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from gateway.ledger.day_sum import DaySum
from gateway.ledger.saved_state import SavedState
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


async def test_accounts_states_outlive_the_process(
    place: Place, open_ledger: OpenLedger
) -> None:
    rows = [
        {"account": "a", "model": "", "until": 1.5, "reason": "rate limit"},
        {"account": "a", "model": "gpt-5", "until": 2.5, "reason": "overload"},
        {"account": "b", "model": "", "until": 3.5, "reason": "quota"},
    ]
    first = await place.open()
    SavedState(first).save_accounts(rows)
    await first.stop()

    second = SavedState(await open_ledger(place))

    assert rows == sorted(await second.accounts(), key=lambda row: row["until"])


async def test_an_account_that_recovered_leaves_no_state(
    place: Place, open_ledger: OpenLedger
) -> None:
    first = await place.open()
    SavedState(first).save_accounts([{"account": "a"}, {"account": "b"}])
    await first.stop()
    ledger = await open_ledger(place)
    state = SavedState(ledger)
    await state.accounts()

    state.save_accounts([{"account": "b"}])
    await written(ledger)

    assert [{"account": "b"}] == await SavedState(ledger).accounts()


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

    sums = await SavedState(ledger).day_sums()

    yesterday = datetime.fromtimestamp(midnight - 1, UTC).date()
    assert [
        DaySum("alice", yesterday, 0.25, 150),
        DaySum("alice", today, 0.5, 300),
        DaySum("bob", today, 1.0, 150),
    ] == sorted(sums)
