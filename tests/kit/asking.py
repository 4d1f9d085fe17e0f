"""
A plain client: asks one of the three protocols and keeps everything it receives.

It understands nothing of what it reads beyond the frames of the event stream, so that
a test sees what was really sent.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.kit import seen

PATHS = {
    "responses": "/v1/responses",
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
}
LAST_EVENT = {
    "responses": "response.completed",
    "chat": "[DONE]",
    "messages": "message_stop",
}


@dataclass
class Reply:
    """What came back; times are monotonic seconds."""

    status: int
    headers: dict[str, str]  # names in lower case
    asked_at: float
    body: bytes = b""
    ended_at: float = 0.0
    broken: bool = False  # the connection broke before the body was complete

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def frames(self) -> list[bytes]:
        """The frames of the stream with their blank line; the last may lack it."""
        text = self.body.replace(b"\r\n", b"\n")
        return [f + b"\n\n" for f in text.split(b"\n\n") if f]

    @property
    def events(self) -> list[Event]:
        """Everything in the stream that has data."""
        return [e for frame in self.frames if (e := read_event(frame)).data]

    @property
    def comments(self) -> list[bytes]:
        return [f.strip() for f in self.frames if f.startswith(b":")]

    @property
    def queued(self) -> list[bytes]:
        """The comments that tell of a wait for a slot."""
        return [one for one in self.comments if one.startswith(b": queued")]

    @property
    def last(self) -> Event:
        return self.events[-1]

    @property
    def text(self) -> str:
        """The words of the answer, whichever protocol it is."""
        return "".join(_words(e.json) for e in self.events if e.data != "[DONE]")


@dataclass(frozen=True)
class Event:
    """One event as the standard reads it."""

    name: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def kind(self) -> str:
        """Its type, wherever this protocol says it."""
        if self.data == "[DONE]":
            return self.data
        value = self.json
        return str(value.get("type") or ("error" if "error" in value else "chunk"))


def read_event(frame: bytes) -> Event:
    """Read one frame: its name and its data lines."""
    name, data = "", []
    for line in frame.decode().split("\n"):
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    return Event(name, "\n".join(data))


def _words(data: dict[str, Any]) -> str:
    if data.get("type") == "response.output_text.delta":
        return str(data["delta"])
    if data.get("type") == "content_block_delta":
        return str(data["delta"].get("text", ""))
    words = ""
    for choice in data.get("choices") or []:
        words += (choice.get("delta") or {}).get("content") or ""
    return words


def question(protocol: str, model: str, stream: bool = True) -> dict[str, Any]:
    """The least that is a request of this protocol."""
    said = [{"role": "user", "content": "say something"}]
    body: dict[str, Any] = {"model": model, "stream": stream}
    if protocol == "responses":
        return {**body, "input": "say something"}
    if protocol == "messages":
        return {**body, "max_tokens": 100, "messages": said}
    return {**body, "messages": said}


@dataclass
class Client:
    """Asks the gateway at *base_url* with *key*; keeps the ids of what it asked."""

    base_url: str
    key: str
    session: aiohttp.ClientSession
    asked: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def open(
        self,
        protocol: str,
        model: str,
        *,
        stream: bool = True,
        headers: dict[str, str] | None = None,
        key: str | None = None,
        **extra: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response as soon as its head is here; leaving the block hangs up."""
        fields = {"x-request-id": str(uuid.uuid4()), **(headers or {})}
        if "authorization" not in fields:
            fields["authorization"] = f"Bearer {self.key if key is None else key}"
        if protocol == "messages":
            fields.setdefault("anthropic-version", "2023-06-01")
        body = {**question(protocol, model, stream), **extra}
        self.asked.append(fields["x-request-id"])
        url = self.base_url + PATHS[protocol]
        async with self.session.post(url, json=body, headers=fields) as response:
            yield response

    async def ask(self, protocol: str, model: str, **options: Any) -> Reply:
        """The whole reply, broken or not."""
        headers = {"x-request-id": str(uuid.uuid4()), **(options.pop("headers", {}))}
        asked_at = time.monotonic()
        with seen.expected(headers["x-request-id"]):
            async with self.open(
                protocol, model, headers=headers, **options
            ) as response:
                return await read_reply(response, asked_at)

    async def send(
        self,
        path: str,
        data: Any = None,
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Any request with any body; says who it is unless *headers* do."""
        fields = {"x-request-id": str(uuid.uuid4()), **(headers or {})}
        fields.setdefault("authorization", f"Bearer {self.key}")
        if method == "POST" and path.partition("?")[0] in PATHS.values():
            self.asked.append(fields["x-request-id"])
        asked_at = time.monotonic()
        url = self.base_url + path
        async with self.session.request(
            method, url, data=data, headers=fields
        ) as response:
            return await read_reply(response, asked_at)


async def read_reply(response: aiohttp.ClientResponse, asked_at: float) -> Reply:
    """Read *response* to its end, however that looks."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    reply = Reply(response.status, headers, asked_at)
    request_id = response.request_info.headers.get("x-request-id", "")
    try:
        while part := await response.content.readany():
            reply.body += part
            seen.noticed(request_id, part)
    except aiohttp.ClientError:
        reply.broken = True
    reply.ended_at = time.monotonic()
    return reply


def dechunked(data: bytes) -> tuple[bytes, bytes, bool]:
    """
    The whole events of a chunked body, what is behind its last chunk, and whether that
    has come.
    """
    body, at = [], 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        if not size:
            return b"".join(body), data[end + 4 :], True
        body.append(data[end + 2 : end + 2 + size])
        at = end + 4 + size
    joined = b"".join(body)
    return joined[: joined.rfind(b"\n\n") + 2], b"", False
