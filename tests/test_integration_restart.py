"""
A restart that no client notices: real processes, before an upstream that counts.

SIGUSR2 replaces every process of the gateway; its pid stays the same.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, plays, settings
from tests.kit.asking import Reply
from tests.kit.daemon import Daemon
from tests.kit.gateway import Gateway
from tests.kit.queueing import queued
from tests.kit.scripted import ScriptedUpstream
from tests.test_integration_records import measured, rows


async def restarted(daemon: Daemon, event: str = "server.restarted") -> None:
    """Replace its processes; return once that is done, or has failed."""
    before = len(daemon.log.events(event))
    daemon.process.send_signal(signal.SIGUSR2)
    await daemon.log.wait_for(
        lambda: len(daemon.log.events(event)) > before, f"no {event}", 60
    )


async def keep_asking(gateway: Gateway, user: str, over: asyncio.Event) -> list[Reply]:
    """Requests one after the other, of every protocol, on kept-alive connections."""
    replies = []
    while not over.is_set():
        protocol = answers.PROTOCOLS[len(replies) % 3]
        replies.append(await gateway.client(user).ask(protocol, f"{protocol}-x"))
    return replies


@pytest.mark.timeout(180)
async def test_nothing_is_refused_cut_or_above_a_limit(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Streams, those who wait, kept-alive connections and newcomers, over two."""
    rows_ = [settings.account(upstream, n, max_concurrent=2) for n in answers.PROTOCOLS]
    gateway = await serve(
        daemon=True,
        accounts=rows_,
        users=[settings.user("alice", max_concurrent=3), settings.user("bob")],
        limits={"queue_timeout_s": 120.0, "ping_interval_s": 0.2},
    )
    upstream.always(plays.ok(interval_s=0.01))
    gate, over = asyncio.Event(), asyncio.Event()
    upstream.next(plays.held(gate), model="chat-held")
    held = asyncio.create_task(gateway.client("bob").ask("chat", "chat-held"))
    await upstream.wait_for(1)
    asking = [
        asyncio.create_task(keep_asking(gateway, user, over))
        for user in ("alice",) * 6 + ("bob",) * 3
    ]
    pid = gateway.daemon.worker_pid
    for _ in range(2):
        await restarted(gateway.daemon)
    over.set()
    gate.set()
    replies = [reply for some in await asyncio.gather(*asking) for reply in some]
    replies.append(await held)

    assert len(replies) > 20
    assert {200} == {reply.status for reply in replies}
    assert not any(reply.broken for reply in replies)
    assert gateway.daemon.worker_pid != pid
    for account in answers.PROTOCOLS:
        assert upstream.most_served(account) <= 2
    endings.whole("chat", replies[-1])
    await gateway.log.wait_events("worker.ended", 2)
    outcomes = rows(tmp_path, "SELECT outcome, count(*) FROM request GROUP BY 1")
    assert [("ok", len(replies))] == outcomes
    assert 0 == await gateway.daemon.stop()
    assert [] == gateway.log.events("takeover.failed")


@pytest.mark.timeout(120)
async def test_those_who_wait_come_before_newcomers(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(
        daemon=True,
        users=[settings.user("alice", max_concurrent=1, ping_interval_s=0.1)],
        limits={"queue_timeout_s": 60.0},
    )
    gate = asyncio.Event()
    client = gateway.client()
    upstream.next(plays.held(gate), model="chat-first")
    first = asyncio.create_task(client.ask("chat", "chat-first"))
    await upstream.wait_for(1)
    async with client.open("chat", "chat-second") as second:
        await queued(second)
        await restarted(gateway.daemon)
        async with client.open("chat", "chat-third") as third:  # at the new process
            await queued(third)
            gate.set()
            endings.whole("chat", await first)
            assert b"[DONE]" in await second.content.read()
            assert b"[DONE]" in await third.content.read()

    models = [request.json["model"] for request in upstream.received()]
    assert ["chat-first", "chat-second", "chat-third"] == models


@pytest.mark.timeout(120)
async def test_an_idle_connection_goes_on(serve: Serve) -> None:
    """Its client does not even have to connect again."""
    gateway = await serve(daemon=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.daemon.port)
    for _ in range(2):
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"onnection: close" not in head
        await reader.readexactly(len(b'{"status":"ok"}'))
        await restarted(gateway.daemon)
    writer.close()
    await gateway.log.wait_events("worker.ended", 2)


@pytest.mark.timeout(120)
async def test_counters_never_fall(serve: Serve) -> None:
    """Not over a restart, nor over a crash for what a scrape has shown."""
    gateway = await serve(daemon=True)
    name = 'gateway_requests_total{origin="",outcome="ok",protocol="chat"}'
    client = gateway.client()
    for number in range(3):
        endings.whole("chat", await client.ask("chat", "chat-x"))
        await gateway.log.each_finished_once(client.asked)
        assert number + 1 == (await measured(gateway))[name]
        if number == 0:
            os.kill(gateway.daemon.worker_pid, signal.SIGKILL)
            await gateway.log.wait_events("worker.started", 2)
        else:
            await restarted(gateway.daemon)
    assert 3 == (await measured(gateway))[name]
    assert 3 == (await measured(gateway))["gateway_queue_wait_seconds_count"]


@pytest.mark.timeout(120)
async def test_what_cannot_start_leaves_the_old_one_serving(serve: Serve) -> None:
    """A bad config, then a ledger that cannot be used; then both are mended."""
    gateway = await serve(daemon=True)
    pid = gateway.daemon.worker_pid
    gateway.daemon.config_file.write_text("[server]\nlisten = 5\n")
    await restarted(gateway.daemon, "restart.failed")
    gateway.daemon.configure(ledger={"url": "sqlite:////proc/no/such.db"})
    await restarted(gateway.daemon, "restart.failed")

    assert pid == gateway.daemon.worker_pid
    assert 1 == len(gateway.log.events("config.rejected"))
    details = [line["detail"] for line in gateway.log.events("restart.failed")]
    assert "config" in details[0] and "ledger" in details[1]
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))
    gateway.daemon.configure()
    await restarted(gateway.daemon)
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))


@pytest.mark.timeout(120)
async def test_a_stop_during_a_restart_stops(serve: Serve) -> None:
    gateway = await serve(daemon=True)
    gateway.daemon.process.send_signal(signal.SIGUSR2)
    gateway.daemon.reload()
    await gateway.log.wait_events("server.restarting")
    gateway.daemon.terminate()

    assert 0 == await gateway.daemon.exited()
    assert 1 == len(gateway.log.events("server.stopped"))
