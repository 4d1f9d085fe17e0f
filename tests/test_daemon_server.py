"""A daemon inside the test's process; test_integration_daemon starts real ones."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load_served
from gateway.daemon import server
from gateway.daemon.server import Daemon
from gateway.telemetry import log

CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[[account]]
name = "trial"
base_url = "embedded:"
"""


class Watcher:
    """A log that notes whether signals are handled, and stops the daemon."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.unhandled: list[signal.Signals] = []

    def info(self, event: str, **facts: Any) -> None:
        self.events.append(event)
        if event == "server.started":
            numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
            defaults = (signal.SIG_DFL, signal.default_int_handler)
            self.unhandled = [n for n in numbers if signal.getsignal(n) in defaults]
            if not self.unhandled:
                os.kill(os.getpid(), signal.SIGTERM)
        assert not self.unhandled


async def test_signals_are_handled_once_it_says_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    watcher = Watcher()
    monkeypatch.setattr(log, "get", lambda: watcher)
    monkeypatch.setattr(server, "tune_garbage_collection", lambda: None)
    try:
        await Daemon(path, load_served(path), []).run()
    finally:
        gc.unfreeze()

    assert watcher.events[0] == "server.started"
    assert watcher.events[-2:] == ["server.draining", "server.stopped"]
