"""The engine that a gateway with several workers runs for itself; a real one."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.config import engine_program
from gateway.config.load import load_served, needs_engine, worker_count
from gateway.config.parse import MAX_WORKERS, ConfigError
from gateway.config.schema import Config
from gateway.daemon import engine_probe
from gateway.daemon.engine_probe import EngineProbe
from gateway.daemon.engine_use import EngineUse, engine_pid, socket_path
from gateway.daemon.parent_log import ParentLog
from gateway.daemon.private_engine import PrivateEngine
from gateway.daemon.private_folder import private_folder
from gateway.daemon.process import StartError
from tests.kit.engine import engine_binary


class Lines:
    """A log that keeps what is said."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.facts: list[dict[str, object]] = []

    def info(self, event: str, **facts: object) -> None:
        self.events.append(event)
        self.facts.append(facts)

    error = warning = info


@pytest.fixture
def lines() -> Lines:
    engine_binary()
    return Lines()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    with TemporaryDirectory(prefix="gw-", dir="/tmp") as short:  # room for a socket
        monkeypatch.setenv("RUNTIME_DIRECTORY", f"{short}:{short}/other")
        path = private_folder(tmp_path / "config.toml")
        assert path.startswith(short)
        yield path
        assert 0 == engine_pid(path)


def until(check: Callable[[], object]) -> None:
    give_up = time.monotonic() + 10
    while not check():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def made(folder: str, lines: Lines, use: EngineUse | None = None) -> PrivateEngine:
    log: ParentLog = lines  # type: ignore[assignment]
    return PrivateEngine(folder, log, use)


def test_it_is_private_keeps_nothing_and_ends_with_its_last_user(
    folder: str, lines: Lines
) -> None:
    engine = made(folder, lines)
    engine.start()
    worker = EngineUse(folder)

    assert engine.choice().new and engine.choice().url == f"unix://{folder}/engine.sock"
    assert 0o700 == stat.S_IMODE(os.stat(folder).st_mode)
    assert 0o600 == stat.S_IMODE(os.stat(socket_path(folder)).st_mode)
    words = Path(f"/proc/{engine.pid}/cmdline").read_text()
    assert words  # what runs is the engine itself, not a shell around it
    assert not worker.leave() and engine_pid(folder) == engine.pid
    engine.stop()
    assert not os.path.exists(folder)
    assert ["engine.started"] == lines.events


def test_one_that_dies_is_started_again_at_the_same_place(
    folder: str, lines: Lines
) -> None:
    engine = made(folder, lines)
    engine.start()
    first = engine.pid
    os.kill(first, signal.SIGKILL)

    def again() -> bool:
        engine.look()
        return engine_pid(folder) not in (0, first)

    until(again)
    assert not engine.choice().new  # others have leases that it has to hear of
    assert ["engine.started", "engine.ended", "engine.started"] == lines.events
    engine.stop()


def test_one_that_hangs_is_killed_and_started_again(
    folder: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_probe, "PING_EVERY_S", 0.02)
    monkeypatch.setattr(engine_probe, "HUNG_S", 0.8)
    engine = made(folder, lines)
    engine.start()
    first = engine.pid
    asked = time.monotonic() + 0.1
    until(lambda: engine.look() or time.monotonic() > asked)
    assert (first, ["engine.started"]) == (engine.pid, lines.events)
    os.kill(first, signal.SIGSTOP)

    def again() -> bool:
        engine.look()
        return engine_pid(folder) not in (0, first)

    until(again)
    assert ["engine.started", "engine.ended", "engine.started"] == lines.events
    assert "silent" == lines.facts[1]["reason"]
    engine.stop()


