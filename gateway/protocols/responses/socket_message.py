"""
What a server says over a websocket: the events of a stream, one in each message.

    message  {"type":"response.created",…}
    event    event: response.created\\ndata: {"type":"response.created",…}\\n\\n

An ``error`` message may hold the HTTP status and the headers that the same refusal
would have over HTTP.

Source: the OpenAI API reference (WebSocket mode), and Codex CLI 0.171.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

from gateway.protocols.json_access import objects, read_object, sub

ERROR = b"error"
METADATA = b"response.metadata"
COMPLETED = b"response.completed"
ITEM_DONE = b"response.output_item.done"
TERMINALS = frozenset(
    (COMPLETED, b"response.incomplete", b"response.failed", b"response.cancelled")
)

LIFECYCLE = frozenset(
    (b"response.created", b"response.in_progress", b"response.queued")
)
"""They say that the answer has begun, and no more."""

TELLING = TERMINALS | {ERROR, ITEM_DONE}
"""What says something of an answer that runs."""

PLAIN_HEAD = b'{"type":"'
"""How nearly every message begins; its type follows."""

SOCKET_IS_OLD = "websocket_connection_limit_reached"
NO_SUCH_RESPONSE = "previous_response_not_found"

_TYPE = re.compile(rb'\{"type": ?"([\w.]{1,80})"[,}]')
_LINE_END = re.compile(rb"\r\n|\r|\n")
_MAX_HEADERS = 64
_OWN_FAMILY = ("x-", "openai-")


def type_of(message: bytes) -> bytes:
    """The type of a message; ``b""`` if it has none."""
    if found := _TYPE.match(message):
        return found[1]
    kind = read_object(message).get("type")
    return kind.encode() if isinstance(kind, str) and _is_plain(kind) else b""


def event_of(message: bytes, kind: bytes) -> bytes:
    """The event of a stream that says what *message* of the type *kind* says."""
    if b"\n" in message or b"\r" in message:
        message = _LINE_END.sub(b"\ndata: ", message)
    if not kind:
        return b"data: %b\n\n" % message
    return b"event: %b\ndata: %b\n\n" % (kind, message)


def is_text(message: bytes) -> bool:
    """Whether *message* is UTF-8."""
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_harmless(message: bytes) -> bool:
    """Whether a *message* between two answers can be ignored: quotas, timings."""
    kind = type_of(message)
    return kind == METADATA or not (kind == ERROR or kind.startswith(b"response."))


def metadata_headers(message: bytes) -> dict[str, str]:
    """The headers in a message of the type ``response.metadata``."""
    headers = _headers(read_object(message).get("headers"))
    return {
        name: value
        for name, value in headers.items()
        if name.lower().startswith(_OWN_FAMILY)
    }


class SocketError(NamedTuple):
    """
    An ``error`` message, read.

    Attributes:
        status: as over HTTP; 0 if it names none.
        body: what an HTTP answer of that status would hold.
    """

    status: int
    code: str
    headers: dict[str, str]
    body: bytes


def read_error(message: bytes) -> SocketError:
    """The refusal that an ``error`` message states."""
    data = read_object(message)
    error = sub(data, "error")
    if not error:
        around = ("type", "status", "status_code", "headers", "sequence_number")
        error = {name: value for name, value in data.items() if name not in around}
        error.setdefault("type", "error")
    code = error.get("code")
    headers = _headers(data.get("headers")) or _headers(error.get("headers"))
    status = _status(data) or (400 if code == NO_SUCH_RESPONSE else 0)
    word = code if isinstance(code, str) else ""
    return SocketError(status, word, headers, orjson.dumps({"error": error}))


def error_message(status: int, headers: dict[str, str], body: bytes) -> bytes:
    """A refusal over HTTP as an ``error`` message."""
    error = sub(read_object(body), "error") or {"message": f"HTTP {status}"}
    return orjson.dumps(
        {"type": "error", "status": status, "headers": headers, "error": error}
    )


def whole_answer(terminal: bytes, done: list[bytes]) -> bytes:
    """
    The answer that a terminal message ends, as HTTP gives it without a stream.

    Args:
        done: the messages of the items that were finished, for a server that does not
            repeat them at the end.
    """
    response = sub(read_object(terminal), "response")
    if not response.get("output") and done:
        response = {**response, "output": done_items(done)}
    return orjson.dumps(response)


def ident_and_outputs(
    terminal: bytes, done: list[bytes]
) -> tuple[str, list[dict[str, Any]]]:
    """The id of the answer that a terminal message ends; items as ``whole_answer``."""
    response = sub(read_object(terminal), "response")
    ident = response.get("id")
    items = list(objects(response.get("output"))) or done_items(done)
    return ident if isinstance(ident, str) else "", items


def done_items(done: list[bytes]) -> list[dict[str, Any]]:
    """The items in messages of the type ``response.output_item.done``."""
    return [item for one in done if (item := sub(read_object(one), "item"))]


def _status(data: dict[str, Any]) -> int:
    for name in ("status", "status_code"):
        status = data.get(name)
        if isinstance(status, int) and 400 <= status <= 599:
            return status
    return 0


def _headers(given: object) -> dict[str, str]:
    if not isinstance(given, dict):
        return {}
    pairs = [
        (str(name), str(value))
        for name, value in given.items()
        if isinstance(value, str | int | float) and _is_plain(f"{name}{value}")
    ]
    return dict(pairs[:_MAX_HEADERS])


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
