"""
A real browser: Debian's Chromium, headless, one process for all tests of a session.

Each test connects to it by itself, since what Playwright holds belongs to one event
loop. Nothing leaves the machine: what a browser does besides is switched off.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--remote-debugging-port=0"),
)
SLOW_S = 20.0

needs_chromium = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason="Chromium is not installed: .ci/setup test"
)


@dataclass
class Window:
    """
    One window, with cookies of its own.

    Attributes:
        complaints: errors and warnings of its console, violations of the policy,
            failures of scripts, and requests to other places.
    """

    page: Page
    base_url: str
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str) -> None:
        """Go to *path* of the gateway's page."""
        await self.page.goto(self.base_url + path)

    async def log_in(self, token: str) -> None:
        """Type the token into the log-in form."""
        await self.open("/login")
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Log in").click()

    async def text(self) -> str:
        """What the page says, in one line."""
        return " ".join((await self.page.locator("body").inner_text()).split())

    async def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        script = "e => e.scrollWidth - e.clientWidth"
        root = self.page.locator("html")
        return int(await root.evaluate(script))

    def watch(self) -> None:
        """Collect what a user would not see."""
        page = self.page
        page.set_default_timeout(SLOW_S * 1000)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.base_url, "data:")):
            self.complaints.append(f"asked for {request.url}")


@contextmanager
def running_chromium() -> Iterator[str]:
    """The address at which Chromium takes orders."""
    folder = tempfile.mkdtemp(prefix="gateway-chromium-")
    process = subprocess.Popen(
        [CHROMIUM, *ARGUMENTS, f"--user-data-dir={folder}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield _address(process, Path(folder) / "DevToolsActivePort")
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(name="chromium", scope="session")
def chromium_fixture() -> Iterator[str]:
    """One Chromium for the whole session."""
    with running_chromium() as address:
        yield address


def _address(process: subprocess.Popen[bytes], written: Path) -> str:
    """Chromium writes its port into a file once it listens."""
    until = time.monotonic() + 2 * SLOW_S
    while time.monotonic() < until:
        assert process.poll() is None, "Chromium did not start"
        lines = written.read_text().split() if written.exists() else []
        if len(lines) == 2:
            return f"http://127.0.0.1:{lines[0]}"
        time.sleep(0.05)
    raise AssertionError("Chromium did not start in time")


@asynccontextmanager
async def windows(chromium: str) -> AsyncIterator[Any]:
    """Gives a function that opens a window: ``await new(base_url, width=…, …)``."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium)
        contexts = []

        async def new(
            base_url: str, width: int = 1200, height: int = 900, **options: Any
        ) -> Window:
            size = {"width": width, "height": height}
            context = await browser.new_context(viewport=size, **options)
            contexts.append(context)
            window = Window(await context.new_page(), base_url)
            window.watch()
            return window

        try:
            yield new
        finally:
            for context in contexts:
                await context.close()
            await browser.close()  # disconnects; the process goes on
            await asyncio.sleep(0)
