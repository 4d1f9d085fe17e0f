"""
The processes of a gateway: what happens when one of them dies or stands still.

Real daemons, before an upstream that the test scripts.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.daemon.respawn import MAX_DEATHS
from tests.conftest import Serve
from tests.kit import answers, endings, plays, seen, settings
from tests.kit.asking import Client, Reply
from tests.kit.daemon import ROOT, Daemon, running
from tests.kit.engine import engine_binary
from tests.kit.gateway import Gateway
from tests.kit.logs import Line
from tests.kit.queueing import queued
from tests.kit.scripted import ScriptedUpstream
from tests.test_integration_records import measured, rows
from tests.test_integration_restart import restarted


def crashed(folder: Path) -> list[str]:
    """The requests that the ledger says a crash has ended."""
    with sqlite3.connect(folder / "gateway.db") as connection:
        rows = connection.execute(
            "SELECT request_id FROM request WHERE error_code = 'crashed'"
        ).fetchall()
    connection.close()
    return [one for one, in rows]


async def open_stream(gateway: Gateway, protocol: str = "chat") -> asyncio.Task[object]:
    """A request that has its first output, and never ends by itself."""
    client = gateway.client()
    asked = len(client.asked)
    asking = asyncio.create_task(client.ask(protocol, f"{protocol}-x"))
    async with asyncio.timeout(10):
        while len(client.asked) == asked:
            await asyncio.sleep(0.005)
    await seen.output(client.asked[-1])
    return asking


async def test_a_worker_that_dies_is_replaced_and_no_client_is_refused(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(daemon=True)
    client = gateway.client()
    upstream.next(plays.silence(1))
    cut = await open_stream(gateway)
    lost = client.asked.pop()  # it has no canonical line: its process is gone
    dead = gateway.daemon.worker_pid
    while not row_count(tmp_path, "outcome = 'open'"):  # it is written ahead
        await asyncio.sleep(0.02)
    os.kill(dead, signal.SIGKILL)
    replies = await asyncio.gather(
        *(client.ask(one, f"{one}-x") for one in answers.PROTOCOLS)
    )
    await cut
    [recovered] = await gateway.log.wait_events("ledger.recovered")

    for protocol, reply in zip(answers.PROTOCOLS, replies):
        endings.whole(protocol, reply)
    [ended] = gateway.log.events("worker.ended")
    assert (dead, "crashed", 9) == (ended["pid"], ended["reason"], ended["signal"])
    assert 2 == len(gateway.log.events("worker.started"))
    assert 1 == recovered["closed_as_crashed"]
    assert [lost] == crashed(tmp_path)
    assert 0 == await gateway.daemon.stop()


async def test_without_its_parent_a_worker_finishes_and_takes_nothing_new(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = await serve(daemon=True)
    gate = asyncio.Event()
    upstream.next(plays.held(gate))
    async with gateway.client().open("chat", "chat-x") as response:
        await response.content.readany()
        gateway.daemon.process.kill()
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", gateway.daemon.port
                    )
                except ConnectionError:
                    break
                writer.close()
                await asyncio.sleep(0.01)
        gate.set()
        rest = await response.content.read()

    assert b"[DONE]" in rest
    assert -signal.SIGKILL == await gateway.daemon.exited()  # its log has ended, too
    assert [] == crashed(tmp_path)
    assert "ok" == gateway.log.finished(gateway.client().asked[0])["outcome"]


def row_count(folder: Path, where: str) -> int:
    """How many requests of the ledger *where* selects."""
    with sqlite3.connect(folder / "gateway.db") as connection:
        [(count,)] = connection.execute(f"SELECT count(*) FROM request WHERE {where}")
    connection.close()
    return int(count)


@pytest.mark.timeout(120)
async def test_several_workers_are_one_gateway(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """One limit and one truth; one worker dies, then the engine, then all are new."""
    engine_binary()
    accounts = [settings.account(upstream, "chat", max_concurrent=4), settings.TRIAL]
    gateway = await serve(
        daemon=True,
        accounts=accounts,
        server={"workers": 2},
        users=[settings.user("alice", max_concurrent=4, max_queued=500)],
        limits={"queue_timeout_s": 60.0},
    )
    upstream.always(plays.ok(interval_s=0.01))
    [started] = gateway.log.events("engine.started")
    await gateway.log.wait_events("worker.started", 2)
    assert 1 == len(gateway.log.events("server.started"))
    pids = gateway.daemon.workers

    async def ask(model: str = "chat-x") -> Reply:
        return await gateway.client().ask("chat", model)

    for reply in await asyncio.gather(*(ask() for _ in range(60))):
        endings.whole("chat", reply)
    assert 4 == upstream.most_served("chat")
    name = 'gateway_requests_total{origin="",outcome="ok",protocol="chat"}'
    assert 60 == (await measured(gateway))[name]

    gate = asyncio.Event()
    for _ in range(4):
        upstream.next(plays.held(gate), model="chat-held")
    held = [asyncio.create_task(ask("chat-held")) for _ in range(4)]
    await upstream.wait_for(64)
    waiting = [asyncio.create_task(ask("chat-y")) for _ in range(8)]
    await gateway.daemon.waiting("alice", 8)
    os.kill(pids[0], signal.SIGKILL)
    await gateway.log.wait_events("worker.started", 3)
    os.kill(started["pid"], signal.SIGKILL)
    await gateway.log.wait_events("engine.started", 2)
    gate.set()
    replies = await asyncio.gather(*held, *waiting, return_exceptions=True)
    lost = 0
    for reply in replies:
        if isinstance(reply, BaseException) or reply.broken:
            lost += 1  # its process is gone
        else:
            endings.whole("chat", reply)
    await gateway.log.wait_events("engine.healed", 2)

    over = asyncio.Event()
    asking = [asyncio.create_task(keep_asking(gateway, over)) for _ in range(6)]
    await restarted(gateway.daemon)
    over.set()
    whole = [reply for some in await asyncio.gather(*asking) for reply in some]
    for reply in whole:
        endings.whole("chat", reply)
    await gateway.log.wait_for(
        lambda: 72 - lost + len(whole) == len(gateway.log.events("request.finished")),
        "not all finished",
    )
    ended = {line["request_id"] for line in gateway.log.events("request.finished")}
    client = gateway.client()
    client.asked[:] = [one for one in client.asked if one in ended]
    assert 4 == upstream.most_served("chat")
    assert not set(pids) & set(gateway.daemon.workers[-2:])
    assert 0 == await gateway.daemon.stop()
    assert len(whole) + 72 - lost == row_count(tmp_path, "outcome = 'ok'")
    assert 0 == row_count(tmp_path, "outcome = 'open'")
    assert len(crashed(tmp_path)) <= lost


async def keep_asking(gateway: Gateway, over: asyncio.Event) -> list[Reply]:
    replies = []
    while not over.is_set():
        replies.append(await gateway.client().ask("chat", "chat-x"))
    return replies


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_workers_of_a_killed_parent_share_limits_with_a_new_one(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path, workers: int
) -> None:
    """One is followed; several keep the engine, which the new parent finds."""
    engine_binary()
    accounts = [settings.account(upstream, "chat", max_concurrent=2)]
    users = [settings.user("alice", max_concurrent=0, ping_interval_s=0.1)]
    config = {"accounts": accounts, "server": {"workers": workers}, "users": users}
    gateway = await serve(daemon=True, **config)
    gate = asyncio.Event()
    for _ in range(2):
        upstream.next(plays.held(gate), model="chat-held")
    client = gateway.client()
    held = [asyncio.create_task(client.ask("chat", "chat-held")) for _ in range(2)]
    await upstream.wait_for(2)
    gateway.daemon.process.kill()

    async with running(tmp_path, **config) as second:
        assert not second.log.events("engine.started")
        key = settings.key_of("alice")
        newcomer = Client(second.base_url, key, gateway.session)
        async with newcomer.open("chat", "chat-new") as third:
            await queued(third)
            assert 2 == len(upstream.received())
            gate.set()
            assert b"[DONE]" in await third.content.read()
        for reply in await asyncio.gather(*held):
            endings.whole("chat", reply)
        assert 2 == upstream.most_served("chat")
        await gateway.daemon.exited()
    assert 3 == row_count(tmp_path, "outcome = 'ok'")


async def test_a_worker_without_a_parent_ends_at_once_where_limits_cannot_hold(
    serve: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """A new instance counts at an engine, which does not know what it runs."""
    engine_binary()
    accounts = [settings.account(upstream, "chat")]
    gateway = await serve(daemon=True, accounts=accounts)
    upstream.next(plays.held(asyncio.Event()))
    asked = await open_stream(gateway)
    gateway.daemon.process.kill()

    server = {"workers": 2}
    async with running(tmp_path, accounts=accounts, server=server) as second:
        reply = await asked
        assert "server_error" == endings.in_stream("chat", reply).code
        assert "gateway_shutdown" == (await gateway.finished(reply))["error_code"]
        key = settings.key_of("alice")
        newcomer = Client(second.base_url, key, gateway.session)
        endings.whole("chat", await newcomer.ask("chat", "chat-x"))


async def test_no_restart_leaves_what_runs_uncounted(serve: Serve) -> None:
    """The engine of the new workers would not know it."""
    engine_binary()
    gateway = await serve(daemon=True)
    gateway.daemon.configure(server={"workers": 2})
    await restarted(gateway.daemon, "restart.failed")
    gateway.daemon.configure(shared={"url": "redis://127.0.0.1:1"})
    await restarted(gateway.daemon, "restart.failed")

    details = [line["detail"] for line in gateway.log.events("restart.failed")]
    assert details[0].startswith("server.workers: from one process to several")
    assert details[1].startswith("shared.url, shared.prefix: ")
    assert not gateway.log.events("engine.started")
    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))


async def another_child(parent: int, known: set[int]) -> int:
    """The worker of process *parent* that is not one of *known*, once there is one."""
    while True:
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if child not in known and b"worker" in Path(
                    f"/proc/{child}/cmdline"
                ).read_bytes().split(b"\0"):
                    return child
        await asyncio.sleep(0.002)


# --- a slot that is in trouble --------------------------------------------------------

IMPATIENT = """
import signal, sys, time
from gateway.daemon.worker_handle import WorkerHandle
from gateway.__main__ import main

