"""
What an upstream can do to a request, well and badly.

A play is a function of one ``Exchange``. *deltas* says how far the answer goes before
the bad thing happens: None, not even its head; -1, the head alone; 0, the preamble;
n, that many pieces of output.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.kit import answers, seen
from tests.kit.answer import Answer, event
from tests.kit.scripted import Exchange, Play


async def begin(
    exchange: Exchange, deltas: int | None, answer: Answer | None = None
) -> None:
    """Write the answer as far as *deltas* says."""
    if deltas is None:
        return
    await exchange.head()
    request = exchange.request
    if deltas >= 0:
        stream = answers.stream(request.protocol, answer or Answer(), request.json)
        await exchange.send(b"".join(stream.begun(deltas)))


async def begun(exchange: Exchange, deltas: int | None) -> None:
    """As ``begin``; what there is of output has reached the client."""
    await begin(exchange, deltas)
    request = exchange.request
    if deltas and deltas > 0 and request.json.get("stream"):
        await seen.output(request.headers.get("x-request-id", ""))


def ok(
    answer: Answer | None = None,
    *,
    interval_s: float = 0.0,
    head_after_s: float = 0.0,
    headers: dict[str, str] | None = None,
) -> Play:
    """A whole answer, as a stream or a body; *interval_s* before each delta."""

    async def play(exchange: Exchange) -> None:
        said, request = answer or Answer(), exchange.request
        await asyncio.sleep(head_after_s)
        if not request.json.get("stream"):
            await asyncio.sleep(interval_s * len(said.pieces))
            body = answers.body(request.protocol, said, request.json)
            return await exchange.reply(200, json.dumps(body).encode(), headers)
        stream = answers.stream(request.protocol, said, request.json)
        await exchange.head(200, headers)
        await exchange.send(b"".join(stream.preamble))
        for delta in stream.deltas:
            await asyncio.sleep(interval_s)
            await exchange.send(delta)
        await exchange.send(b"".join(stream.tail))
        await exchange.end()

    return play


def shaped(
    answer: Answer | None = None,
    *,
    line_end: bytes = b"\n",
    chunk: int = 0,
    last_blank_line: bool = True,
) -> Play:
    """A whole stream in an odd but legal shape; *chunk* bytes a write, 0 = one."""

    async def play(exchange: Exchange) -> None:
        request = exchange.request
        stream = answers.stream(request.protocol, answer or Answer(), request.json)
        data = b"".join(stream.whole())
        if not last_blank_line:
            data = data[:-1]
        data = data.replace(b"\n", line_end)
        await exchange.head()
        size = chunk or len(data)
        for start in range(0, len(data), size):
            await exchange.send(data[start : start + size])
            await asyncio.sleep(0)
        await exchange.end()

    return play


def raw(
    data: bytes, content_type: str = "text/event-stream", *, deltas: int = -1
) -> Play:
    """Exactly these bytes as the body of a 200, behind *deltas*."""

    async def play(exchange: Exchange) -> None:
        if deltas >= 0:
            await begin(exchange, deltas)
        else:
            await exchange.head(200, {"content-type": content_type})
        if data:
            await exchange.send(data)
        await exchange.end()

    return play


def status(
    code: int,
    body: dict[str, Any] | str | None = None,
    headers: dict[str, str] | None = None,
    *,
    after_s: float = 0.0,
) -> Play:
    """An HTTP error; without *body* the usual one of the protocol."""

    async def play(exchange: Exchange) -> None:
        await asyncio.sleep(after_s)
        said = error_body(exchange.request.protocol, code) if body is None else body
        data = said if isinstance(said, str) else json.dumps(said)
        kind = "text/html" if isinstance(said, str) else "application/json"
        await exchange.reply(code, data.encode(), {"content-type": kind, **headers_})

    headers_ = headers or {}
    return play


def error_body(protocol: str, code: int) -> dict[str, Any]:
    """The error body of an upstream of this protocol."""
    kind = "invalid_request_error" if code < 429 else "api_error"
    error: dict[str, Any] = {"type": kind, "message": f"upstream says {code}"}
    if protocol == "messages":
        return {"type": "error", "error": error, "request_id": "req_up"}
    return {"error": {**error, "param": None, "code": None}}


FAILURES = {
    "responses": ("response.failed", "error", "flat"),
    "chat": ("error", "named"),
    "messages": ("error", "unnamed"),
}


def failure(protocol: str, code: str, message: str = "boom", form: str = "") -> bytes:
    """An upstream's own failure inside a 200 stream, in one of its forms."""
    form = form or FAILURES[protocol][0]
    error: dict[str, Any] = {"code": code, "message": message}
    if protocol == "responses" and form == "response.failed":
        response = {"id": "resp_up", "object": "response", "status": "failed"}
        data: dict[str, Any] = {**response, "output": [], "error": error}
        return event({"type": form, "sequence_number": 9, "response": data}, form)
    if protocol == "responses" and form == "flat":
        return event({"type": "error", "sequence_number": 9, **error}, "error")
    error = {"type": code, "message": message}
    if protocol != "messages":
        error |= {"param": None, "code": code}
    if protocol == "chat":
        return event({"error": error}, "error" if form == "named" else "")
    data = {"type": "error", "error": error}
    return event(data, "" if form == "unnamed" else "error")


