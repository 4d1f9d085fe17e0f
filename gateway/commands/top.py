"""
``gateway top``: the events of the daemon, live, with keys to act on what is seen.

It comes back by itself when the daemon does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aiohttp
import orjson
from aiohttp_sse_client.client import (  # type: ignore[import-untyped]  # it has none
    EventSource,
)
from rich.console import Console
from rich.live import Live

from gateway.commands.admin_client import CommandError, DaemonClient, part
from gateway.commands.top_state import TopState, timeline_lines
from gateway.commands.top_view import draw

FRAME_S = 0.25
RETRY_S = 1.0
MAX_EVENT_BYTES = 16 * 1024 * 1024  # of a snapshot: one line of thousands of requests
ARROWS = {"\x1b[A": "k", "\x1b[B": "j", "\x1bOA": "k", "\x1bOB": "j"}
EVENTS = "/api/v1/events"


def top(client: DaemonClient) -> int:
    """Show the daemon of *client* until ``q``."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("top needs a terminal; see: gateway request list")
    client.ask("GET", "/status")  # a daemon that is not there is one line
    with suppress(KeyboardInterrupt):
        asyncio.run(TopScreen(client).run())
    return 0


class TopScreen:
    """The screen, from its first frame to ``q``."""

    def __init__(self, client: DaemonClient) -> None:
        self._client = client
        self._state = TopState()
        self._over = asyncio.Event()
        self._changed = asyncio.Event()
        self._ask: Callable[[str], None] | None = None  # takes the next keys
        self._typed = ""

    async def run(self) -> None:
        """Draw, read events and keys."""
        console = Console()
        loop = asyncio.get_running_loop()
        with _keys_at_once(), Live(
            console=console, screen=True, auto_refresh=False
        ) as live:
            loop.add_reader(sys.stdin.fileno(), self._read_keys)
            try:
                async with asyncio.TaskGroup() as group:
                    following = group.create_task(self._follow())
                    while not self._over.is_set():
                        height = console.size.height
                        live.update(
                            draw(self._state, time.monotonic(), height), refresh=True
                        )
                        with suppress(TimeoutError):
                            async with asyncio.timeout(FRAME_S):
                                await self._changed.wait()
                        self._changed.clear()
                    following.cancel()
            finally:
                loop.remove_reader(sys.stdin.fileno())

    # --- events -----------------------------------------------------------------------

    async def _follow(self) -> None:
        address = self._client.address
        base = f"http://{address.host}:{address.port}" if not address.unix else ""
        while True:
            connector = aiohttp.UnixConnector(address.unix) if address.unix else None
            with suppress(aiohttp.ClientError, OSError, ValueError):
                async with aiohttp.ClientSession(
                    connector=connector,
                    read_bufsize=MAX_EVENT_BYTES,
                    headers=address.headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=15.0),
                ) as session:
                    url = (base or "http://localhost") + EVENTS
                    async with EventSource(url, session=session) as events:
                        async for event in events:
                            data = orjson.loads(event.data)
                            self._state.apply(event.type, data, time.monotonic())
            self._state.connected = False
            await asyncio.sleep(RETRY_S)

    # --- keys -------------------------------------------------------------------------

    def _read_keys(self) -> None:
        text = os.read(sys.stdin.fileno(), 64).decode(errors="ignore")
        keys = [ARROWS[text]] if text in ARROWS else list(text)
        for key in keys:
            self._key(key)
        self._changed.set()

    def _key(self, key: str) -> None:
        state = self._state
        if self._ask is not None:
            self._ask(key)
        elif state.timeline:
            state.timeline = []
        elif key == "q":
            self._over.set()
        elif key in "jk":
            state.move(1 if key == "j" else -1, time.monotonic())
        elif key == "s":
            state.next_sort()
        elif key == "/":
            self._typed, state.message = "", "filter: "
            self._ask = self._type_filter
        elif key == "e" and state.selected:
            self._confirm(f"end {state.selected}?", self._end)
        elif key == "p" and (account := self._account()):
            paused = state.accounts[account]["state"] == "paused"
            word = "resume" if paused else "pause"
            self._confirm(f"{word} {account}?", lambda: self._act(account, word))
        elif key == "t" and state.selected:
            self._do(self._open_timeline)

    def _type_filter(self, key: str) -> None:
        if key in "\r\n\x1b":
            self._ask = None
            self._state.filter = "" if key == "\x1b" else self._typed
            self._state.message = ""
            return
        self._typed = self._typed[:-1] if key == "\x7f" else self._typed + key
        self._state.message = f"filter: {self._typed}"

    def _confirm(self, question: str, action: Callable[[], str]) -> None:
        def answered(key: str) -> None:
            self._ask, self._state.message = None, ""
            if key == "y":
                self._do(action)

        self._state.message, self._ask = f"{question} y/n", answered

    def _account(self) -> str:
        """The account of the selected request."""
        row = self._state.requests.get(self._state.selected, {})
        name = str(row.get("account") or "")
        return name if name in self._state.accounts else ""

    # --- actions ----------------------------------------------------------------------

    def _do(self, action: Callable[[], str]) -> None:
        """Do *action*; the screen stands still for the moment that it takes."""
        try:
            self._state.message = action()
        except CommandError as error:
            self._state.message = str(error)

    def _end(self) -> str:
        self._client.ask("DELETE", f"/requests/{part(self._state.selected)}")
        return "ended"

    def _act(self, account: str, word: str) -> str:
        answer: Any = self._client.ask("POST", f"/accounts/{part(account)}/{word}")
        return f"{account} is {answer['state']}"

    def _open_timeline(self) -> str:
        path = f"/requests/{part(self._state.selected)}"
        self._state.timeline = timeline_lines(self._client.ask("GET", path))
        return ""


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Get each key as it is pressed, and show none."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
