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
from gateway.commands.top_state import TopState
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
        self._group: asyncio.TaskGroup | None = None  # of what goes on meanwhile

    async def run(self) -> None:
        """Draw, read events and keys."""
        console = Console()
        loop = asyncio.get_running_loop()
        with _keys_at_once(), Live(
            console=console, screen=True, auto_refresh=False
        ) as live:
            loop.add_reader(sys.stdin.fileno(), self._read_keys)
            try:
                async with asyncio.TaskGroup() as self._group:
                    group = self._group
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
            return
        state.message = ""
        if state.timeline:
            state.turn(key)
        elif key == "q":
            self._over.set()
        elif key in "jk":
            state.move(1 if key == "j" else -1, time.monotonic())
        elif key == "s":
            state.next_sort()
        elif key == "/":
            self._type("filter: ", self._filter)
        elif key == "p":
            self._choose_account()
        elif key == "e" and (chosen := state.chosen(time.monotonic())):
            self._confirm(f"end {chosen}?", lambda: self._end(chosen))
        elif key == "t" and (chosen := state.chosen(time.monotonic())):
            self._do(lambda: self._open_timeline(chosen))

    def _type(self, prompt: str, take: Callable[[str | None], None]) -> None:
        """Have a line typed; *take* gets it, or None after Escape."""
        typed = ""

        def typing(key: str) -> None:
            nonlocal typed
            if key in "\r\n\x1b":
                self._ask, self._state.message = None, ""
                take(None if key == "\x1b" else typed)
                return
            typed = typed[:-1] if key == "\x7f" else typed + key
            self._state.message = prompt + typed

        self._state.message, self._ask = prompt, typing

    def _filter(self, typed: str | None) -> None:
        self._state.filter = typed or ""

    def _confirm(self, question: str, action: Callable[[], str]) -> None:
        def answered(key: str) -> None:
            self._ask, self._state.message = None, ""
            if key == "y":
                self._do(action)

        self._state.message, self._ask = f"{question} y/n", answered

    def _choose_account(self) -> None:
        """Pause or resume the selected request's account, or one that is typed."""
        row = self._state.requests.get(self._state.selected, {})
        name = str(row.get("account") or "")
        if name in self._state.accounts:
            self._confirm_pause(name)
        else:
            self._type("account (its first letters will do): ", self._confirm_pause)

    def _confirm_pause(self, typed: str | None) -> None:
        found = [one for one in self._state.accounts if one.startswith(typed or "\0")]
        found = [typed] if typed in found else found
        if not typed:
            return
        if len(found) != 1:
            number = "several accounts begin" if found else "no account begins"
            self._state.message = f"{number} with {typed}"
            return
        [name] = found
        paused = self._state.accounts[name]["state"] == "paused"
        word = "resume" if paused else "pause"
        self._confirm(f"{word} {name}?", lambda: self._act(name, word))

    # --- actions, in threads: a daemon that hangs does not stop the screen --------

    def _do(self, action: Callable[[], str]) -> None:
        async def doing() -> None:
            try:
                self._state.message = await asyncio.to_thread(action)
            except (CommandError, LookupError) as error:
                self._state.message = str(error)
            self._changed.set()

        self._state.message = "…"
        if (group := self._group) is not None:
            group.create_task(doing())

    def _end(self, ident: str) -> str:
        self._client.ask("DELETE", f"/requests/{part(ident)}")
        return "ended"

    def _act(self, account: str, word: str) -> str:
        answer: Any = self._client.ask("POST", f"/accounts/{part(account)}/{word}")
        return f"{account} is {answer['state']}"

    def _open_timeline(self, ident: str) -> str:
        from gateway.commands.top_timeline import timeline_lines

        self._state.open(
            timeline_lines(self._client.ask("GET", f"/requests/{part(ident)}"))
        )
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
