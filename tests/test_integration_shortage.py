"""
A daemon that has no file descriptor left: no account is blamed, and it recovers.

The limit is set from outside, to just what the daemon has open, so that which call
meets it is no matter of luck.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Serve
from tests.kit import answers, endings, settings
from tests.kit.asking import PATHS, Reply, question, read_reply
from tests.kit.daemon import Daemon
from tests.kit.gateway import Gateway
from tests.kit.scripted import ScriptedUpstream


def open_files(pid: int) -> int:
    """One more than the highest descriptor: what a limit counts."""
    return max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1


def limit(pid: int, files: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, hard))


@asynccontextmanager
async def short_of_files(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with a connection, of a daemon that can open nothing any more."""
    pid = gateway.daemon.worker_pid
    soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    async with aiohttp.ClientSession() as session:
        for _ in range(2):  # the second time all that is opened once is open
            await (await session.get(f"{gateway.base_url}/healthz")).read()
        limit(pid, 0)
        try:
            yield session
        finally:
            limit(pid, soft)


async def ask(
    session: aiohttp.ClientSession, gateway: Gateway, protocol: str, stream: bool
) -> Reply:
    headers = {"authorization": f"Bearer {settings.key_of('alice')}"}
    body = question(protocol, f"{protocol}-x", stream)
    url = gateway.base_url + PATHS[protocol]
    async with session.post(url, json=body, headers=headers) as response:
        return await read_reply(response, 0.0)


async def test_no_account_is_blamed_and_each_protocol_gets_an_answer(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """503, whichever protocol and form; once in the log; well again afterwards."""
    rows = [
        *settings.accounts(upstream),
        settings.account(upstream, "chat-2"),  # failover would ask it
    ]
    gateway = await serve(daemon=True, accounts=rows)
    async with short_of_files(gateway) as session:
        for protocol in answers.PROTOCOLS:
            for stream in (True, False):
                reply = await ask(session, gateway, protocol, stream)
                assert 503 == reply.status, reply.body
                assert endings.before(protocol, reply).retry_after_s
                line = await gateway.finished(reply)
                assert ("failed", "gateway", "gateway_overloaded", 1) == (
                    line["outcome"],
                    line["origin"],
                    line["error_code"],
                    line["attempts"],
                )
        ready = await session.get(f"{gateway.base_url}/readyz")
        assert all(
            one["available"] for one in (await ready.json())["accounts"].values()
        )
    assert [] == upstream.received()
    assert 1 == len(gateway.log.events("resources.exhausted"))
    assert [] == gateway.log.events("account.cooled")
    for protocol in answers.PROTOCOLS:
        reply = await gateway.client().ask(protocol, f"{protocol}-x")
        endings.whole(protocol, reply)


async def test_a_reload_with_no_descriptor_left_keeps_the_old_config(
    serve: Serve,
) -> None:
    gateway = await serve(daemon=True)
    async with short_of_files(gateway):
        gateway.daemon.configure(users=[settings.user("bob")])
        gateway.daemon.reload()
        await gateway.log.wait_for(
            lambda: gateway.log.events("config.rejected"), "it was taken up"
        )
    endings.whole("chat", await gateway.client("alice").ask("chat", "chat-x"))
    assert "Too many open files" in json.dumps(gateway.log.events("config.rejected"))


@pytest.mark.parametrize("files", [9, 11, 15, 16, 17])
async def test_a_start_with_too_few_descriptors_ends_with_one_line(
    tmp_path: Path, files: int
) -> None:
    """Whichever step of the start meets the limit; or it starts, and serves."""
    daemon = Daemon(tmp_path, [settings.TRIAL])

    async def too_few() -> None:
        while not hasattr(daemon, "process"):
            await asyncio.sleep(0)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (files, files))

    limiting = asyncio.create_task(too_few())
    try:
        await daemon.start()
    except AssertionError:
        assert 1 == await daemon.exited()
        assert 1 == len(daemon.log.events("server.failed"))
        assert not daemon.log.events("process.crashed")
    else:
        assert 0 == await daemon.stop()
    await limiting

    assert "" == daemon.stderr


async def test_the_limit_is_raised_at_the_start(serve: Serve) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("no limit")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        gateway = await serve(daemon=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert (hard, hard) == resource.prlimit(
        gateway.daemon.worker_pid, resource.RLIMIT_NOFILE
    )
    assert hard == gateway.log.events("server.started")[0]["max_open_files"]


async def test_clients_that_take_all_descriptors_end_nothing(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """Those who cannot be accepted wait; the daemon lives and serves once they can."""
    gateway = await serve(daemon=True)
    pid = gateway.daemon.worker_pid
    soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    writers = []
    async with aiohttp.ClientSession() as kept:
        await (await kept.get(f"{gateway.base_url}/healthz")).read()
        limit(pid, open_files(pid) + 4)
        try:
            for _ in range(30):
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", gateway.daemon.port
                )
                writers.append(writer)
            for _ in range(20):
                await (await kept.get(f"{gateway.base_url}/healthz")).read()
        finally:
            for writer in writers:
                writer.close()
            limit(pid, soft)

    endings.whole("chat", await gateway.client().ask("chat", "chat-x"))
