"""The event stream of the admin API: what it says, and that it stays bounded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.daemon.app import components_of
from gateway.endpoints.admin import events
from gateway.endpoints.admin.ended_records import MAX_ENDED, EndedRecords
from gateway.endpoints.admin.event_feed import MAX_FRESH, RATE_S
from gateway.endpoints.admin.event_log import MAX_EVENTS, EventLog
from gateway.record import Record
from gateway.telemetry import log
from tests.conftest import Serve
from tests.kit import endings, plays, settings
from tests.kit.admin import AdminClient, over_unix
from tests.kit.event_reader import reading
from tests.kit.gateway import Gateway
from tests.kit.queueing import holding
from tests.kit.scripted import ScriptedUpstream

RUSH = 40  # warnings that come at once


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[AdminClient]:
    async with over_unix(tmp_path) as client:
        yield client


@pytest.fixture
async def gateway(serve: Serve) -> Gateway:
    return await serve(admin=settings.ADMIN, limits={"max_concurrent": 1})


async def test_a_request_is_followed_from_the_queue_to_its_end(
    gateway: Gateway, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    async with reading(operator) as stream:
        snapshot = await stream.next("snapshot")
        async with holding(gateway.client(), upstream):
            running = await stream.next("request", state="running")
            task = asyncio.create_task(gateway.client().ask("chat", "chat-b"))
            await stream.next("request", state="waiting", position=1)
            await stream.next("user", name="alice", running=1, waiting=1)
        held = running["request_id"]
        await stream.next("request", request_id=held, state="ended", outcome="ok")
        reply = await task
        ended = await stream.next("request", request_id=reply.request_id, outcome="ok")
        rates = await stream.next("rates")

    assert [] == snapshot["requests"]
    assert {"responses", "chat", "messages", "trial"} == {
        one["name"] for one in snapshot["accounts"]
    }
    assert ended["output_tokens"] > 0
    assert rates["requests_per_s"] > 0


async def test_accounts_and_warnings_are_events(
    gateway: Gateway, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    upstream.next(plays.status(429, headers={"retry-after": "50"}), account="chat")
    async with reading(operator) as stream:
        await stream.next("snapshot")
        await gateway.client().ask("chat", "chat-x")
        cooled = await stream.next("log", event="account.cooled")
        account = await stream.next("account", name="chat", state="cooling")

    assert ("chat", "warning") == (cooled["account"], cooled["level"])
    assert "rate_limited" == account["reason"]


async def test_a_reader_that_comes_back_goes_on_where_it_was(
    gateway: Gateway, operator: AdminClient
) -> None:
    async with reading(operator) as stream:
        await stream.next("snapshot")
        await stream.next("rates")
    reply = await gateway.client().ask("chat", "chat-x")  # without a reader
    async with reading(operator, stream.last_id) as again:
        ended = await again.next("request", request_id=reply.request_id)
        last_id = again.last_id
    async with reading(operator, "elsewhere-7") as other:
        await other.next("snapshot")

    assert "ok" == ended["outcome"]
    assert last_id.partition("-")[0] == stream.last_id.partition("-")[0]


async def test_nothing_is_looked_up_while_there_is_no_reader(
    gateway: Gateway, operator: AdminClient
) -> None:
    async with reading(operator) as stream:
        await stream.next("snapshot")
        assert [1] == [
            sum(task.get_name() == "event-feed" for task in asyncio.all_tasks())
        ]
    async with asyncio.timeout(5):
        while any(task.get_name() == "event-feed" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))


async def test_a_reader_that_takes_nothing_holds_up_no_other(
    gateway: Gateway, operator: AdminClient, tmp_path: Path
) -> None:
    slow, writer = await asyncio.open_unix_connection(str(tmp_path / "admin.sock"))
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await slow.readline()
    async with reading(operator) as stream:
        await stream.next("snapshot")
        for _ in range(3):
            reply = await gateway.client().ask("chat", "chat-x")
            await stream.next("request", request_id=reply.request_id, state="ended")
    writer.close()


async def test_a_reader_that_falls_behind_is_cut_and_goes_on(
    gateway: Gateway,
    operator: AdminClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has whole events up to the cut, and comes back behind the last of them."""
    monkeypatch.setattr(events, "WRITE_S", 0.2)
    slow, writer = await asyncio.open_unix_connection(str(tmp_path / "admin.sock"))
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    got = await slow.readuntil(b"event: snapshot")
    async with reading(operator) as quick:
        await quick.next("snapshot")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(RUSH):
            long = {f"text_{n}": "x" * 1000 for n in range(20)}
            log.get().warning("test.rushed", n=number, **long)
        await quick.next("log", n=RUSH - 1)
        await quick.next("rates")  # behind the 0.2 s
        await quick.next("rates")
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    with suppress(ConnectionError):
        async with asyncio.timeout(10):
            while data := await slow.read(65_536):
                got += data
    writer.close()
    whole = got.rpartition(b"\n\n")[0]
    first = [int(n) for n in re.findall(rb'"n":(\d+)', whole)]
    last_id = re.findall(rb"id: (\S+)", whole)[-1].decode()
    async with reading(operator, last_id) as again:
        rest = [
            (await again.next("log", event="test.rushed"))["n"]
            for _ in range(RUSH - len(first))
        ]

    assert rest, "it was not cut"
    assert list(range(RUSH)) == first + rest


async def test_a_rush_of_requests_is_shown_by_its_rates_and_its_failures(
    gateway: Gateway, operator: AdminClient, upstream: ScriptedUpstream
) -> None:
    """What ends well within a second has an event only while few begin."""
    count, ends = 3 * MAX_FRESH, 0
    async with reading(operator) as stream:
        await stream.next("snapshot")
        for _ in range(count):
            await gateway.client().ask("chat", "chat-x")
        upstream.next(plays.status(400))
        bad = await gateway.client().ask("chat", "chat-x")
        rates = await stream.next("rates")
        while rates["requests_per_s"] < (count + 1) / RATE_S:
            rates = await stream.next("rates")
        await operator.get("/status")
    async with reading(operator, stream.first_id) as again:
        while True:
            row = await again.next("request", state="ended")
            if row["request_id"] == bad.request_id:
                break
            ends += 1

    assert "failed" == row["outcome"]
    assert ends < count


# --- bounds ---------------------------------------------------------------------------


def test_the_log_of_events_keeps_the_last_thousand() -> None:
    kept = EventLog()
    for number in range(MAX_EVENTS + 50):
        kept.add("request", {"n": number})
    first = kept.after(50)

    assert first and MAX_EVENTS == len(first)
    assert kept.after(49) is None
    assert [] == kept.after(kept.end)
    ident = first[-1].decode().splitlines()[0].removeprefix("id: ")
    assert kept.end == kept.number_of(ident)
    assert kept.number_of(ident.replace(str(kept.end), "7")) is None
    kept.forget()
    assert kept.number_of(ident) is None


def test_the_last_records_are_bounded_and_counted() -> None:
    ended = EndedRecords()
    for number in range(MAX_ENDED + 10):
        ended.add(Record(str(number), 0.0, 0.0))

    assert MAX_ENDED == len(ended.since(0))
    assert ["508", "509"] == [one.request_id for one in ended.since(508)]
    assert [] == ended.since(ended.count)
    assert "509" == next(iter(ended)).request_id


async def test_without_an_admin_side_no_record_is_kept(serve: Serve) -> None:
    gateway = await serve()
    await gateway.client().ask("chat", "chat-x")

    assert 0 == components_of(gateway.inside.app).ended_records.count
