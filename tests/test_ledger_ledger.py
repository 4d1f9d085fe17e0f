"""The ledger's promise, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter

import pytest
from structlog.testing import capture_logs

from gateway.ledger.writer import SWITCH_S, Grouped, LedgerWriter
from gateway.record import AttemptRecord, Record
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

OUTCOMES = ("ok", "incomplete", "failed", "refused", "client_gone")


@pytest.fixture(name="commits")
def commits_fixture(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number a transaction of the writer: the writes in it."""
    seen: list[int] = []
    whole = LedgerWriter._execute

    def counted(writer: LedgerWriter, grouped: Grouped) -> None:
        seen.append(sum(map(len, grouped.values())))
        whole(writer, grouped)

    monkeypatch.setattr(LedgerWriter, "_execute", counted)
    return seen


async def test_a_request_is_open_until_it_is_closed(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    record = record_of("request-1")
    question = "SELECT request_id, outcome, origin, error_code FROM request"

    ledger.begin(record)
    await written(ledger)
    assert [("request-1", "open", "", "")] == place.rows(question)

    await ledger.close(record)
    assert [("request-1", "ok", "", "")] == place.rows(question)


async def test_a_row_has_the_facts_of_the_canonical_line(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    record = record_of(
        "9cf2-11",
        response_id="resp_1",
        queue_ms=1.5,
        first_event_ms=20.25,
        duration_ms=300.125,
        estimated=True,
        upstream_request_id="req_9",
        dropped=("store", "user"),
    )

    await ledger.close(record)

    names = (
        'request_id, response_id, "user", "key", account, protocol,'
        " upstream_protocol, model, upstream_model, outcome, status, attempts,"
        " queue_ms, first_event_ms, duration_ms, input_tokens, cached_tokens,"
        " cache_write_tokens, cache_write_1h_tokens, output_tokens,"
        " reasoning_tokens, cost_usd, upstream_request_id, client, session,"
        " dropped, plain_id"
    )
    assert [
        (
            *("9cf2-11", "resp_1", "alice", "0123abcd", "openai-1", "responses"),
            *("responses", "gpt-5", "gpt-5", "ok", 200, 1),
            *(1.5, 20.25, 300.125, 100, 20, 10, 4, 50, 30, 0.25),
            *("req_9", "codex", "thread-1", "store,user", "9cf211"),
        )
    ] == place.rows(f"SELECT {names} FROM request")
    assert [(1, 1)] == place.rows(
        "SELECT count(*), sum(CASE WHEN stream AND estimated THEN 1 ELSE 0 END)"
        " FROM request"
    )


async def test_moments_are_kept_in_utc_to_the_microsecond(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    await ledger.close(record_of(started_at=NOON + 0.123456))

    sql = "SELECT started_at FROM request"
    if "postgresql" in place.url:
        sql = (
            "SELECT to_char(started_at AT TIME ZONE 'UTC',"
            " 'YYYY-MM-DD HH24:MI:SS.US') FROM request"
        )
    assert [("2026-11-24 12:00:00.123456",)] == place.rows(sql)


async def test_attempts_are_rows_of_their_own(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    tries = [
        AttemptRecord(1, "openai-1", NOON, NOON + 1, 503, "upstream_status"),
        AttemptRecord(2, "openai-2", NOON + 1),
    ]
    record = record_of("request-1", attempts=tries)
    ledger.begin(record)
    await written(ledger)
    tries[1].ended_at, tries[1].status = NOON + 3, 200

    await ledger.close(record)

    question = "SELECT request_id, n, account, status, error_code FROM attempt"
    assert [
        ("request-1", 1, "openai-1", 503, "upstream_status"),
        ("request-1", 2, "openai-2", 200, ""),
    ] == place.rows(f"{question} ORDER BY n")
    assert [(0,)] == place.rows(
        "SELECT count(*) FROM attempt WHERE ended_at IS NULL OR started_at IS NULL"
    )


async def test_closing_again_is_no_second_request(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    record = record_of("request-1")
    await ledger.close(record)
    record.set_outcome("client_gone", "client", "client_gone")

    await ledger.close(record)
    ledger.add(record)
    await written(ledger)

    assert [("client_gone",)] == place.rows("SELECT outcome FROM request")
    assert [(1,)] == place.rows("SELECT count(*) FROM attempt")
    assert [(1,)] == place.rows("SELECT count(*) FROM timeline")


async def test_two_requests_with_the_same_id_both_count(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)

    await ledger.close(record_of("again-and-again"))
    await ledger.close(record_of("again-and-again", started_at=NOON + 1))

    assert [(2, 200)] == [
        tuple(map(int, row))
        for row in place.rows("SELECT count(*), sum(input_tokens) FROM request")
    ]


async def test_endings_at_the_same_time_share_a_transaction(
    place: Place, open_ledger: OpenLedger, commits: list[int]
) -> None:
    ledger = await open_ledger(place)
    await ledger.close(record_of())
    commits.clear()

    await asyncio.gather(*(ledger.close(record_of()) for _ in range(200)))

    assert [(201,)] == place.rows("SELECT count(*) FROM request")
    assert len(commits) <= 4


async def test_every_closing_is_observed(place: Place, open_ledger: OpenLedger) -> None:
    ledger = await open_ledger(place)
    waits: list[float] = []
    ledger.observe = waits.append

    await ledger.close(record_of())

    assert 1 == len(waits) and 0 < waits[0]


async def test_what_a_crash_left_open_is_closed_as_crashed(
    place: Place, open_ledger: OpenLedger
) -> None:
    first = await place.open()
    first.begin(record_of("lost", attempts=[AttemptRecord(1, "openai-1", NOON)]))
    await first.close(record_of("kept"))
    await first.stop()

    with capture_logs() as logs:
        await open_ledger(place)

    assert [("kept", "ok", "", ""), ("lost", "failed", "gateway", "crashed")] == (
        place.rows(
            "SELECT request_id, outcome, origin, error_code FROM request"
            " ORDER BY request_id"
        )
    )
    assert [("kept", ""), ("lost", "crashed")] == place.rows(
        "SELECT request_id, error_code FROM attempt ORDER BY request_id"
    )
    assert [("ledger.recovered", 1)] == [
        (line["event"], line["closed_as_crashed"]) for line in logs
    ]


async def test_stopping_writes_rows_without_a_waiter(place: Place) -> None:
    ledger = await place.open()
    for _ in range(50):
        ledger.add(record_of())

    await ledger.stop()

    assert [(50,)] == place.rows("SELECT count(*) FROM request")


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param(Usage(-5, -1, -1, -1, -3, -1), id="negative"),
        pytest.param(Usage(*[10**30] * 6), id="huge"),
        pytest.param(Usage(*["1 2"] * 6), id="text"),  # type: ignore[list-item]
        pytest.param(Usage(*[True] * 6), id="boolean"),
        pytest.param(Usage(*[1.5] * 6), id="fraction"),  # type: ignore[list-item]
    ],
)
async def test_a_number_that_cannot_be_a_count_is_not_known(
    place: Place, open_ledger: OpenLedger, usage: Usage
) -> None:
    ledger = await open_ledger(place)
    odd = record_of(usage=usage, cost_usd=float("nan"), duration_ms=float("inf"))

    await asyncio.gather(ledger.close(odd), ledger.close(record_of()))

    assert [(2, 100, 50, 0.25)] == place.rows(
        "SELECT count(*), CAST(sum(input_tokens) AS INTEGER),"
        " CAST(sum(output_tokens) AS INTEGER), sum(cost_usd) FROM request"
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("nul\0byte", id="nul"),
        pytest.param("half \ud800 pair", id="half-a-surrogate-pair"),
        pytest.param("x" * 100_000, id="endless"),
        pytest.param("'; DROP TABLE request; --", id="quoted"),
        pytest.param("ключ 🗝", id="not-ascii"),
    ],
)
async def test_whatever_a_client_writes_can_be_kept(
    place: Place, open_ledger: OpenLedger, text: str
) -> None:
    ledger = await open_ledger(place)
    odd = record_of(model=text, session=text, upstream_request_id=text)
    odd.mark(101.0, text, said=text, number=10**40)

    await asyncio.gather(ledger.close(odd), ledger.close(record_of()))

    assert [(2,)] == place.rows("SELECT count(*) FROM request")
    assert ledger.healthy


async def test_a_clock_that_is_set_back_does_no_harm(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place, retention_days=0, trace_retention_days=0)
    tries = [AttemptRecord(1, "openai-1", NOON, NOON - 86400, 200)]

    await ledger.close(record_of(started_at=NOON, attempts=tries))
    await ledger.close(record_of(started_at=NOON - 7200))
    await ledger.close(record_of(started_at=-1e12))
    await ledger.close(record_of(started_at=1e12))

    assert [(4,)] == place.rows("SELECT count(*) FROM request")


async def test_sums_of_thousands_are_exactly_those_of_the_records(
    place: Place, open_ledger: OpenLedger
) -> None:
    ledger = await open_ledger(place)
    chance = random.Random(7)
    expected: Counter[str] = Counter()
    waits = []
    for number in range(5000):
        record = mixed(chance, number)
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            expected[name] += getattr(record.usage, name) or 0
        expected[record.outcome] += 1
        expected["attempts"] += len(record.attempts)
        if record.attempts:
            ledger.begin(record)
        if record.outcome in ("ok", "incomplete"):
            waits.append(asyncio.ensure_future(ledger.close(record)))
        else:
            ledger.add(record)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*waits)
    await written(ledger)

    sums = place.rows(
        "SELECT sum(input_tokens), sum(output_tokens), sum(cached_tokens),"
        " sum(attempts), count(*) FROM request"
    )
    assert [
        (
            expected["input_tokens"],
            expected["output_tokens"],
            expected["cached_tokens"],
            expected["attempts"],
            5000,
        )
    ] == [tuple(map(int, row)) for row in sums]
    assert {name: expected[name] for name in OUTCOMES} == dict(
        place.rows("SELECT outcome, count(*) FROM request GROUP BY outcome")
    )
    assert [(expected["attempts"],)] == place.rows("SELECT count(*) FROM attempt")


def mixed(chance: random.Random, number: int) -> Record:
    """Any request: stream or not, of any protocol, with any ending."""
    outcome = chance.choice(OUTCOMES)
    tries = 0 if outcome == "refused" else chance.randint(1, 3)
    usage = Usage()
    if tries and chance.random() < 0.9:
        usage = Usage(chance.randint(0, 10**6), chance.randint(0, 999), 0, 0)
        usage.output_tokens = chance.randint(0, 10**5)
    record = record_of(
        started_at=NOON + number,
        protocol=chance.choice(("responses", "chat", "messages")),
        stream=chance.random() < 0.7,
        usage=usage,
        attempts=[
            AttemptRecord(n + 1, f"account-{n}", NOON, NOON) for n in range(tries)
        ],
    )
    record.set_outcome(outcome)
    return record


async def test_a_busy_event_loop_does_not_starve_the_writer(
    sqlite_place: Place, open_ledger: OpenLedger
) -> None:
    """It computes all the time, in turns shorter than Python's switch interval."""
    ledger = await open_ledger(sqlite_place)
    computing = True

    async def compute() -> None:
        while computing:
            sum(range(20_000))
            await asyncio.sleep(0)

    busy = asyncio.ensure_future(compute())
    for _ in range(10):
        await ledger.close(record_of())
    computing = False
    await busy

    assert [(10,)] == sqlite_place.rows("SELECT count(*) FROM request")
    assert sys.getswitchinterval() <= SWITCH_S * 1.01
