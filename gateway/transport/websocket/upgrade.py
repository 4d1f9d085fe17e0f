"""
The handshake of a websocket: the request for the upgrade, and the answer to it.

Source: RFC 6455, 4
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import WebSocketURI

from gateway.transport.request import Target, request_headers
from gateway.transport.websocket.deflate import DeflateOffer

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest message that is taken: as large as the largest event of a stream."""

HEAD_LIMIT_BYTES = 65536
"""The most that the head of the answer may take."""

_END_OF_HEAD = b"\r\n\r\n"
_LOGGER = logging.getLogger("websockets.client")
_LOGGER.setLevel(logging.ERROR)  # at DEBUG it writes every frame


class UpgradeAnswer(NamedTuple):
    """
    The answer to the upgrade.

    Attributes:
        status: 101 if the websocket is open, 0 if it was no sound answer.
        detail: why it is none.
    """

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes = b""
    detail: str = ""

    @property
    def is_open(self) -> bool:
        return self.status == 101


def client_protocol(target: Target, *, deflates: bool = False) -> ClientProtocol:
    """The library's state of a websocket that is not open yet."""
    origin = target.route.origin
    uri = WebSocketURI(origin.scheme == "https", origin.host, origin.port, "/", "")
    offers = [DeflateOffer()] if deflates else None
    return ClientProtocol(
        uri, extensions=offers, max_size=MAX_MESSAGE_BYTES, logger=_LOGGER
    )


def upgrade_head(
    protocol: ClientProtocol, target: Target, headers: Iterable[tuple[str, str]]
) -> bytes:
    """
    The request for the upgrade.

    Raises:
        ValueError: as ``request_headers``.
    """
    pairs = request_headers(target, headers, 0)
    own = protocol.connect().headers.raw_items()
    pairs += [(name, value) for name, value in own if name.lower() != "host"]
    lines = [target.line, *(f"{name}: {value}" for name, value in pairs), "\r\n"]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


class UpgradeReader:
    """
    Reads the answer to the upgrade.

    Attributes:
        answer: None until it is whole.
        rest: what came behind the head of an answer that opens the websocket.
    """

    def __init__(self, protocol: ClientProtocol) -> None:
        self.answer: UpgradeAnswer | None = None
        self.rest = b""
        self._protocol = protocol
        self._head = bytearray()
        self._has_head = False

    def feed(self, data: bytes) -> None:
        """Take bytes while there is no answer."""
        if self._has_head:
            self._give(data)
            return
        self._head += data
        while (end := self._head.find(_END_OF_HEAD)) >= 0:
            head = bytes(self._head[: end + 4])
            del self._head[: end + 4]
            if not _is_interim(head):
                self._has_head = True
                self._give(head)
                self._give_rest()
                return
        if len(self._head) > HEAD_LIMIT_BYTES:
            self.answer = _unsound("the head of the answer is too large")

    def feed_eof(self) -> None:
        """The connection has ended, which may be the end of a refusal's body."""
        if self._has_head and self.answer is None:
            self._protocol.receive_eof()
            self._look()

    def _give(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._look()

    def _give_rest(self) -> None:
        rest = bytes(self._head)
        if self.answer is None and rest:
            self._give(rest)
        else:
            self.rest = rest

    def _look(self) -> None:
        """Whether the library has an answer now."""
        error = self._protocol.handshake_exc
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                is_open = self._protocol.state is State.OPEN
                status = 0 if event.status_code == 101 and not is_open else None
                self.answer = UpgradeAnswer(
                    event.status_code if status is None else status,
                    _headers(event),
                    bytes(event.body),
                    "" if error is None else str(error),
                )
        if self.answer is None and error is not None:
            self.answer = _unsound(str(error.__cause__ or error))


def _is_interim(head: bytes) -> bool:
    """Whether *head* announces another: 100 Continue, 103 Early Hints."""
    status = head[8:13]
    return status.startswith(b" 1") and status != b" 101 "


def _headers(response: Response) -> CIMultiDictProxy[str]:
    pairs = [(name, value) for name, value in response.headers.raw_items()]
    return CIMultiDictProxy(CIMultiDict(pairs))


def _unsound(detail: str) -> UpgradeAnswer:
    return UpgradeAnswer(0, CIMultiDictProxy(CIMultiDict()), b"", detail)
