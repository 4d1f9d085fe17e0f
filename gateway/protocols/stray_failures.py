"""
A failure that comes in another form than the protocol has for it.

``NonStreamBody`` reads JSON where a stream should be; ``stray`` reads an event that is
none of the protocol's own.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.errors import UpstreamError
from gateway.protocols.failure_forms import failure_in
from gateway.protocols.json_access import read_json
from gateway.protocols.protocol import Ending
from gateway.protocols.sse import Needle

NO_STREAM = (b"<", b"{", b"[")  # what HTML or JSON begins with
MAX_MISPLACED_BYTES = 64 * 1024  # of JSON that is read for its meaning
MAX_TRIES = 16  # at reading it before its end; each costs a parse

# What an event begins with that is none of the protocol's, as needles: see ``Wire``.
STRAYS: tuple[Needle, ...] = (
    re.compile(rb"event: ?error"),
    re.compile(
        rb'data: ?(?:"|\[\{|\{ ?"object": ?"error"|\{ ?"(?:ok|code|msg|message|detail'
        rb"|errors|success|status|status_code|statusCode|base_resp|error_code|__type"
        rb'|request_id|\w+Exception)")'
    ),
)


def stray(event: bytes, raw: bytes, document: dict[str, Any]) -> dict[str, Any] | None:
    """
    The failure that an event states in a form that is not the protocol's; None if it
    states none.

    Args:
        event: its frame.
        raw: its data.
        document: *raw* as an object, empty for anything else.
    """
    if document:
        found = failure_in(document)
    else:
        found = failure_in(read_json(raw)) if raw[:1] in (b"[", b'"') else None
    if found is not None or STRAYS[0].search(event) is None:
        return found
    return document or {"error": raw.decode("utf-8", "replace") or "no words"}


class NonStreamBody:
    """JSON or a web page where a stream should be; see ``NO_STREAM``."""

    def __init__(self) -> None:
        self._read = bytearray()
        self._tries = MAX_TRIES

    def take(self, chunk: bytes) -> Ending | None:
        """Take the next piece; what it means once that is clear."""
        self._read += chunk
        if self._read.lstrip()[:1] == b"<" or len(self._read) > MAX_MISPLACED_BYTES:
            return _malformed()
        if not self._tries or chunk.rstrip()[-1:] not in (b"}", b"]"):
            return None
        self._tries -= 1
        value = read_json(bytes(self._read))
        return None if value is None else _meant(value)

    def finish(self) -> Ending:
        """Nothing more comes."""
        return _meant(read_json(bytes(self._read)))


def _meant(value: Any) -> Ending:
    failure = failure_in(value)
    if failure is None:
        return _malformed()
    return Ending("failed", UpstreamError("upstream_failed"), failure)


def _malformed() -> Ending:
    return Ending("failed", UpstreamError("upstream_malformed"))
