"""An operator's client of the admin API, over the unix socket and over TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.kit import settings
from tests.kit.gateway import Gateway

BEARER = {"Authorization": f"Bearer {settings.ADMIN_TOKEN}"}


@dataclass
class AdminReply:
    """What the API answered; *json* is None where that is no JSON."""

    status: int
    headers: Mapping[str, str]
    json: Any

    @property
    def code(self) -> str:
        """The code of a refusal."""
        return str(self.json["error"]["code"])


@dataclass
class AdminClient:
    """Asks the admin API at *base_url*."""

    session: aiohttp.ClientSession
    base_url: str
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, **options: Any) -> AdminReply:
        """One answer; *path* without ``/api/v1`` unless it begins with ``//``."""
        url = f"{self.base_url}/api/v1{path}"
        if path.startswith("//"):
            url = self.base_url + path[1:]
        options["headers"] = {**self.headers, **options.get("headers", {})}
        async with self.session.request(method, url, **options) as response:
            body = None
            if response.content_type == "application/json":
                body = await response.json()
            return AdminReply(response.status, response.headers, body)

    async def get(self, path: str, **options: Any) -> Any:
        """The JSON of what must be there."""
        reply = await self.ask("GET", path, **options)
        assert 200 == reply.status, reply.json
        return reply.json


@asynccontextmanager
async def over_unix(folder: Path) -> AsyncIterator[AdminClient]:
    """A client of the socket that every test config has."""
    connector = aiohttp.UnixConnector(str(folder / "admin.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield AdminClient(session, "http://localhost")


def over_tcp(gateway: Gateway, headers: dict[str, str] | None = None) -> AdminClient:
    """A client with the token, unless it has other *headers*."""
    addresses = gateway.inside.admin.addresses
    [address] = [one for one in addresses if not one.startswith("unix:")]
    given = dict(BEARER if headers is None else headers)
    return AdminClient(gateway.session, f"http://{address}", given)