IN_TIME = WorkerHandle.silent_at
SLOTS = {signal.SIGRTMIN: 0, signal.SIGRTMIN + 1: 1}
impatient = {}

def silent_at(worker):
    late = worker.began_at < impatient.get(worker.slot, 0.0)
    return IN_TIME.fget(worker) - (8.5 if late else 0.0)

def on_signal(number, frame):
    impatient[SLOTS[number]] = time.monotonic()

WorkerHandle.silent_at = property(silent_at)
for one in SLOTS:
    signal.signal(one, on_signal)
sys.exit(main())
"""
"""The parent; at a signal the worker of a slot may be silent for 1.5 s, not for 10."""


@asynccontextmanager
async def impatient_daemon(folder: Path, **config: Any) -> AsyncIterator[Daemon]:
    """A daemon of two workers, from a copy of the code."""
    engine_binary()
    daemon = Daemon(folder, server={"workers": 2}, **config)
    daemon.code, daemon.program = folder / "code", ("-c", IMPATIENT)
    shutil.copytree(ROOT / "gateway", daemon.code / "gateway")
    await daemon.start()
    try:
        await daemon.log.wait_events("worker.started", 2)
        yield daemon
    finally:
        await daemon.stop()


async def worker_of(daemon: Daemon, request_id: str) -> Line:
    """The ``worker.started`` line of the worker that runs *request_id*."""
    async with asyncio.timeout(10):
        while True:
            found = rows(
                daemon.folder,
                f"SELECT node FROM request WHERE request_id = '{request_id}'",
            )
            for line in daemon.log.events("worker.started"):
                if [(line["node"],)] == found:
                    return line
            await asyncio.sleep(0.01)


@pytest.mark.timeout(180)
async def test_a_slot_in_trouble_costs_the_others_nothing(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """
    Its worker stands still; those after it die; then the code on disk is broken. With
    the code mended all are replaced.
    """
    account = settings.account
    accounts = [
        account(upstream, "chat-1", max_concurrent=1, models=["one-*"]),
        account(upstream, "chat-2", max_concurrent=0, models=["two-*"]),
    ]
    users = [settings.user("alice", max_concurrent=0, ping_interval_s=0.1)]
    gate, never = asyncio.Event(), asyncio.Event()
    upstream.next(plays.held(never), model="one-held")
    upstream.next(plays.held(gate), model="two-held")
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(
            impatient_daemon(tmp_path, accounts=accounts, users=users)
        )
        log = daemon.log
        session = await stack.enter_async_context(aiohttp.ClientSession())
        client = Client(daemon.base_url, settings.key_of("alice"), session)

        lost = asyncio.create_task(client.ask("chat", "one-held"))
        await upstream.wait_for(1)
        await seen.output(client.asked[0])
        stopped = await worker_of(daemon, client.asked[0])
        os.kill(stopped["pid"], signal.SIGSTOP)
        held = asyncio.create_task(client.ask("chat", "two-held"))
        await upstream.wait_for(2)
        async with client.open("chat", "one-x") as waiting:
            await queued(waiting)
            os.kill(daemon.pid, signal.SIGRTMIN + stopped["worker"])
            assert b"[DONE]" in await waiting.content.read()
        assert (await lost).broken
        [ended] = await log.wait_events("worker.ended")
        assert (stopped["pid"], "silent") == (ended["pid"], ended["reason"])
        await log.wait_events("ledger.recovered")
        assert [client.asked[0]] == crashed(tmp_path)

        known = {line["pid"] for line in log.events("worker.started")[:2]}
        for _ in range(MAX_DEATHS - 1):
            known.add(pid := await another_child(daemon.pid, known))
            os.kill(pid, signal.SIGKILL)
        [failing] = await log.wait_events("worker.failing")
        assert stopped["worker"] == failing["worker"]
        served = len(log.events("worker.started"))
        await log.wait_for(
            lambda: len(log.events("worker.started")) > served, "it is given up", 60
        )

        workers = set(daemon.workers)
        for part in ("server", "parent"):
            source = daemon.code / "gateway" / "daemon" / f"{part}.py"
            text = source.read_text()
            source.write_text(f"{text}\n)")
            await restarted(daemon, "restart.failed")
            source.write_text(text)
            assert workers == set(daemon.workers)
        gate.set()
        endings.whole("chat", await held)
        await reload_within_a_restart(daemon, accounts=accounts, users=users)
        endings.whole("chat", await client.ask("chat", "one-x"))
        assert 0 == await daemon.stop()
    assert "" == daemon.stderr


async def reload_within_a_restart(daemon: Daemon, **config: Any) -> None:
    """
    Restart *daemon*; a reload does not wait for the end, since replacing all workers
    may take long, and the new limits hold at once.
    """
    log = daemon.log
    served = len(log.events("worker.started"))
    daemon.process.send_signal(signal.SIGUSR2)
    await log.wait_for(
        lambda: len(log.events("worker.started")) > served, "no new worker", 60
    )
    before = {int(line["pid"]) for line in log.events("worker.started")}
    last = await another_child(daemon.pid, before)
    os.kill(last, signal.SIGSTOP)
    try:
        config["limits"] = {"max_concurrent": 1}
        daemon.configure(server={"workers": 2}, **config)
        daemon.reload()
        await log.wait_events("config.reloaded")
        assert not log.events("server.restarted")
    finally:
        os.kill(last, signal.SIGCONT)
    await log.wait_for(lambda: log.events("server.restarted"), "no restart", 60)
