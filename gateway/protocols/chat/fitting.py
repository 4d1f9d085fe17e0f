"""
A Chat request for a Chat server: changed only where the server refuses it as it is, or
where its usage would never come.
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.chat.gemini_signatures import signed
from gateway.protocols.chat.responses_shape import nested
from gateway.protocols.json_members import named, with_first_member, with_member
from gateway.protocols.model_traits import fills_signatures
from gateway.protocols.options import OptionsOf

Body = dict[str, Any]


def fitted(document: Body, model: str, options_of: OptionsOf) -> Body:
    """See ``WireProtocol.fitted``."""
    document = nested(document)
    messages = document.get("messages")
    if isinstance(messages, list) and fills_signatures(model, options_of(model)):
        fresh = signed(messages)
        if fresh is not messages:
            document = {**document, "messages": fresh}
    return document


def asking_for_usage(body: bytes, document: Body) -> bytes:
    """
    See ``WireProtocol.asking_for_usage``: ``stream_options.include_usage`` is set,
    other bytes stay.
    """
    name, options = "stream_options", b"{}"
    if name not in document:
        return with_first_member(body, name, b'{"include_usage":true}')
    given = document[name]
    if isinstance(given, dict):
        if given.get("include_usage") is True:
            return body
        place = named(body, name)[-1]
        options = body[place.start : place.end]
    return with_member(body, name, with_member(options, "include_usage", b"true"))
