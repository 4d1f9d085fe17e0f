"""
The opening handshake of a websocket, from the server's side.

Compression is agreed to without context takeover in either direction: each message is
inflated or deflated by itself, so that an idle connection holds no window of 32 KiB.

Source: RFC 6455, 4.2; RFC 7692, 7.1
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import NamedTuple

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from websockets.utils import accept_key

from gateway.errors import ClientError

VERSION = "13"
NONCE_BYTES = 16

_DEFLATE = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True
)


class Handshake(NamedTuple):
    """
    What was agreed.

    Attributes:
        accept: proves that the upgrade was understood.
        extensions: names what is used besides; "" for nothing.
        deflate_bits: how far back, as a power of 2, a deflated message of ours may
            look; 0: neither side deflates.
    """

    accept: str
    extensions: str = ""
    deflate_bits: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """Those of the answer with status 101."""
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": self.accept,
        }
        if self.extensions:
            headers["Sec-WebSocket-Extensions"] = self.extensions
        return headers


def asks_for_websocket(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for the upgrade to a websocket."""
    return headers.get("Upgrade", "").strip().lower() == "websocket"


def agree(headers: Mapping[str, str]) -> Handshake:
    """
    What is agreed to with a client whose upgrade has these *headers*.

    Raises:
        ClientError: the upgrade is not valid.
    """
    connection = headers.get("Connection", "").lower().split(",")
    if "upgrade" not in (option.strip() for option in connection):
        raise _invalid("Connection", "must name the upgrade")
    if headers.get("Sec-WebSocket-Version", "").strip() != VERSION:
        raise _invalid("Sec-WebSocket-Version", f"must be {VERSION}")
    nonce = headers.get("Sec-WebSocket-Key", "").strip()
    if not _is_nonce(nonce):
        raise _invalid("Sec-WebSocket-Key", f"must be {NONCE_BYTES} bytes in base64")
    extensions, bits = _deflate(headers.get("Sec-WebSocket-Extensions", ""))
    return Handshake(accept_key(nonce), extensions, bits)


def _invalid(name: str, problem: str) -> ClientError:
    return ClientError(
        "invalid_request",
        f"The upgrade to a websocket is not valid: {name} {problem}",
        param=name,
    )


def _is_nonce(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == NONCE_BYTES
    except (binascii.Error, ValueError):
        return False


def _deflate(offered: str) -> tuple[str, int]:
    """The first offer of compression that can be met, and our window; else ("", 0)."""
    if not offered:
        return "", 0
    try:
        offers = parse_extension(offered)
    except InvalidHeader:
        return "", 0  # as one of extensions that are not known
    for name, params in offers:
        if name != _DEFLATE.name:
            continue
        try:
            agreed, deflate = _DEFLATE.process_request_params(params, [])
        except NegotiationError:
            continue
        return build_extension([(name, agreed)]), deflate.local_max_window_bits
    return "", 0
