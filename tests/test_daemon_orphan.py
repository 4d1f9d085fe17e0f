"""Workers without a parent: how those of a new one find them, and end them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.daemon import orphan as orphan_module
from gateway.daemon.orphan import Orphan, find_orphans, kill_peer
from gateway.daemon.private_folder import private_folder


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    with TemporaryDirectory(prefix="gw-", dir="/tmp") as short:  # room for a socket
        monkeypatch.setenv("RUNTIME_DIRECTORY", short)
        yield tmp_path / "config.toml"
        assert [] == os.listdir(short)  # nothing is left behind


async def test_it_is_found_by_each_that_follows_until_it_closes(config: Path) -> None:
    assert [] == find_orphans(config)
    followers: asyncio.Queue[int] = asyncio.Queue()
    orphan = Orphan(config, followers.put_nowait)
    assert orphan.open()
    for word in (b"1", b"2"):
        [fd] = find_orphans(config)
        with (
            socket.socket(fileno=await followers.get()) as there,
            socket.socket(fileno=fd) as here,
        ):
            here.sendall(word)
            assert word == await asyncio.get_running_loop().sock_recv(there, 1)
    orphan.close()
    assert [] == find_orphans(config)


async def test_what_a_dead_one_left_is_removed(config: Path) -> None:
    folder = private_folder(config)
    left = socket.socket(socket.AF_UNIX)
    with left:
        left.bind(f"{folder}/orphan-1.sock")
    assert [] == find_orphans(config)


async def test_one_with_too_many_followers_is_not_waited_for(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphan_module, "BACKLOG", 0)
    orphan = Orphan(config, os.close)
    assert orphan.open()
    found = [fd for _ in range(3) for fd in find_orphans(config)]
    assert 1 <= len(found) < 3
    for fd in found:
        os.close(fd)
    orphan.close()


async def test_without_a_folder_it_says_so(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(self: socket.socket, path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(socket.socket, "bind", bind)
    orphan = Orphan(config, os.close)
    assert not orphan.open()
    orphan.close()
    os.rmdir(private_folder(config))


LISTENING = """
import socket, sys, time
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
print("listens", flush=True)
time.sleep(60)
"""


def test_one_that_stands_still_is_killed(config: Path) -> None:
    folder = private_folder(config)
    words = [sys.executable, "-c", LISTENING, f"{folder}/orphan-2.sock"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as still:
        assert still.stdout and b"listens\n" == still.stdout.readline()
        [fd] = find_orphans(config)
        kill_peer(fd)
        os.close(fd)
        assert -9 == still.wait(10)
    assert [] == find_orphans(config)
