"""What ``gateway check`` says of the engine."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gateway.commands.check import check
from gateway.shared.inspection import inspect
from tests.kit.engine import running_engine

CONFIG = """
[shared]
url = "{url}"
[[account]]
name = "trial"
base_url = "embedded:"
"""


async def test_an_engine_as_it_should_be() -> None:
    with running_engine() as engine:
        report = await inspect(engine.url, "gw1")

    assert report.found.startswith(f"{engine.url}: ")
    assert report.found.endswith(", 0 processes")
    assert (report.mistakes, report.warnings, report.hosts) == ([], [], 1)


async def test_an_engine_that_may_drop_keys_is_a_warning() -> None:
    with running_engine("--maxmemory-policy", "allkeys-lru") as engine:
        report = await inspect(engine.url, "gw1")

    [warning] = report.warnings
    assert "noeviction" in warning


async def test_a_wrong_password_is_a_mistake_without_it() -> None:
    with running_engine("--requirepass", "right") as engine:
        url = f"redis://:wrong@127.0.0.1:{engine.port}"
        report = await inspect(url, "gw1")

    [mistake] = report.mistakes
    assert "WRONGPASS" in mistake and "wrong@" not in mistake


async def test_clocks_that_are_apart_are_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running_engine() as engine:
        import gateway.shared.inspection as inspection

        true = inspection.time.time
        monkeypatch.setattr(inspection.time, "time", lambda: true() + 30)
        report = await inspect(engine.url, "gw1")

    assert "30 s apart" in report.warnings[0]


async def test_two_hosts_on_sqlite_are_a_mistake(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running_engine("--protected-mode", "no") as engine:
        url = f"redis://127.0.0.1:{engine.port}"
        theirs = socket.create_connection(
            ("127.0.0.1", engine.port), source_address=("127.0.0.2", 0)
        )
        with theirs:
            theirs.sendall(b"CLIENT SETNAME gateway:other\r\n")
            theirs.recv(100)
            report = await inspect(url, "gw1")
            (tmp_path / "config.toml").write_text(CONFIG.format(url=url))
            status = await asyncio.to_thread(check, tmp_path / "config.toml")

    assert report.hosts == 2
    assert status == 2
    assert "ledger.url: 2 hosts use this engine" in capsys.readouterr().out


def test_check_prints_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    with running_engine() as engine:
        path.write_text(CONFIG.format(url=engine.url))
        assert check(path) == 0
        assert f"engine {engine.url}: " in capsys.readouterr().out
        engine.kill()
        assert check(path) == 0  # it serves alone
        assert "warning: shared.url: " in capsys.readouterr().out

    path.write_text(CONFIG.format(url="redis://"))
    assert check(path) == 2
    assert "shared.url: must name a host" in capsys.readouterr().out
