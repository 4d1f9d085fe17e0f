"""
The request as an account gets it.

Same protocol: the client's bytes, changed only where they must be (the model's name
when it is renamed; Chat's ``include_usage``, without which nobody could know what an
answer cost). Other protocol: through the neutral model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from multidict import CIMultiDict

from gateway.config.schema import Account
from gateway.context import RequestContext
from gateway.protocols import PROTOCOLS
from gateway.protocols.chat.flat import is_responses, nested
from gateway.protocols.chat.signatures import signed
from gateway.protocols.exact_json import dumps
from gateway.protocols.json_members import (
    named,
    with_first_member,
    with_known_member,
    with_member,
)
from gateway.protocols.request_converter import Converted, convert_request
from gateway.protocols.returned import Recall
from gateway.protocols.traits import fills_signatures
from gateway.relay.headers import upwards

COMPACT_PATH = "/responses/compact"


@dataclass(slots=True)
class UpstreamRequest:
    """
    Attributes:
        hide_usage: the client did not ask for Chat's usage chunk; the gateway did.
        converted: what the way back needs to know; None for the same protocol.
    """

    protocol: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    same_protocol: bool
    renamed: bool
    hide_usage: bool = False
    converted: Converted | None = None

    def forget(self) -> None:
        """It has been sent: a stream need not keep it."""
        self.headers.clear()
        self.body = b""


def write(
    context: RequestContext,
    account: Account,
    document: dict[str, Any],
    recall: Recall | None = None,
) -> UpstreamRequest:
    """
    The request of *context* for *account*.

    Args:
        document: the client's body; another object than ``context.ask.document`` when
            something had to be left out of it.
        recall: gives the reasoning that was kept of a call.

    Raises:
        ClientError: it asks for what the account's protocol cannot say.
    """
    protocol = account.speaks(context.wire.name)
    same = protocol == context.wire.name
    model = account.upstream_model(context.ask.model)
    outgoing = UpstreamRequest(
        protocol=protocol,
        path=context.path if same else PROTOCOLS[protocol].path,
        headers=upwards(
            context.headers, account, context.record.request_id, same_protocol=same
        ),
        body=context.ask.data,
        same_protocol=same,
        renamed=model != context.ask.model,
    )
    context.record.dropped = ()
    if not same:
        _convert(outgoing, context, account, document, recall)
        return outgoing
    if protocol == "chat":
        document = _as_chat(document, context, account, model)
    if document is not context.ask.document:
        outgoing.body = dumps(document)
    if outgoing.renamed:
        outgoing.body = replace_model(outgoing.body, model)
    wants = protocol == "chat" and context.ask.stream and not _asks_for_usage(document)
    if wants and account.options(model).stream_options:
        outgoing.hide_usage = True
        outgoing.body = ask_for_usage(outgoing.body, document)
    return outgoing


def _convert(
    outgoing: UpstreamRequest,
    context: RequestContext,
    account: Account,
    document: dict[str, Any],
    recall: Recall | None,
) -> None:
    model = account.upstream_model(context.ask.model)
    converted = convert_request(
        context.wire.name,
        outgoing.protocol,
        document,
        model=context.ask.model,
        upstream_model=model,
        options=account.options(model),
        compact=context.path == COMPACT_PATH,
        maker=account.server,
        recall=recall,
    )
    outgoing.body = converted.encoded()
    outgoing.converted = converted._replace(body={})  # its bytes are enough
    context.record.dropped = converted.dropped


def _as_chat(
    document: dict[str, Any], context: RequestContext, account: Account, model: str
) -> dict[str, Any]:
    """
    *document* as it came; as Chat where it has another shape, and with what the account
    refuses to be without.
    """
    if not is_responses(document):
        fitting = _fitting(document, account, model)
        if fitting is document or not context.ask.keep_digits():
            return fitting
        return _fitting(context.ask.document, account, model)
    converted = convert_request(
        "chat",
        "chat",
        document,
        model=context.ask.model,
        upstream_model=model,
        options=account.options(model),
    )
    context.record.dropped = converted.dropped
    return converted.body


def _fitting(document: dict[str, Any], account: Account, model: str) -> dict[str, Any]:
    """A Chat *document* that *account* takes; the same object where it does already."""
    document = nested(document)
    messages = document.get("messages")
    if isinstance(messages, list) and fills_signatures(model, account.options(model)):
        fresh = signed(messages)
        if fresh is not messages:
            document = {**document, "messages": fresh}
    return document


def replace_model(body: bytes, model: str) -> bytes:
    """*body* with another ``model``; every other byte stays."""
    return with_known_member(body, "model", orjson.dumps(model))


def _asks_for_usage(document: dict[str, Any]) -> bool:
    options = document.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def ask_for_usage(body: bytes, document: dict[str, Any]) -> bytes:
    """*body* with Chat's ``stream_options.include_usage``; other bytes stay."""
    name, options = "stream_options", b"{}"
    if name not in document:
        return with_first_member(body, name, b'{"include_usage":true}')
    if isinstance(document[name], dict):
        told = named(body, name)[-1]
        options = body[told.start : told.end]
    return with_member(body, name, with_member(options, "include_usage", b"true"))
