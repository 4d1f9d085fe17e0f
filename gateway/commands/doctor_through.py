"""
A slow stream of the trial account, measured through a web server.

It costs nothing: the trial account is inside the gateway.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from urllib.parse import urlsplit

from gateway.commands.doctor_facts import ThroughFacts
from gateway.commands.doctor_gather import http_skew_s

MODEL = "trial-slow"
PROMPT = " ".join(f"word{number}" for number in range(60))
TIMEOUT_S = 30.0  # of silence
MAX_BYTES = 1 << 20
TERMINAL = b"event: response.completed"


def measure(url: str, key: str) -> ThroughFacts:
    """
    Ask for a stream at *url*, with and without ``/v1``, and note when each piece came.

    Args:
        key: of a user.
    """
    if not key:
        return ThroughFacts(
            url, "GATEWAY_API_KEY is not set, so no stream was measured"
        )
    try:
        return _measured(url, key)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        return ThroughFacts(url, f"it cannot be asked: {reason}")


def _measured(url: str, key: str) -> ThroughFacts:
    connection, path = _connection(url)
    body = json.dumps({"model": MODEL, "input": PROMPT, "stream": True})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    began = time.monotonic()
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        skew_s = http_skew_s(response.getheader("Date", ""))
        server = response.getheader("Server", "")
        if response.status != 200:
            return ThroughFacts(url, status=response.status, server=server)
        pieces, whole = _pieces(response)
    finally:
        connection.close()
    times = [at for at, _ in pieces]
    data = b"".join(piece for _, piece in pieces)
    return ThroughFacts(
        url,
        events=data.count(b"\n\n"),
        arrivals=len(pieces),
        gap_s=max((b - a for a, b in zip([began, *times], times)), default=0.0),
        seconds=time.monotonic() - began,
        whole=whole and TERMINAL in data,
        server=server,
        skew_s=skew_s,
    )


def _pieces(
    response: http.client.HTTPResponse,
) -> tuple[list[tuple[float, bytes]], bool]:
    """What came, each with its moment; False if it broke off."""
    pieces: list[tuple[float, bytes]] = []
    size = 0
    try:
        while piece := response.read1(1 << 16):
            pieces.append((time.monotonic(), piece))
            size += len(piece)
            if size > MAX_BYTES:
                return pieces, False
    except (OSError, http.client.HTTPException):
        return pieces, False
    return pieces, True


def _connection(url: str) -> tuple[http.client.HTTPConnection, str]:
    """
    A connection to *url*, and the path of the stream.

    Raises:
        ValueError: it is no http address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be http://HOST… or https://HOST…")
    path = parts.path.rstrip("/").removesuffix("/v1") + "/v1/responses"
    if parts.scheme == "http":
        return (
            http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S),
            path,
        )
    context = ssl.create_default_context()
    return (
        http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=TIMEOUT_S, context=context
        ),
        path,
    )
