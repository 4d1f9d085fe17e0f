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
from gateway.protocols.json_members import with_known_member
from gateway.protocols.lossless_json import dumps
from gateway.protocols.reasoning_recall import Recall
from gateway.protocols.request_converter import Converted, convert_request
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
    protocol = account.upstream_protocol(context.wire.name)
    same, stream = protocol == context.wire.name, context.ask.stream
    model = account.upstream_model(context.ask.model)
    path = context.path if same else PROTOCOLS[protocol].path_of(model, stream)
    outgoing = UpstreamRequest(
        protocol=protocol,
        path=path,
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
    document = _fitted(document, context, account, model)
    if document is not context.ask.document:
        outgoing.body = dumps(document)
    if outgoing.renamed:
        outgoing.body = replace_model(outgoing.body, model)
    if stream:
        asking = context.wire.asking_for_usage(outgoing.body, document)
        if asking is not outgoing.body and account.options(model).stream_options:
            outgoing.hide_usage, outgoing.body = True, asking
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


def _fitted(
    document: dict[str, Any], context: RequestContext, account: Account, model: str
) -> dict[str, Any]:
    """
    *document* as it came; converted where it has another protocol's shape, and with
    what the account refuses to be without.
    """
    wire = context.wire
    if not wire.is_misshapen(document):
        fitting = wire.fitted(document, model, account.options)
        if fitting is document or not context.ask.keep_digits():
            return fitting
        return wire.fitted(context.ask.document, model, account.options)
    converted = convert_request(
        wire.name,
        wire.name,
        document,
        model=context.ask.model,
        upstream_model=model,
        options=account.options(model),
    )
    context.record.dropped = converted.dropped
    return converted.body


def replace_model(body: bytes, model: str) -> bytes:
    """*body* with another ``model``; every other byte stays."""
    return with_known_member(body, "model", orjson.dumps(model))