class Silent:
    """A socket that takes a connection and says nothing, or *words*."""

    def __init__(self, folder: Path, words: bytes = b"") -> None:
        self.path = str(folder / "s")
        self._words, self._socket = words, socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def answer(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            assert b"PING\r\n" == connection.recv(64)
            connection.send(self._words)


def test_silence_counts_only_while_the_parent_is_awake(tmp_path: Path) -> None:
    with Silent(tmp_path) as silent:
        probe = EngineProbe(silent.path)
        hung = [probe.is_hung(60.0 * number) for number in range(6)]
        assert hung == [False] * 5 + [True]  # a second at most counts of each pause
        probe.close()
        assert not probe.is_hung(301.0)
        probe.close()


def test_an_answer_ends_the_silence(tmp_path: Path) -> None:
    with Silent(tmp_path, b"+PONG\r\n") as silent:
        probe = EngineProbe(silent.path)
        for second in range(0, 20, 2):
            assert not probe.is_hung(second)
            silent.answer()
            assert not probe.is_hung(second + 0.9)
        probe.close()


def test_one_that_never_listens_is_silent(tmp_path: Path) -> None:
    probe = EngineProbe(str(tmp_path / "none"))
    hung = [probe.is_hung(float(second)) for second in range(7)]
    assert hung == [False] * 5 + [True] * 2
    probe.close()


def test_a_new_parent_goes_on_with_the_one_that_is_there(
    folder: str, lines: Lines
) -> None:
    """Its own, over an exec; or that of a parent that was killed."""
    first = made(folder, lines)
    first.start()
    pid = first.pid
    log: ParentLog = lines  # type: ignore[assignment]
    known = first.dump()
    again = PrivateEngine.load({**known, "use": os.dup(known["use"])}, log)
    os.close(known["use"])
    assert (pid, False) == (again.pid, again.new)
    orphan = EngineUse(folder)  # a worker, whose parent is killed now
    os.close(again.dump()["use"])

    second = made(folder, lines)
    second.start()
    assert (pid, False) == (second.pid, second.new)
    second.stop()
    assert pid == engine_pid(folder)
    assert orphan.leave() and 0 == engine_pid(folder)


def test_what_cannot_be_is_said(
    folder: str, lines: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.chmod(folder, 0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/proc/{'x' * 20}")
    monkeypatch.setenv("TMPDIR", "/" + "y" * 100)  # too long for a socket
    path = tmp_path / "config.toml"
    chosen = f"/tmp/{os.path.basename(folder)}"
    assert chosen == private_folder(path)
    os.chmod(chosen, 0o711)
    with pytest.raises(StartError, match="others may enter it"):
        private_folder(path)
    os.rmdir(chosen)

    os.chmod(folder, 0o700)
    monkeypatch.setattr(engine_program, "PROGRAMS", ("no-such-server",))
    engine = made(folder, lines)
    with pytest.raises(StartError, match="apt install"):
        engine.start()
    false = tmp_path / "no-such-server"
    false.write_text("#!/bin/sh\necho 'it is out of order'\nexit 3\n")
    false.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match="it is out of order"):
        engine.start()
    engine.stop()


def test_a_config_says_how_many_workers_and_whether_the_engine_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"

    def workers(number: int, shared: str = "") -> Config:
        path.write_text(
            f"[server]\nworkers = {number}\n[shared]\nurl = '{shared}'\n"
            "[[account]]\nname = 'trial'\nbase_url = 'embedded:'\n"
        )
        return load_served(path).config

    for number in (-1, MAX_WORKERS + 1):
        with pytest.raises(ConfigError, match="server.workers: must "):
            workers(number)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(3)))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert 1 == worker_count(workers(1))
    for number in (0, 2):
        with pytest.raises(ConfigError, match="server.workers: .* apt install"):
            workers(number)
    assert not needs_engine(workers(2, "redis://127.0.0.1"))
    program = tmp_path / "valkey-server"
    program.touch(0o755)
    assert 3 == worker_count(workers(0)) and needs_engine(workers(0))
    program.chmod(0o600)
    assert "" == engine_program.engine_program()
