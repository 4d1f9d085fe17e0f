"""
One answer over a websocket, followed message by message.

What it hands out is what HTTP would have brought: the events of a stream, or, for a
client that wants no stream, the answer as JSON.

Rule 1: the head is there with the first message that belongs to the answer. An error
        message before it becomes the status and the headers that it names.
Rule 2: the preamble is kept until the first real output; until then ``restart`` leaves
        no trace of what came.
Rule 3: a terminal or an error is the end. What follows belongs to no answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict

from gateway.protocols.protocol import IDLE, NEUTRAL
from gateway.protocols.responses import protocol as responses
from gateway.protocols.responses.quotas import QUOTAS, quota_headers
from gateway.protocols.responses.socket_create import Chain
from gateway.protocols.responses.socket_message import (
    COMPLETED,
    ERROR,
    ITEM_DONE,
    LIFECYCLE,
    METADATA,
    NO_SUCH_RESPONSE,
    PLAIN_HEAD,
    SOCKET_IS_OLD,
    TELLING,
    event_of,
    ident_and_outputs,
    is_harmless,
    metadata_headers,
    read_error,
    type_of,
    whole_answer,
)

HELD_BYTES = 1024 * 1024
"""A longer preamble is let go."""

ITEMS_BYTES = 8 * 1024 * 1024
"""Of finished items, which are kept for a server that does not repeat them."""

# As numbers: to look for bytes with "in" costs CPython an exception first.
_LF, _CR = b"\n\r"
_KEEPS_SOCKET = (400, 404, 413, 422)  # a mistake in the request


class SocketAnswer:
    """
    Args:
        stream: the client wants the events.
        shows_thinking: reasoning that begins is output: see ``SocketCreate``.

    Attributes:
        status: as over HTTP, 0 before the head.
        headers: of the answer; metadata that come before the output add to them.
        passes: output has come, or an error behind the head.
        has_ended: it is whole, or has failed in the server's own words.
        keeps_socket: nothing is left on the socket, and it may serve another.
        refused: why the server asks for the same request again: ``SOCKET_IS_OLD``, or
            ``NO_SUCH_RESPONSE`` for a parent that the gateway has named; else "".
        names_parent: the gateway has named the parent, not the client.
    """

    def __init__(self, *, stream: bool, shows_thinking: bool = False) -> None:
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.passes = self.has_ended = self.keeps_socket = False
        self.refused = ""
        self.names_parent = False
        self._stream = stream
        self._shows_thinking = shows_thinking
        self._facts = responses.new_facts()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._done: list[bytes] = []  # items
        self._done_bytes = 0
        self._terminal = b""

    @property
    def is_plain(self) -> bool:
        """Whether a message that means nothing here is an event for the client."""
        is_over = self.has_ended or self.refused
        return self.passes and self._stream and not is_over

    def restart(self, headers: Mapping[str, str], *, names_parent: bool) -> None:
        """Begin anew, on a socket with *headers*; a head that is out stays."""
        kind = self.headers.get("content-type", "")
        self.headers.clear()
        self.headers.extend(headers)
        self.headers["content-type"] = kind
        self.refused, self.names_parent = "", names_parent
        self._facts = responses.new_facts()
        self._held.clear()
        self._held_bytes = 0

    def take(self, messages: list[bytes]) -> bytes:
        """What the *messages* bring for the client."""
        out: list[bytes] = []
        if self.is_plain:
            messages = self._take_plain(messages, out)
        for message in messages:
            if self.has_ended or self.refused:
                if not is_harmless(message):
                    self.keeps_socket = False
                continue
            kind = type_of(message)
            if not self.passes and self._keeps(message, kind, out):
                continue
            if kind in TELLING:
                self._note(message, kind, out)
            elif self._stream:
                out.append(event_of(message, kind))
        return b"".join(out)

    def _take_plain(self, messages: list[bytes], out: list[bytes]) -> list[bytes]:
        """
        Take what is nearly all of an answer, an event that means nothing here. Returns
        the rest, which begins with another message.
        """
        for at, message in enumerate(messages):
            if not message.startswith(PLAIN_HEAD) or _LF in message or _CR in message:
                return messages[at:]
            kind = message[len(PLAIN_HEAD) : message.find(b'"', len(PLAIN_HEAD))]
            if kind in TELLING:
                return messages[at:]
            out += (b"event: ", kind, b"\ndata: ", message, b"\n\n")
        return []

    def end_with_error(self, message: bytes) -> bytes:
        """End with an error *message*, behind the head."""
        out: list[bytes] = []
        self._pass(out)
        self.has_ended = True
        out.append(event_of(message, ERROR) if self._stream else message)
        return b"".join(out)

    def learned(self, seed: Chain | None) -> Chain | None:
        """What a socket knows after this answer to the request of *seed*."""
        if seed is None or not self._terminal:
            return None
        ident, items = ident_and_outputs(self._terminal, self._done)
        return seed.grown(ident, items) if ident else None

    # --- the preamble -----------------------------------------------------------------

    def _keeps(self, message: bytes, kind: bytes, out: list[bytes]) -> bool:
        """Whether *message* is of the preamble; it is kept then."""
        if kind == ERROR:
            return False
        event = event_of(message, kind)
        if kind == METADATA:
            self.headers.update(metadata_headers(message))
            step = IDLE
        elif kind == QUOTAS:
            self.headers.update(quota_headers(message))
            step = IDLE
        elif kind in LIFECYCLE:
            step = NEUTRAL  # it may repeat the whole request, and says nothing else
        else:
            step = responses.read(event, self._facts)
        if step is not IDLE:
            self._have_head(200)
        thinks_aloud = self._shows_thinking and self._facts.thinks
        is_preamble = (step is IDLE or step is NEUTRAL) and not thinks_aloud
        if is_preamble:
            self._held.append(event)
            self._held_bytes += len(event)
        if is_preamble and self._held_bytes <= HELD_BYTES:
            return True
        self._have_head(200)
        self._pass(out)
        return is_preamble

    def _have_head(self, status: int) -> None:
        if not self.status:
            self.status = status
            is_stream = self._stream and status == 200
            kind = "text/event-stream" if is_stream else "application/json"
            self.headers["content-type"] = kind

    def _pass(self, out: list[bytes]) -> None:
        """What was kept is the client's, and all that comes."""
        self.passes = True
        if self._stream:
            out += self._held
        self._held.clear()
        self._facts = responses.new_facts()

    # --- the end ----------------------------------------------------------------------

    def _note(self, message: bytes, kind: bytes, out: list[bytes]) -> None:
        """Take a finished item, or an end."""
        if kind == ERROR:
            self._refuse(message, out)
            return
        if self._stream:
            out.append(event_of(message, kind))
        if kind == ITEM_DONE:
            self._done_bytes += len(message)
            if self._done_bytes <= ITEMS_BYTES:
                self._done.append(message)
            return
        self.has_ended = self.keeps_socket = True
        if kind == COMPLETED:
            self._terminal = message
        if not self._stream:
            out.append(whole_answer(message, self._done))

    def _refuse(self, message: bytes, out: list[bytes]) -> None:
        """An error message has come."""
        error = read_error(message)
        if error.code == SOCKET_IS_OLD:
            self.refused = error.code
        elif error.code == NO_SUCH_RESPONSE and self.names_parent:
            self.refused = error.code
        elif self.status or not error.status:
            self._have_head(200)
            out.append(self.end_with_error(message))
        else:
            self.headers.update(error.headers)
            self._have_head(error.status)
            self.keeps_socket = error.status in _KEEPS_SOCKET
            self.has_ended = True
            out.append(error.body)
