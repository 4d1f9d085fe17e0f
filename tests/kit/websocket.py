"""
A plain client of the websocket transport: sends messages, keeps every frame.

It is made of the ``websockets`` library, so that what the gateway writes is read by a
grammar that is not its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.kit.gateway import Gateway
from tests.kit.settings import key_of

ENDINGS = (
    *("response.completed", "response.incomplete", "response.failed", "error"),
    "response.cancelled",
)
CODEX = {"user-agent": "codex_cli_rs/0.171.0", "originator": "codex_cli_rs"}
CREATE = {"type": "response.create", "model": "responses-a", "store": False}
TIMEOUT_S = 10.0

Frame = dict[str, Any]


@dataclass
class Turn:
    """What came of one response, up to its ending."""

    frames: list[Frame] = field(default_factory=list)

    @property
    def last(self) -> Frame:
        return self.frames[-1]

    @property
    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    @property
    def id(self) -> str:
        return str(self.last["response"]["id"])

    @property
    def error(self) -> Frame:
        error: Frame = self.last["error"]
        return error

    @property
    def request_id(self) -> str:
        """Of a failure: its message names it."""
        message = str(self.error["message"])
        return message.rpartition("(request id: ")[2].rstrip(")")

    @property
    def text(self) -> str:
        deltas = [f for f in self.frames if f["type"] == "response.output_text.delta"]
        return "".join(frame["delta"] for frame in deltas)


class Socket:
    """One websocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    @property
    def headers(self) -> dict[str, str]:
        """Those of the 101, by their names in lower case."""
        response = self.connection.response
        assert response
        return {name.lower(): value for name, value in response.headers.raw_items()}

    @property
    def id(self) -> str:
        return self.headers["x-request-id"]

    async def send(self, message: Frame | str | bytes) -> None:
        text = json.dumps(message) if isinstance(message, dict) else message
        await self.connection.send(text)

    async def create(self, **fields: Any) -> None:
        """Ask for a response, and do not wait for it."""
        await self.send({**CREATE, **fields})

    async def frame(self) -> Frame:
        async with asyncio.timeout(TIMEOUT_S):
            text = await self.connection.recv()
        assert isinstance(text, str)
        frame = json.loads(text)
        assert isinstance(frame, dict)
        return frame

    async def frame_of(self, lane: str) -> Frame:
        """The next frame of a lane; those of others are passed over."""
        while True:
            frame = await self.frame()
            if frame.get("stream_id", "") == lane:
                return frame

    async def turn_of_any(self, **fields: Any) -> Turn:
        """As ``turn``, whatever lane the next frames name."""
        await self.create(**fields)
        return Turn([await self.frame()])

    async def rest(self, lane: str = "") -> Turn:
        """Frames up to the next ending; with *lane*, that of the lane."""
        turn = Turn()
        while True:
            frame = await self.frame()
            if frame.get("stream_id", "") != lane:
                continue
            turn.frames.append(frame)
            if frame["type"] in ENDINGS:
                return turn

    async def turn(self, **fields: Any) -> Turn:
        """Ask for a response and wait for its ending."""
        await self.create(**fields)
        return await self.rest(fields.get("stream_id", ""))

    async def closed(self) -> int:
        """The code that the gateway closes it with; no frame may come before."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                frame = await self.connection.recv()
        except ConnectionClosed:
            code = self.connection.close_code
            assert code is not None
            return code
        raise AssertionError(frame)


@asynccontextmanager
async def socket(
    gateway: Gateway,
    user: str = "alice",
    *,
    path: str = "/v1/responses",
    headers: dict[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[Socket]:
    """A websocket of *user* for the duration of the block."""
    fields = {"authorization": f"Bearer {key_of(user)}", **(headers or {})}
    agent = fields.pop("user-agent", "test")
    url = gateway.base_url.replace("http", "ws") + path
    options = {"max_size": None, "ping_interval": None, "proxy": None, **options}
    async with connect(
        url, additional_headers=fields, user_agent_header=agent, **options
    ) as connection:
        yield Socket(connection)
