"""A browser without a script: it follows links, sends forms, and keeps cookies."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any

import aiohttp
from yarl import URL

from tests.kit import settings
from tests.kit.admin import over_tcp
from tests.kit.gateway import Gateway


@dataclass
class Seen:
    """
    What a browser got.

    Attributes:
        url: the last address, after redirects.
    """

    status: int
    url: URL
    html: str
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        """What can be read of it, in one line."""
        body = re.sub(r"(?s)<(script|svg|title)\b.*?</\1>", " ", self.html)
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


@dataclass
class PlainBrowser:
    """A browser at *base_url*."""

    session: aiohttp.ClientSession
    base_url: str

    async def open(self, path: str, **options: Any) -> Seen:
        """The page at *path*."""
        return await self._ask("GET", path, **options)

    async def send(self, path: str, _headers: Any = None, **fields: str) -> Seen:
        """A form of the page itself, sent to *path*."""
        headers = {"Origin": self.base_url, **(_headers or {})}
        return await self._ask("POST", path, data=fields, headers=headers)

    async def log_in(self, token: str = settings.ADMIN_TOKEN) -> Seen:
        """What follows the log-in form."""
        return await self.send("/login", token=token)

    async def _ask(self, method: str, path: str, **options: Any) -> Seen:
        url = self.base_url + path
        async with self.session.request(method, url, **options) as response:
            html = await response.text()
            return Seen(response.status, response.url, html, response.headers)


@asynccontextmanager
async def plain_browser(
    gateway: Gateway, *, logged_in: bool = True
) -> AsyncIterator[PlainBrowser]:
    """A browser at the page of *gateway*."""
    jar = aiohttp.CookieJar(unsafe=True)  # of an IP address, too
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        browser = PlainBrowser(session, over_tcp(gateway).base_url)
        if logged_in:
            await browser.log_in()
        yield browser
