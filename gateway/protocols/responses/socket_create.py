"""
``response.create``: a request body as the message that asks for it over a websocket.

Rule 1: the message is the body with a ``type``, without ``stream`` and ``background``,
        which have no meaning there. Every other member keeps its bytes.
Rule 2: where a socket has just given the answer that the conversation goes on from, the
        message names that answer and holds the new items alone. That is so if all other
        members are the same, and the input begins with the input and the output of
        then. If in doubt, the whole input is sent: it is never wrong.
Rule 3: an output comes back in the client's own form. What clients leave out (ids,
        states, empty members) does not count; everything else does.

Source: the OpenAI API reference (WebSocket mode), and Codex CLI 0.171.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from gateway.protocols.json_access import read_object
from gateway.protocols.json_members import Span, members, with_first_member

MAX_CHAIN_ITEMS = 10_000
"""A conversation with more items is sent as a whole."""

_LEFT_OUT = frozenset((b"type", b"stream", b"background"))
# They may differ between two requests of one conversation.
_NOT_COMPARED = _LEFT_OUT | {
    *(b"input", b"previous_response_id", b"client_metadata", b"stream_options")
}
_NOT_ECHOED = frozenset(("id", "status", "annotations", "logprobs", "created_by"))
_EMPTY: tuple[object, ...] = (None, "", [], {})
_METADATA = b"client_metadata"
_MAY_INTERRUPT = b'"ws_request_header_x_openai_internal_codex_responses_lite"'


class Chain(NamedTuple):
    """
    What a socket knows: its last answer, and the conversation up to it.

    Attributes:
        fields: digest of all members that must be the same; "" if the conversation
            is not known, because it went on from an answer that the client named.
        input_items: how many the input had.
        prefix: digest of these items.
        outputs: digests of the items of the output.
    """

    response_id: str
    fields: bytes = b""
    input_items: int = 0
    prefix: bytes = b""
    outputs: tuple[bytes, ...] = ()

    def grown(self, response_id: str, items: Iterable[Any]) -> Chain:
        """It, with the answer *response_id* and the *items* of that."""
        outputs = tuple(map(_digest_of, items))
        return self._replace(response_id=response_id, outputs=outputs)


class SocketCreate:
    """
    One request, in whichever form a socket needs it.

    Attributes:
        stream: the client wants the events, not a whole answer.
        background: the answer is to be made in the background, which needs HTTP.
        may_be_interrupted: its client may interrupt the answer while it thinks, and
            has to have its id by then.
        previous: the answer that the client itself names, "" if none.
        size: bytes of the message with the whole input, about.

    Args:
        body: a JSON object.
        metadata: members for ``client_metadata``, where it has not its own.
    """

    def __init__(self, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self.stream = self.background = False
        self.previous = ""
        self.size = len(body)
        self._body = body
        self._input = (0, 0)
        self._members: dict[bytes, bytes] = {}  # all but the input
        self._items: list[Span] = []  # of the input; none if it is no list
        for member in members(body, b"input", self._items):
            value = body[member.start : member.end]
            if member.name == b"stream":
                self.stream = value == b"true"
            elif member.name == b"background":
                self.background = value == b"true"
            elif member.name == b"input":
                self._input = (member.start, member.end)
                if value[:1] != b"[":
                    self._items.clear()
            elif member.name not in _LEFT_OUT:
                self._members[member.name] = value
        previous = self._members.get(b"previous_response_id", b"null")
        if previous != b"null":
            self.previous = str(orjson.loads(previous))
        if metadata:
            self._add_metadata(metadata)
        said = self._members.get(_METADATA, b"")
        self.may_be_interrupted = _MAY_INTERRUPT in said

    def _add_metadata(self, metadata: Mapping[str, str]) -> None:
        own = self._members.get(_METADATA, b"{}")
        if own[:1] != b"{":
            return
        known = read_object(own)
        for name in metadata.keys() - known.keys():
            own = with_first_member(own, name, orjson.dumps(metadata[name]))
        self._members[_METADATA] = own

    # --- the message ------------------------------------------------------------------

    def whole(self) -> bytes:
        """The message with the whole input."""
        start, end = self._input
        return self._message(self._members, self._body[start:end] if end else None)

    def after(self, chain: Chain) -> bytes:
        """The message with what follows *chain*, which this must ``follow``."""
        first = self._items[chain.input_items + len(chain.outputs)][0]
        new = b"[" + self._body[first : self._input[1]]
        parent = {b"previous_response_id": orjson.dumps(chain.response_id)}
        return self._message({**self._members, **parent}, new)

    def _message(self, named: Mapping[bytes, bytes], given: bytes | None) -> bytes:
        pieces = [b'{"type":"response.create"']
        for name, value in named.items():
            pieces += [b",", orjson.dumps(name.decode()), b":", value]
        if given is not None:
            pieces += [b',"input":', given]
        return b"".join([*pieces, b"}"])

    # --- the conversation -------------------------------------------------------------

    def follows(self, chain: Chain) -> bool:
        """Whether it goes on from *chain*, with at least one new item."""
        known = chain.input_items + len(chain.outputs)
        if self.previous or not chain.fields or len(self._items) <= known:
            return False
        if (
            self._fields != chain.fields
            or self._prefixes[chain.input_items] != chain.prefix
        ):
            return False
        echoed = self._items[chain.input_items : known]
        return all(
            _digest_of(orjson.loads(self._body[start:end])) == output
            for (start, end), output in zip(echoed, chain.outputs)
        )

    def seed(self) -> Chain | None:
        """What a socket will know when it has answered; ``grown`` makes it whole."""
        if len(self._items) > MAX_CHAIN_ITEMS:
            return None
        if self.previous or not self._items:
            return Chain("")
        count = len(self._items)
        return Chain("", self._fields, count, self._prefixes[count])

    @cached_property
    def _prefixes(self) -> list[bytes]:
        """Digests of the first 0, 1, 2, … items."""
        digest, found = blake2b(digest_size=16), []
        for start, end in self._items:
            found.append(digest.digest())
            digest.update(b"%d:" % (end - start))
            digest.update(self._body[start:end])
        return [*found, digest.digest()]

    @cached_property
    def _fields(self) -> bytes:
        digest = blake2b(digest_size=16)
        for name in sorted(self._members.keys() - _NOT_COMPARED):
            value = self._members[name]
            digest.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
        return digest.digest()


def _digest_of(item: Any) -> bytes:
    data = orjson.dumps(_echo(item), option=orjson.OPT_SORT_KEYS)
    return blake2b(data, digest_size=16).digest()


def _echo(value: Any) -> Any:
    """*value* without what clients leave out when they send it back."""
    if isinstance(value, dict):
        kept = {
            name: _echo(member)
            for name, member in value.items()
            if name not in _NOT_ECHOED
        }
        return {name: member for name, member in kept.items() if member not in _EMPTY}
    return [_echo(one) for one in value] if isinstance(value, list) else value
