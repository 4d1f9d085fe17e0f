"""A reader of the admin API's event stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.kit.admin import AdminClient


class Events:
    """A reader of the stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self.first_id = self.last_id = ""

    async def next(self, kind: str, **facts: object) -> dict[str, Any]:
        """The next event of this kind that says all of *facts*."""
        async with asyncio.timeout(10):
            while True:
                frame = (await self._content.readuntil(b"\n\n")).decode()
                fields = dict(
                    line.split(": ", 1) for line in frame.splitlines() if line
                )
                if "event" not in fields:
                    continue
                self.last_id = fields["id"]
                self.first_id = self.first_id or self.last_id
                data = json.loads(fields["data"])
                if fields["event"] == kind and facts.items() <= data.items():
                    found: dict[str, Any] = data
                    return found


@asynccontextmanager
async def reading(operator: AdminClient, last_id: str = "") -> AsyncIterator[Events]:
    url = f"{operator.base_url}/api/v1/events"
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with operator.session.get(url, headers=headers) as response:
        assert 200 == response.status
        assert "text/event-stream" == response.content_type
        yield Events(response)
