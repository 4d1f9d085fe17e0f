"""
TLS over any byte stream: a socket, or a tunnel inside another TLS.

The event loop has a TLS of its own, which drops what had arrived when a write fails.
An upstream that refuses a request early would not be heard. Hence this one.

Rule 1: bytes that arrived are decrypted and delivered before the loss of the connection
        is reported.
Rule 2: what one read of the socket brought is delivered as one piece. Nothing is
        buffered here, so back-pressure is that of the stream below.
Rule 3: an end of the stream without TLS's own goodbye is an end. HTTP's framing says
        whether the answer was whole.

    Connection ──write──▶ TlsStream ──write──▶ socket, ProxyTunnel or TlsStream
               ◀─data_received─     ◀─data_received─
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

from gateway.transport.socket_state import (
    descriptor_of,
    is_encrypted,
    left_in_socket,
)
from gateway.transport.tls_sessions import ServerSession

RECORD_BYTES = 16384
"""The most that one TLS record carries (RFC 8446, 5.1)."""


class TlsStream(asyncio.Protocol, asyncio.Transport):
    """
    The client's side of TLS.

    It has more methods than other classes, because asyncio's interfaces demand them:
    it is the protocol of the stream below and the transport of the protocol *above*.
    *above* gets ``connection_made`` when the handshake is done; ``connection_lost``
    with the reason when there is none.

    Args:
        server_name: the name or address that the certificate must hold.
        above: the protocol that reads and writes plain bytes.
        server: the session with it, for the next handshake.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        server_name: str,
        above: asyncio.Protocol,
        server: ServerSession | None = None,
    ) -> None:
        super().__init__()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._server = server
        self._offered = server.offer() if server else None
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_hostname=server_name,
            session=self._offered,
        )
        self._decrypt = self._tls.read
        self._above = above
        self._below: asyncio.Transport
        self._descriptor = -1  # of the socket, if that is the stream below
        self._secured = False
        self._error: Exception | None = None

    # --- the protocol of the stream below ---------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast(asyncio.Transport, transport)
        if not is_encrypted(transport):
            self._descriptor = descriptor_of(transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._secured:
            self._deliver()
        else:
            self._shake_hands()

    def eof_received(self) -> None:
        if self._secured:
            self._above.eof_received()
        else:
            self._error = ConnectionResetError("closed during the TLS handshake")

    def connection_lost(self, exc: Exception | None) -> None:
        # Without an error too: see ``Connection.connection_lost``.
        for data in left_in_socket(self._descriptor):
            self.data_received(data)
        if self._server is not None:
            self._server.connection_ended(self._tls, self._offered, self._secured)
        self._above.connection_lost(self._error or exc)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    # --- the transport of the protocol above ------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt *data* and hand it on; the stream below buffers."""
        if self._below.is_closing():
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as error:
            self._error = error
            self._below.abort()
        else:
            self._flush()

    def close(self) -> None:
        self._below.close()

    def abort(self) -> None:
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._above = cast(asyncio.Protocol, protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return self._below.get_extra_info(name, default)

    # --- between the two --------------------------------------------------------------

    def _shake_hands(self) -> None:
        """Go on with the handshake as far as what has come allows."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._error = error
            self._flush()  # the alert that says why
            self._below.close()
        else:
            self._flush()
            self._secured = True
            self._above.connection_made(self)
            if self._incoming.pending:
                self._deliver()

    def _deliver(self) -> None:
        """Decrypt what has come and pass it on."""
        pieces: list[bytes] = []
        has_ended = False
        try:
            while piece := self._decrypt(RECORD_BYTES):
                pieces.append(piece)
                if not self._incoming.pending:
                    break  # asking for more would raise, which costs more
            else:
                has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._error = error
        if self._outgoing.pending:
            self._flush()  # the answer to a new key
        if pieces:
            whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._above.data_received(whole)
        if has_ended or self._error is not None:
            self._below.abort()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._below.is_closing():
            self._below.write(self._outgoing.read())