def failed(
    code: str, message: str = "boom", *, form: str = "", deltas: int = -1
) -> Play:
    """200, then the upstream's own failure."""

    async def play(exchange: Exchange) -> None:
        await begun(exchange, deltas)
        name = exchange.request.protocol
        await exchange.send(failure(name, code, message, form))
        await exchange.end()

    return play


def failed_at_once(code: str, deltas: int = 2) -> Play:
    """The same in one piece, so that nothing of it needs to reach the client."""

    async def play(exchange: Exchange) -> None:
        await exchange.head(200, {"x-codex-plan-type": "of-the-first"})
        request = exchange.request
        stream = answers.stream(request.protocol, Answer(), request.json)
        said = [*stream.begun(deltas), failure(request.protocol, code)]
        await exchange.send(b"".join(said))
        await exchange.end()

    return play


def eof(deltas: int | None) -> Play:
    """The body ends too early, in good form (None: no head, only FIN)."""

    async def play(exchange: Exchange) -> None:
        await begun(exchange, deltas)
        if deltas is None:
            exchange.close()
        else:
            await exchange.end()

    return play


def cut(deltas: int | None) -> Play:
    """FIN without the last chunk."""

    async def play(exchange: Exchange) -> None:
        await begun(exchange, deltas)
        exchange.close()

    return play


def reset(deltas: int | None) -> Play:
    """RST, once what was written has left."""

    async def play(exchange: Exchange) -> None:
        await begun(exchange, deltas)
        await asyncio.sleep(0.05)  # RST would overtake what the peer has not read
        exchange.reset()

    return play


def half_event(deltas: int, *, broken: bool = False) -> Play:
    """Half of the next event, then the end of the body (*broken*: FIN)."""

    async def play(exchange: Exchange) -> None:
        await begun(exchange, deltas)
        request = exchange.request
        stream = answers.stream(request.protocol, Answer(), request.json)
        upcoming = (stream.whole())[len(stream.preamble) + max(deltas, 0)]
        await exchange.send(upcoming[: len(upcoming) // 2])
        if broken:
            exchange.close()
        else:
            await exchange.end()

    return play


def silence(deltas: int | None) -> Play:
    """Nothing more, until the other side hangs up."""

    async def play(exchange: Exchange) -> None:
        await begin(exchange, deltas)
        await asyncio.Event().wait()

    return play


def held(gate: asyncio.Event, deltas: int = 1, answer: Answer | None = None) -> Play:
    """An answer that stops after *deltas* until the test opens *gate*."""

    async def play(exchange: Exchange) -> None:
        said, request = answer or Answer(), exchange.request
        if not request.json.get("stream"):
            await gate.wait()
            body = answers.body(request.protocol, said, request.json)
            return await exchange.reply(200, json.dumps(body).encode())
        await begin(exchange, deltas, said)
        await gate.wait()
        whole = answers.stream(request.protocol, said, request.json)
        rest = whole.deltas[max(deltas, 0) :] + whole.tail
        if deltas < 0:
            rest = whole.preamble + rest
        await exchange.send(b"".join(rest))
        await exchange.end()

    return play


def trickle(interval_s: float = 1.0) -> Play:
    """A correct stream at one byte every *interval_s*."""

    async def play(exchange: Exchange) -> None:
        request = exchange.request
        await exchange.head()
        for byte in b"".join(
            answers.stream(request.protocol, Answer(), request.json).whole()
        ):
            await exchange.send(bytes([byte]))
            await asyncio.sleep(interval_s)
        await exchange.end()

    return play


def flood(piece_bytes: int = 64 * 1024, pieces: int = 100_000) -> Play:
    """Output as fast as it is taken, far more than anybody may buffer."""

    async def play(exchange: Exchange) -> None:
        answer = Answer(pieces=("x" * piece_bytes,))
        await begin(exchange, 0, answer)
        request = exchange.request
        delta = answers.stream(request.protocol, answer, request.json).deltas[0]
        for _ in range(pieces):
            await exchange.send(delta)
        await exchange.end()

    return play


HTML = raw(b"<!doctype html><title>Bad gateway</title>", "text/html; charset=utf-8")
EMPTY = raw(b"")
JSON_FOR_SSE = raw(b'{"hello":"this is no stream"}', "application/json")
