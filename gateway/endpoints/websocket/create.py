"""
``response.create`` as the request for a model that it stands for.

    message            {"type": "response.create", "input": …, …}
    what was before    turns of the websocket, or a response that is held elsewhere
    request            the body of ``POST /v1/responses``, whole

Fields that are not known pass as they are. ``stream`` has no meaning here: an answer
always comes as events.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.client import body
from gateway.endpoints.websocket.turn_memory import Turn
from gateway.errors import ClientError
from gateway.protocols.json_access import sub
from gateway.protocols.lossless_json import dumps
from gateway.protocols.responses import proofs
from gateway.relay.failover_state import Continuation

TYPE = "response.create"

_TRANSPORT_FIELDS = (
    *("type", "stream_id", "generate", "previous_response_id", "input"),
    *("background", "stream", "stream_options"),
)
_CONNECTION = ("connection", "upgrade", "sec-websocket-", "content-", "transfer-")
_BETA = "responses_websockets="
_PREFIX = "ws_request_header_"
_MAY_INTERRUPT = "x-openai-internal-codex-responses-lite"
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_VALUE = re.compile(r"[\t\x20-\x7e]{1,8192}")
# What Codex says of a turn; over HTTP these are headers of the request.
_TURN_HEADERS = frozenset(
    ("x-codex-turn-state", "x-codex-turn-metadata", "x-codex-window-id")
)


class Create:
    """
    Args:
        document: the message.
        base: the headers of the upgrade, as ``base_headers`` gives them.
        parent: the turn of the websocket that it goes on from.
        was_here: it names a turn of the websocket that is not held any more.

    Attributes:
        headers: what a request over HTTP would have.
        continuation: for what is stored of it.
    """

    def __init__(
        self,
        document: dict[str, Any],
        base: CIMultiDictProxy[str],
        parent: Turn | None,
        *,
        was_here: bool,
    ) -> None:
        self.headers = _headers(base, sub(document, "client_metadata"))
        self.parent = parent
        self._document = document  # until the body is made
        self._external = self._first_parent(document)
        self._was_here = was_here
        self.items = _items(document.get("input"))
        self.continuation = Continuation(
            b"[%b]" % self.items,
            parent.stored if parent else None,
            must_be_known=document.get("store") is False,
        )

    @property
    def may_be_interrupted(self) -> bool:
        """
        Whether its client interrupts an answer that still thinks: Codex, with its
        newest models. It must have read the answer's id by then.
        """
        return _MAY_INTERRUPT in self.headers

    def check(self) -> None:
        """
        Raises:
            ClientError: it asks for what is not possible here.
        """
        document = self._document
        if document.get("background"):
            raise ClientError(
                "unsupported_parameter",
                "'background' is not supported over a websocket",
                param="background",
            )
        ident = document.get("previous_response_id")
        if ident is not None and not isinstance(ident, str):
            raise ClientError(
                "invalid_request",
                "'previous_response_id' must be a string",
                param="previous_response_id",
            )
        if ident and self._was_here:
            raise ClientError(
                "previous_response_not_found",
                f"Previous response with id '{ident}' not found",
                param="previous_response_id",
            )

    def _first_parent(self, document: dict[str, Any]) -> str:
        """
        The response before the first turn that the websocket holds; "" for none.
        """
        turn = self.parent
        if turn is None:
            ident = document.get("previous_response_id")
            return ident if isinstance(ident, str) else ""
        while turn.parent is not None:
            turn = turn.parent
        return turn.external

    def body(self, limit_bytes: int) -> body.RequestBody:
        """
        The whole request; can be asked for once.

        Raises:
            ClientError: what is wrong with it.
        """
        self.check()
        document, self._document = self._document, {}
        rest = {key: document[key] for key in document if key not in _TRANSPORT_FIELDS}
        rest["stream"] = True
        if self._external:
            rest["previous_response_id"] = self._external
        given = document.get("input")
        if self.parent is None and not isinstance(given, list):
            if "input" in document:
                rest["input"] = given
            data = _dumped(rest)
        else:
            history = self.parent.history() if self.parent else []
            parts = [*history, self.items] if self.items else history
            data = b'%b,"input":[%b]}' % (_dumped(rest)[:-1], b",".join(parts))
        if len(data) > limit_bytes:
            raise ClientError(
                "body_too_large",
                "The request, with the turns before it, is larger than "
                f"{limit_bytes} bytes",
            )
        return body.parse(data, proofs)

    def turn(self, output: bytes, lane: str) -> Turn:
        """The turn that this request and its *output* make."""
        items = b",".join(part for part in (self.items, output) if part)
        external = "" if self.parent else self._external
        stored = self.continuation.stored
        return Turn(self.parent, items, lane, stored, external)


def _dumped(document: dict[str, Any]) -> bytes:
    try:
        return dumps(document)
    except TypeError:
        raise ClientError(
            "invalid_request", "The request is nested too deeply"
        ) from None


def _items(given: object) -> bytes:
    """The items of an ``input``, joined by commas; "" for none."""
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": given}]
    return _dumped_list(given) if isinstance(given, list) else b""


def _dumped_list(items: list[Any]) -> bytes:
    try:
        return dumps(items)[1:-1]
    except TypeError:
        raise ClientError(
            "invalid_request", "The request is nested too deeply"
        ) from None


# --- headers --------------------------------------------------------------------------


def base_headers(upgrade: Mapping[str, str]) -> CIMultiDictProxy[str]:
    """The headers of an *upgrade* as those of a request over HTTP."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in upgrade.items():
        low = name.lower()
        if low.startswith(_CONNECTION) or low == "x-request-id":
            continue
        if low == "openai-beta":
            value = _without_transport(value)
        if value:
            headers.add(name, value)
    headers.setdefault("Accept", "text/event-stream")
    return CIMultiDictProxy(headers)


def _without_transport(beta: str) -> str:
    """The features of an ``OpenAI-Beta`` header that are not the websocket itself."""
    features = [one.strip() for one in beta.split(",")]
    return ", ".join(one for one in features if not one.startswith(_BETA))


def _headers(
    base: CIMultiDictProxy[str], metadata: dict[str, Any]
) -> CIMultiDictProxy[str]:
    """*base* with what ``client_metadata`` says of this request."""
    own = {name: metadata[key] for key in metadata if (name := _header_of(key))}
    said = {
        name: value
        for name, value in own.items()
        if isinstance(value, str) and _VALUE.fullmatch(value)
    }
    if not said and "x-codex-turn-state" not in base:
        return base
    headers = CIMultiDict(base)
    headers.popall("x-codex-turn-state", None)  # of another turn
    headers.update(said)
    return CIMultiDictProxy(headers)


def _header_of(key: str) -> str:
    """The header that a member of ``client_metadata`` stands for; "" for none."""
    if key in _TURN_HEADERS:
        return key
    if not key.startswith(_PREFIX):
        return ""
    name = key.removeprefix(_PREFIX).lower().replace("_", "-")
    return name if _NAME.fullmatch(name) else ""
