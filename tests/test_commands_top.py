"""``gateway top``: its state as a table, and the real one in a small terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from typing import Any

from rich.console import Console

from gateway.commands.top_state import MAX_FAILURES, TopState, left_s
from gateway.commands.top_view import draw
from tests.conftest import Serve
from tests.kit import plays, settings
from tests.kit.daemon import ROOT
from tests.kit.scripted import ScriptedUpstream

COLUMNS, LINES = 80, 24
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()=>].?")


def row(ident: str, **facts: Any) -> dict[str, Any]:
    basic = {"request_id": ident, "state": "running", "phase": "running"}
    basic |= {"user": "alice", "account": "chat-1", "model": "chat-x", "age_s": 1.0}
    return {**basic, **facts}


def account(name: str = "chat-1", **facts: Any) -> dict[str, Any]:
    basic = {"name": name, "state": "ready", "reason": "", "until": None}
    slots = {"slots": {"in_use": 1, "limit": 2}, "waiting": 0, "wait_s": 0.0}
    return {**basic, **slots, **facts}


def started(*rows: dict[str, Any]) -> TopState:
    state = TopState()
    snapshot = {"requests": list(rows), "accounts": [account()], "users": []}
    state.apply("snapshot", {**snapshot, "rates": {"running": 1}}, 100.0)
    return state


# --- the state ------------------------------------------------------------------------


def test_requests_come_change_and_go() -> None:
    state = started(row("a"))
    state.apply("request", row("b", user="bob", tokens_per_s=9.0), 101.0)
    state.apply("request", row("a", age_s=2.0), 101.0)

    assert ["a", "b"] == [one["request_id"] for one in state.rows(101.0)]
    assert 3.5 == state.age_s(state.requests["a"], 102.5)
    state.apply("request", row("a", state="ended"), 102.0)
    assert ["b"] == list(state.requests)


def test_rows_are_sorted_filtered_and_selected() -> None:
    state = started(row("a"), row("b", user="bob", tokens_per_s=9.0, age_s=0.5))
    state.move(1, 100.0)
    state.move(1, 100.0)
    state.move(1, 100.0)

    assert "b" == state.selected
    state.next_sort()
    assert "user" == state.sort
    state.filter = "bob"
    assert ["b"] == [one["request_id"] for one in state.rows(100.0)]
    state.filter = "none"
    state.move(1, 100.0)
    assert "" == state.selected


def test_the_selection_stays_in_its_place_when_its_request_ends() -> None:
    state = started(*(row(f"id-{n}", age_s=9.0 - n) for n in range(4)))
    state.move(1, 100.0)
    state.move(1, 100.0)
    assert "id-1" == state.chosen(100.0)

    state.apply("request", row("id-1", state="ended"), 101.0)
    assert "" == state.chosen(101.0)  # nothing else is ended by mistake
    state.move(0, 101.0)
    assert "id-2" == state.chosen(101.0)
    state.filter = "no such"
    assert "" == state.chosen(101.0)


def test_an_opened_request_scrolls_and_any_other_key_closes_it() -> None:
    state = started()
    state.open([f"line {n}" for n in range(30)])
    for key in "jjk":
        state.turn(key)
    console = Console(width=COLUMNS, height=LINES, file=open(os.devnull, "w"))
    with console.capture() as captured:
        console.print(draw(state, 100.0, 10))
    console.file.close()

    shown = captured.get().split("\n")
    assert ("line 1", "line 8") == (shown[0].strip(), shown[7].strip())
    state.turn(" ")
    assert [] == state.timeline


def test_accounts_and_warnings_are_kept_within_bounds() -> None:
    state = started()
    state.apply("account", account("two", state="cooling"), 100.0)
    state.apply("account", {"name": "chat-1", "state": "removed"}, 100.0)
    for number in range(MAX_FAILURES + 10):
        state.apply("log", {"event": "attempt.failed", "detail": str(number)}, 100.0)

    assert ["two"] == list(state.accounts)
    assert MAX_FAILURES == len(state.failures)
    assert state.failures[-1].endswith("attempt.failed detail=59")


def test_a_cooldown_counts_down() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 11, 24, 12, tzinfo=UTC)

    assert 30.0 == left_s("2026-11-24T12:00:30Z", now)
    assert left_s("2026-11-24T11:00:00Z", now) is None
    assert left_s(None, now) is None


def test_it_fits_a_small_terminal() -> None:
    long = "a-very-long-name-of-a-model-that-a-client-made-up-and-more"
    rows = [row(f"id-{n}", model=long, user=long, account=long) for n in range(60)]
    state = started(*rows)
    state.accounts[long] = account(long, state="cooling", reason=long)
    state.failures.extend([long * 3] * 9)
    console = Console(
        width=COLUMNS, height=LINES, record=True, file=open(os.devnull, "w")
    )
    console.print(draw(state, 100.0, LINES))
    lines = console.export_text().splitlines()
    console.file.close()

    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS


# --- the real one ---------------------------------------------------------------------


class Terminal:
    """``gateway top`` in a terminal."""

    def __init__(self, config: Path) -> None:
        self._fd, inner = pty.openpty()
        size = struct.pack("HHHH", LINES, COLUMNS, 0, 0)
        fcntl.ioctl(inner, termios.TIOCSWINSZ, size)
        self._inner, self._config = inner, config
        self._seen = ""

    async def start(self) -> None:
        words = (sys.executable, "-m", "gateway", "top", "--config", str(self._config))
        self.process = await asyncio.create_subprocess_exec(
            *words,
            cwd=ROOT,
            stdin=self._inner,
            stdout=self._inner,
            stderr=self._inner,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(self._inner)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            self._seen += os.read(self._fd, 1 << 16).decode(errors="replace")
        except OSError:  # its other end is closed
            asyncio.get_running_loop().remove_reader(self._fd)

    async def shows(self, *words: str) -> None:
        """Return once all *words* were drawn since the last call."""
        try:
            async with asyncio.timeout(20):
                while not all(one in ESCAPES.sub("", self._seen) for one in words):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError((words, ESCAPES.sub("", self._seen)[-3000:])) from None
        self._seen = ""

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    async def close(self) -> int:
        self.press("q")
        async with asyncio.timeout(20):
            status = await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        return status


async def test_it_shows_what_happens_and_acts_on_it(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    gateway = await serve(admin=settings.ADMIN, limits={"max_concurrent": 1})
    config = tmp_path / "config.toml"
    config.write_text(
        settings.config_text(
            listen=["127.0.0.1:1"], accounts=[settings.TRIAL], admin=settings.ADMIN
        )
    )
    gate = asyncio.Event()
    upstream.next(plays.held(gate), model="responses-held")
    terminal = Terminal(config)
    await terminal.start()
    await terminal.shows("running 0", "trial", "ready")
    task = asyncio.create_task(gateway.client().ask("responses", "responses-held"))
    await terminal.shows("responses-held", "alice", "running")
    terminal.press("p")  # nothing is selected: an account is typed
    await terminal.shows("its first letters will do")
    terminal.press("xy\r")
    await terminal.shows("no account begins with xy")
    terminal.press("j")
    await terminal.shows("▶ responses-held")
    terminal.press("t")
    await terminal.shows("received", "any other key: back")
    terminal.press(" ")
    await terminal.shows("running 1")
    terminal.press("p")
    await terminal.shows("pause responses? y/n")
    terminal.press("y")
    await terminal.shows("responses is paused")
    terminal.press("e")
    await terminal.shows("y/n")
    terminal.press("y")
    reply = await task
    await terminal.shows("running 0")

    assert b"operator" in reply.body
    assert 0 == await terminal.close()
    gate.set()


async def test_without_a_terminal_it_says_so(tmp_path: Path) -> None:
    from tests.test_commands_operate import command, write_config

    write_config(tmp_path)
    status, out, err = await command(tmp_path, "top")

    assert (1, "") == (status, out)
    assert err.startswith("gateway: top needs a terminal")
