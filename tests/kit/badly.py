"""Requests that a decent client would not send."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.kit.asking import PATHS, question
from tests.kit.gateway import Gateway
from tests.kit.settings import key_of

MAX_BODY_BYTES = 1_000_000


def wrong(protocol: str, **fields: Any) -> bytes:
    body = {**question(protocol, f"{protocol}-x"), **fields}
    return json.dumps({k: v for k, v in body.items() if v is not ...}).encode()


async def connect(
    gateway: Gateway,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gateway.base_url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def raw_head(
    protocol: str, gateway: Gateway, lines: str, request_id: str = "raw-request-id"
) -> bytes:
    return (
        f"POST {PATHS[protocol]} HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {key_of('alice')}\r\n"
        f"x-request-id: {request_id}\r\n{lines}\r\n\r\n"
    ).encode()
