"""One request as a scripted upstream received it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from backports import zstd

PATHS = {
    "/responses": "responses",
    "/chat/completions": "chat",
    "/messages": "messages",
}


@dataclass
class Received:
    """One request as it arrived; times are monotonic seconds."""

    account: str
    method: str
    path: str  # without the account
    query: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    at: float
    sent_bytes: int = 0
    closed_at: float | None = None  # when the play or the connection was over
    cut_by_client: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def protocol(self) -> str:
        return PATHS.get(self.path.removeprefix("/v1"), "")

    @property
    def json(self) -> dict[str, Any]:
        data = self.body
        if self.headers.get("content-encoding") == "zstd":
            data = zstd.decompress(data)
        try:
            value = json.loads(data)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def model(self) -> str:
        return str(self.json.get("model", ""))

    @property
    def key(self) -> str:
        """The credential that the gateway sent."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer or self.headers.get("x-api-key", "")


def missing(data: bytearray) -> int:
    """How many bytes the request that *data* begins with still lacks, at least."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 1
    for line in bytes(data[:end]).lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return max(0, end + 4 + int(line[15:]) - len(data))
    return 0


def parse_request(data: bytes) -> tuple[Received | None, bytes]:
    """The first whole request in *data*, and what follows it."""
    head, blank, rest = data.partition(b"\r\n\r\n")
    if not blank:
        return None, data
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.lower(): value.strip() for name, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body, rest, whole = _dechunk(rest)
    else:
        length = int(headers.get("content-length", 0))
        body, rest, whole = rest[:length], rest[length:], len(rest) >= length
    if not whole:
        return None, data
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    _, account, path = path.split("/", 2)
    now = time.monotonic()
    return Received(account, method, f"/{path}", query, headers, body, now), rest


def _dechunk(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while True:
        size, found, data = data.partition(b"\r\n")
        if not found:
            return b"", b"", False
        length = int(size, 16)
        if len(data) < length + 2:
            return b"", b"", False
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body, data, True
