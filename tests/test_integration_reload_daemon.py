"""A reload as its operator sees it: the rules of a start, by SIGHUP."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import Serve
from tests.kit import endings, plays, seen, settings
from tests.kit.asking import PATHS, question
from tests.kit.daemon import Daemon, free_port
from tests.kit.logs import Line
from tests.kit.scripted import ScriptedUpstream


async def reloaded(daemon: Daemon, event: str = "config.reloaded") -> Line:
    """The line of the reload that is asked for now."""
    before = len(daemon.log.events(event))
    daemon.reload()
    await daemon.log.wait_for(lambda: len(daemon.log.events(event)) > before, "nothing")
    return daemon.log.events(event)[-1]


async def throwaway_key(daemon: Daemon) -> str:
    """The key of the greeting, which is a line behind the start or the reload."""
    greetings = partial(daemon.log.events, "server.greeted")
    await daemon.log.wait_for(greetings, "no greeting")
    return str(greetings()[-1]["key"])


async def status_with(daemon: Daemon, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        url = daemon.base_url + PATHS["chat"]
        async with session.post(url, json=question("chat", "trial")) as response:
            await response.read()
            return response.status


@asynccontextmanager
async def started(folder: Path, **config: Any) -> AsyncIterator[Daemon]:
    daemon = Daemon(folder, [settings.TRIAL], **config)
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop()
    assert "" == daemon.stderr


async def test_the_throwaway_key_outlives_a_reload(tmp_path: Path) -> None:
    async with started(tmp_path, users=[]) as daemon:
        key = await throwaway_key(daemon)
        line = await reloaded(daemon)
        assert ([], []) == (line["changed"], line["restart_needed"])
        assert 200 == await status_with(daemon, key)

        daemon.configure(users=[settings.user("alice")])
        line = await reloaded(daemon)
        assert ["user.alice", "user.trial"] == line["changed"]
        assert 401 == await status_with(daemon, key)
        assert 200 == await status_with(daemon, settings.key_of("alice"))

        daemon.configure(users=[])  # the key that was printed is good until the stop
        await reloaded(daemon)
        assert 200 == await status_with(daemon, key)
        assert 1 == len(daemon.log.events("server.greeted"))


async def test_a_reload_that_leaves_no_user_prints_a_key(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        daemon.configure(users=[])
        await reloaded(daemon)

        assert 200 == await status_with(daemon, await throwaway_key(daemon))


REFUSED: dict[str, dict[str, Any]] = {
    "no-user-for-the-world": {"users": [], "listen": ["0.0.0.0:8080"]},
    "secret-that-is-not-set": {
        "accounts": [
            settings.TRIAL,
            {
                "name": "x",
                "protocol": "chat",
                "base_url": "http://x",
                "api_key": "env:SET_NOWHERE",
            },
        ],
    },
    "secret-that-cannot-be-read": {"server": {"metrics_token": "file:not-there"}},
    "unknown-key": {"server": {"metrics_tokn": "env:X"}},
    "no-account": {"accounts": []},
}


def paths(mistakes: list[str]) -> list[str]:
    return [mistake.partition(":")[0] for mistake in mistakes]


async def test_what_check_refuses_a_reload_refuses(tmp_path: Path) -> None:
    """With the same mistakes; and nothing of it is taken up."""
    async with started(tmp_path) as daemon:
        for name, refused in REFUSED.items():
            daemon.configure(**{"limits": {"max_concurrent": 1}, **refused})
            status, text = await daemon.command("check")
            line = await reloaded(daemon, "config.rejected")

            assert 2 == status, name
            assert paths(text.splitlines()) == paths(line["mistakes"]), name
            assert 200 == await status_with(daemon, settings.key_of("alice"))
        daemon.configure()
        line = await reloaded(daemon)
        assert [] == line["changed"]


async def test_no_user_is_refused_while_others_can_reach_the_open_listener(
    tmp_path: Path,
) -> None:
    """The new address is a loopback, but the old one is open until a restart."""
    daemon = Daemon(tmp_path, [settings.TRIAL])
    daemon.configure(listen=[f"0.0.0.0:{daemon.port}"])
    await daemon.start()
    try:
        daemon.configure(users=[], listen=[f"127.0.0.1:{daemon.port}"])
        line = await reloaded(daemon, "config.rejected")
        assert line["mistakes"][0].startswith("user: ")
    finally:
        await daemon.stop()


async def test_each_key_that_needs_a_restart_is_named(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        daemon.configure(
            listen=[*daemon.listen, f"127.0.0.1:{free_port()}"],
            server={"log_level": "debug", "log_format": "json"},
            ledger={"url": "sqlite:///other.db", "retention_days": 1},
        )
        for _ in range(2):
            line = await reloaded(daemon)
            assert [
                "ledger.url",
                "server.listen",
                "server.log_format",
                "server.log_level",
            ] == line["restart_needed"]
        first = daemon.log.events("config.reloaded")[0]
        assert ["ledger.retention_days"] == first["changed"]


async def test_the_metrics_token_is_taken_up(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon, aiohttp.ClientSession() as session:
        url = f"{daemon.base_url}/metrics"
        assert 200 == (await session.get(url)).status
        (tmp_path / "token").write_text("let-me-in")
        daemon.configure(server={"metrics_token": "file:token"})
        line = await reloaded(daemon)

        assert ["server.metrics_token"] == line["changed"]
        assert 401 == (await session.get(url)).status
        (tmp_path / "token").write_text("another")  # a changed secret is a changed key
        line = await reloaded(daemon)
        assert ["server.metrics_token"] == line["changed"]
        headers = {"authorization": "Bearer another"}
        assert 200 == (await session.get(url, headers=headers)).status
    assert not daemon.log.grep("another")


async def test_a_shorter_drain_is_taken_up_while_draining(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(daemon=True, server={"drain_timeout_s": 600.0})
    upstream.next(plays.silence(1))
    client = gateway.client()
    asking = asyncio.create_task(client.ask("chat", "chat-x"))
    await upstream.wait_for(1)
    await seen.output(client.asked[0])
    gateway.daemon.terminate()
    await gateway.log.wait_for(
        lambda: gateway.log.events("server.draining"), "it does not drain"
    )
    gateway.daemon.configure(server={"drain_timeout_s": 0.1})
    gateway.daemon.reload()

    endings.in_stream("chat", await asking)
    assert 0 == await gateway.daemon.exited()
    [line] = gateway.log.events("config.reloaded")
    assert ["server.drain_timeout_s"] == line["changed"]


async def test_many_reloads_at_once_end_with_the_last_config(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        for number in range(20):
            daemon.configure(limits={"max_concurrent": number + 10})
            daemon.reload()
        daemon.configure(limits={"max_concurrent": 7})
        await reloaded(daemon)
        line = await reloaded(daemon)  # whatever was on the way has been read

        assert [] == line["changed"]
        assert not daemon.log.events("config.rejected")


# --- unix sockets ---------------------------------------------------------------------


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


async def test_a_second_daemon_does_not_take_over_a_live_unix_socket(
    tmp_path: Path,
) -> None:
    """It says so, touches no row of the first one's ledger, and removes nothing."""
    path = tmp_path / "gateway.sock"
    async with started(tmp_path, listen=[f"unix:{path}"]) as first:
        second = Daemon(tmp_path, [settings.TRIAL])
        second.configure(listen=[f"unix:{path}"])
        with pytest.raises(AssertionError):
            await second.start()

        assert 1 == await second.exited()
        [line] = second.log.events("server.failed")
        assert str(path) in line["detail"] and "in use" in line["detail"]
        assert not second.log.events("ledger.recovered")
        assert listens(path)
        assert 0 == await first.stop()
    assert not path.exists()


async def test_it_leaves_a_socket_that_another_has_made_meanwhile(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.sock"
    async with started(tmp_path, listen=[f"unix:{path}"]):
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
    assert path.exists()


async def test_a_start_that_fails_leaves_no_socket_behind(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = Daemon(tmp_path, [settings.TRIAL])
        port = taken.getsockname()[1]
        daemon.configure(listen=[f"unix:{path}", f"127.0.0.1:{port}"])
        with pytest.raises(AssertionError):
            await daemon.start()

    assert 1 == await daemon.exited()
    assert not path.exists()
