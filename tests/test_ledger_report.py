"""Sums, and finding one request by each of its ids."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event

from gateway.ledger import own_usage, report
from gateway.ledger.ledger import Ledger
from gateway.record import AttemptRecord, TimelineMark
from gateway.usage import Usage
from tests.ledger_places import (  # noqa: F401
    NOON,
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

ID = "fd277bc5-ff7e-45d1-8aa9-f54e1df318f1"
DAY = 86400.0


async def sums(ledger: Ledger, *by: str, **filters: Any) -> list[report.Row]:
    return await ledger.read(lambda c: report.usage(c, by, **filters))


async def found(ledger: Ledger, wanted: str) -> list[str]:
    rows = await ledger.read(lambda c: report.find(c, wanted))
    return [row["request_id"] for row in rows]


async def fill(ledger: Ledger) -> None:
    for fields in (
        {"user": "alice", "model": "gpt-5", "started_at": NOON},
        {"user": "alice", "model": "gpt-5", "started_at": NOON + DAY},
        {"user": "alice", "model": "house", "cost_usd": None, "estimated": True},
        {"user": "bob", "model": "gpt-5", "account": "openai-2"},
    ):
        ledger.add(record_of(**fields))
    refused = record_of(user="bob", usage=Usage(), cost_usd=None, attempts=[])
    refused.set_outcome("refused", "gateway", "queue_full")
    ledger.add(refused)
    ledger.begin(record_of(user="bob", usage=Usage()))
    await written(ledger)


async def test_sums_of_everything_that_has_ended(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    await fill(ledger)

    assert [
        {
            "requests": 5,
            **{"ok": 4, "incomplete": 0, "failed": 0, "refused": 1, "client_gone": 0},
            **{"input_tokens": 400, "cached_tokens": 80, "cache_write_tokens": 40},
            **{"output_tokens": 200, "reasoning_tokens": 120, "cost_usd": 0.75},
            **{"estimated": 1, "unpriced": 1},
        }
    ] == await sums(ledger)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        pytest.param(["user"], [("alice", 3), ("bob", 2)], id="user"),
        pytest.param(["model"], [("gpt-5", 4), ("house", 1)], id="model"),
        pytest.param(["account"], [("openai-1", 4), ("openai-2", 1)], id="account"),
        pytest.param(["day"], [("2026-11-24", 4), ("2026-11-25", 1)], id="day"),
        pytest.param(
            ["day", "user"],
            [
                ("2026-11-24", "alice", 2),
                ("2026-11-24", "bob", 2),
                ("2026-11-25", "alice", 1),
            ],
            id="day-and-user",
        ),
    ],
)
async def test_sums_by_keys(
    place: Place, open_ledger: OpenLedger, by: list[str], expected: list[Any]
) -> None:
    ledger = await open_ledger(place)
    await fill(ledger)

    rows = await sums(ledger, *by)

    assert expected == [tuple(row[key] for key in (*by, "requests")) for row in rows]


async def test_sums_of_one_user_and_of_late(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    await fill(ledger)
    tomorrow = datetime(2026, 11, 25, tzinfo=UTC)

    [alice] = await sums(ledger, user="alice")
    [late] = await sums(ledger, since=tomorrow)

    assert (3, 1) == (alice["requests"], late["requests"])


async def test_sums_of_nothing(place: Place, open_ledger: OpenLedger) -> None:
    ledger = await open_ledger(place)

    [everything] = await sums(ledger)

    assert {0} == set(everything.values())
    assert [] == await sums(ledger, "user")


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(ID, id="as-it-is"),
        pytest.param(ID.replace("-", ""), id="without-dashes"),
        pytest.param("resp_" + ID.replace("-", ""), id="the-gateway's-response-id"),
        pytest.param("resp_upstream_77", id="the-upstream's-response-id"),
        pytest.param("req_abc", id="the-upstream's-request-id"),
        pytest.param("thread-9", id="the-client's-session"),
        pytest.param(f"  {ID}\n", id="with-blanks-around"),
    ],
)
async def test_a_request_is_found_by(
    place: Place, open_ledger: OpenLedger, wanted: str
) -> None:
    ledger = await open_ledger(place)
    ids = {"response_id": "resp_upstream_77", "upstream_request_id": "req_abc"}
    await ledger.close(record_of(ID, session="thread-9", **ids))
    await ledger.close(record_of("another"))

    assert [ID] == await found(ledger, wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("no-such-id", id="unknown"),
        pytest.param("", id="empty"),
        pytest.param("---", id="dashes"),
        pytest.param("nul\0byte", id="nul"),
        pytest.param("%", id="wildcard"),
    ],
)
async def test_what_names_nothing_finds_nothing(
    place: Place, open_ledger: OpenLedger, wanted: str
) -> None:
    ledger = await open_ledger(place)
    bare = {"session": "", "response_id": "", "upstream_request_id": ""}
    await ledger.close(record_of(**bare))

    assert [] == await found(ledger, wanted)


async def test_no_id_is_looked_for_in_every_row(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, sql: str, values: Any, *_more: Any) -> None:
        asked.append((sql, values))

    def plans(connection: Connection) -> list[str]:
        if connection.dialect.name == "postgresql":
            # An empty table is read as a whole, unless it must not be.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        event.listen(connection, "before_cursor_execute", note)
        report.find(connection, "resp_1")
        event.remove(connection, "before_cursor_execute", note)
        how = "EXPLAIN" + " QUERY PLAN" * (connection.dialect.name == "sqlite")
        return [
            "\n".join(
                str(row[-1])
                for row in connection.exec_driver_sql(f"{how} {sql}", given)
            )
            for sql, given in asked
        ]

    of_one, of_session = await ledger.read(plans)
    for index in ("plain_id", "response_id", "upstream_request_id"):
        assert f"request_{index}" in of_one
    assert "request_session" in of_session
    assert not re.search(r"SCAN|Seq Scan", of_one + of_session)


async def test_a_session_gives_its_requests_in_order(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    for number in (3, 1, 2):
        record = record_of(f"turn-{number}", started_at=NOON + number)
        await ledger.close(record)
    await ledger.close(record_of("other", session="thread-2"))

    assert ["turn-1", "turn-2", "turn-3"] == await found(ledger, "thread-1")


async def test_requests_are_listed_by_user_day_and_failure(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    await fill(ledger)

    async def count(**filters: Any) -> int:
        return len(await ledger.read(lambda c: report.requests(c, **filters)))

    assert 6 == await count()
    assert 3 == await count(user="alice")
    assert 1 == await count(since=datetime(2026, 11, 25, tzinfo=UTC))
    assert 1 == await count(failed=True)
    assert 2 == await count(limit=2)


async def test_a_story_has_attempts_and_moments_in_order(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    tries = [
        AttemptRecord(2, "openai-2", NOON + 1, NOON + 2, 200),
        AttemptRecord(1, "openai-1", NOON, NOON + 1, 503, "upstream_status"),
    ]
    marks = [
        TimelineMark(0.0, "received", {}),
        TimelineMark(
            0.5, "chosen", {"tiers": [["openai-1"]], "rejected": [["b", "cooling"]]}
        ),
    ]
    await ledger.close(record_of(ID, attempts=tries, marks=marks))

    def ask(connection: Any) -> report.RequestHistory:
        return report.history(connection, report.find(connection, ID)[0])

    history = await ledger.read(ask)
    assert ["openai-1", "openai-2"] == [one["account"] for one in history.attempts]
    assert marks == history.marks


async def test_reading_and_writing_at_once_harm_neither(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    seen: list[int] = []
    writing = True

    async def read() -> None:
        while writing:
            [row] = await sums(ledger)
            seen.append(row["requests"])

    reading = asyncio.ensure_future(read())
    for _ in range(100):
        await ledger.close(record_of())
    writing = False
    await reading

    assert sorted(seen) == seen
    assert 100 == (await sums(ledger))[0]["requests"]


NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2026-11-20", "2026-11-20T00:00:00+00:00", id="day"),
        pytest.param("2026-11-20T09:30", "2026-11-20T09:30:00+00:00", id="moment"),
        pytest.param("2026-11-20T09:30+02:00", "2026-11-20T09:30:00+02:00", id="zone"),
        pytest.param("90m", "2026-11-24T10:30:00+00:00", id="minutes"),
        pytest.param("24h", "2026-11-23T12:00:00+00:00", id="hours"),
        pytest.param("7d", "2026-11-17T12:00:00+00:00", id="days"),
    ],
)
def test_since_is_a_day_a_moment_or_a_span(text: str, expected: str) -> None:
    assert expected == report.parse_since(text, NOW).isoformat()


@pytest.mark.parametrize("text", ["yesterday", "24", "7w", "2026-13-01", "-1d", ""])
def test_other_words_for_since_are_refused(text: str) -> None:
    with pytest.raises(report.QuestionError, match="must be a day such as"):
        report.parse_since(text, NOW)


def test_by_is_a_list_of_known_keys() -> None:
    assert ["user", "day"] == report.parse_by(" user, day,user,")
    with pytest.raises(report.QuestionError, match="must be of user,model"):
        report.parse_by("user,colour")


# --- the sums of one user ------------------------------------------------------------


async def test_the_sums_of_one_user_leave_out_what_was_never_sent_and_have_a_bound(
    place: Place, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await open_ledger(place)
    now = datetime.now(UTC)
    for days, model in ((0, "a"), (0, "b"), (1, "a"), (40, "a")):
        at = (now - timedelta(days=days)).timestamp()
        ledger.add(record_of(started_at=at, model=model))
    refused = record_of(started_at=now.timestamp(), model="made-up", outcome="refused")
    refused.attempts.clear()
    ledger.add(refused)
    await written(ledger)
    since = now - timedelta(days=31)

    def ask() -> Any:
        return ledger.read(lambda c: own_usage.usage_of(c, "alice", since))

    found = await ask()
    assert ["a", "b", "a"] == [one["model"] for one in found]
    assert (100, 50, 0.25) == (
        found[0]["input_tokens"],
        found[0]["output_tokens"],
        found[0]["cost_usd"],
    )
    monkeypatch.setattr(own_usage, "MAX_ROWS", 2)
    assert found[:2] == await ask()
