"""
A slow stream of the trial account, measured through a web server, and what else passes.

It costs nothing: the trial account is inside the gateway.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import ssl
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gateway.commands.doctor.facts import ThroughFacts
from gateway.commands.doctor.files import http_skew_s
from gateway.commands.doctor.inside import asked

MODEL = "trial-slow"
PROMPT = " ".join(f"word{number}" for number in range(40))
TIMEOUT_S = 30.0  # of silence
REFUSAL_S = 2.0  # for a web server to say that a body is too large
MAX_BYTES = 1 << 20
TERMINAL = b"event: response.completed"
OPERATORS_PATHS = ("/metrics", "/readyz")
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "Z2F0ZXdheS1kb2N0b3ItMQ==",
}

_CODE = re.compile(rb'"code"\s*:\s*"([a-z_]+)"')


class _WebServer(NamedTuple):
    """A web server before the gateway, and a user's key."""

    url: str
    key: str

    @property
    def prefix(self) -> str:
        """What comes before ``/v1`` in its paths."""
        return urlsplit(self.url).path.rstrip("/").removesuffix("/v1")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def connection(self, timeout_s: float = TIMEOUT_S) -> http.client.HTTPConnection:
        """
        A connection to it.

        Raises:
            ValueError: it is no http address.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must be http://HOST… or https://HOST…")
        if parts.scheme == "http":
            return http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=timeout_s
            )
        return http.client.HTTPSConnection(
            parts.hostname,
            parts.port,
            timeout=timeout_s,
            context=ssl.create_default_context(),
        )


def measure(
    url: str, key: str, listen: Sequence[str] = (), max_body_bytes: int = 0
) -> ThroughFacts:
    """
    Ask for a stream at *url*, with and without ``/v1``, and note when each piece came;
    then see what else the web server lets pass.

    Args:
        key: of a user.
        listen: of the gateway itself.
        max_body_bytes: that it accepts.
    """
    if not key:
        return ThroughFacts(
            url, "GATEWAY_API_KEY is not set, so no stream was measured"
        )
    place = _WebServer(url, key)
    with ThreadPoolExecutor() as pool:  # the stream takes the longest
        stream = pool.submit(_stream, place)
        limit = pool.submit(_body_limit, place, max_body_bytes - 1)
        upgrades = pool.submit(_upgrades, place)
        paths = [pool.submit(_is_open, place, one) for one in OPERATORS_PATHS]
        certificate_s = pool.submit(_certificate_s, place)
    try:
        seen = stream.result()
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        return ThroughFacts(url, f"it cannot be asked: {reason}")
    if seen.status == 401 and listen:
        seen = dataclasses.replace(seen, direct_status=_direct(listen[0], place))
    if seen.status != 200 and not seen.code:
        return seen  # what answers is not the gateway
    is_open = zip(OPERATORS_PATHS, paths, strict=True)
    return dataclasses.replace(
        seen,
        body_limit=limit.result(),
        upgrades=upgrades.result(),
        open_paths=tuple(path for path, found in is_open if found.result()),
        certificate_s=certificate_s.result(),
    )


def _stream(place: _WebServer) -> ThroughFacts:
    body = json.dumps({"model": MODEL, "input": PROMPT, "stream": True})
    headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
    connection = place.connection()
    began = time.monotonic()
    try:
        path = f"{place.prefix}/v1/responses"
        connection.request("POST", path, body, headers | place.headers)
        response = connection.getresponse()
        seen = ThroughFacts(
            place.url,
            status=response.status,
            server=response.getheader("Server", ""),
            encoding=response.getheader("Content-Encoding", ""),
            skew_s=http_skew_s(response.getheader("Date", "")),
        )
        if response.status != 200:
            is_ours = response.getheader("x-request-id")
            found = _CODE.search(response.read(MAX_BYTES)) if is_ours else None
            return dataclasses.replace(seen, code=found[1].decode() if found else "")
        pieces, whole = _pieces(response)
    finally:
        connection.close()
    times = [at for at, _ in pieces]
    data = _unpacked(b"".join(piece for _, piece in pieces), seen.encoding)
    return dataclasses.replace(
        seen,
        events=data.count(b"\n\n"),
        arrivals=len(pieces),
        gap_s=max((b - a for a, b in zip([began, *times], times)), default=0.0),
        seconds=time.monotonic() - began,
        whole=whole and TERMINAL in data,
    )


def _unpacked(data: bytes, encoding: str) -> bytes:
    if encoding != "gzip":
        return data
    with suppress(zlib.error):
        return zlib.decompressobj(wbits=31).decompress(data, MAX_BYTES)
    return b""


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


def _direct(listen: str, place: _WebServer) -> int | None:
    """What the gateway itself says to the key."""
    try:
        return asked(listen, "/v1/usage", place.headers)[0]
    except (OSError, http.client.HTTPException, ValueError):
        return None


def _body_limit(place: _WebServer, size: int) -> int | None:
    """*size*, if a body of it is refused by its head alone, before the gateway."""
    connection = place.connection(REFUSAL_S)
    try:
        connection.putrequest("POST", f"{place.prefix}/v1/responses")
        for name, value in place.headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()  # and nothing behind it
        response = connection.getresponse()
        is_ours = bool(response.getheader("x-request-id"))
        return size if response.status == 413 and not is_ours else None
    except (OSError, http.client.HTTPException):
        return None  # it waits for the body, as it should
    finally:
        connection.close()


def _upgrades(place: _WebServer) -> bool | None:
    """Whether a websocket gets through; None where that cannot be seen."""
    connection = place.connection()
    try:
        path = f"{place.prefix}/v1/responses"
        connection.request("GET", path, headers=UPGRADE | place.headers)
        return connection.getresponse().status == 101
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _is_open(place: _WebServer, path: str) -> bool:
    connection = place.connection()
    try:
        connection.request("GET", place.prefix + path)
        return connection.getresponse().status in (200, 503)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _certificate_s(place: _WebServer) -> float | None:
    connection = place.connection()
    if not isinstance(connection, http.client.HTTPSConnection):
        return None
    try:
        connection.connect()
        certificate: Any = connection.sock.getpeercert()
        return ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()
    except (OSError, http.client.HTTPException, LookupError):
        return None
    finally:
        connection.close()
