"""
The request as an account gets it.

Same protocol: the client's bytes, changed only where they must be (the model's name
when it is renamed; Chat's ``include_usage``, without which the cost of an answer would
be unknown). Other protocol: through the neutral model.
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

_NO_HEADERS: CIMultiDict[str] = CIMultiDict()
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
        self.headers = _NO_HEADERS
        self.body = b""


class RequestWriter:
    """Writes the request of *context* for *account*."""

    def __init__(self, context: RequestContext, account: Account) -> None:
        self._context = context
        self._account = account
        self._model = account.upstream_model(context.ask.model)

    def write(
        self, document: dict[str, Any], recall: Recall | None = None
    ) -> UpstreamRequest:
        """
        The request; what it leaves out is entered in the record.

        Args:
            document: the client's body; another object than ``context.ask.document``
                when something had to be left out of it. Its outline, for an account of
                the same protocol, when nothing had.
            recall: gives the reasoning that was kept of a call.

        Raises:
            ClientError: it asks for what the account's protocol cannot say.
        """
        context, account, wire = self._context, self._account, self._context.wire
        protocol = account.upstream_protocol(wire.name)
        same, path = protocol == wire.name, context.path
        if not same:
            path = PROTOCOLS[protocol].path_of(self._model, context.ask.stream)
        ident = context.record.request_id
        request = UpstreamRequest(
            protocol=protocol,
            path=path,
            headers=upwards(context.headers, account, ident, same_protocol=same),
            body=context.ask.data,
            same_protocol=same,
            renamed=self._model != context.ask.model,
        )
        context.record.dropped = ()
        if same:
            self._adapt(request, document)
        else:
            converted = self._converted(protocol, document, recall)
            request.body = converted.encoded()
            request.converted = converted._replace(body={})  # its bytes are enough
        return request

    def _adapt(self, request: UpstreamRequest, document: dict[str, Any]) -> None:
        """Change the client's bytes where they must be."""
        context, wire = self._context, self._context.wire
        # What has an outline is of a protocol that fits nothing else.
        is_whole = not context.ask.is_outline(document)
        if is_whole:
            document = self._fitted(document)
            if document is not context.ask.document:
                request.body = dumps(document)
        if request.renamed:
            request.body = replace_model(request.body, self._model)
        if (
            is_whole
            and context.ask.stream
            and self._account.options(self._model).stream_options
        ):
            asking = wire.asking_for_usage(request.body, document)
            if asking is not request.body:
                request.hide_usage, request.body = True, asking

    def _fitted(self, document: dict[str, Any]) -> dict[str, Any]:
        """
        *document* as it came; converted where it has another protocol's shape, and
        with what the account refuses to be without.
        """
        ask, wire = self._context.ask, self._context.wire
        model, options = self._model, self._account.options
        if wire.is_misshapen(document):
            return self._converted(wire.name, document, None).body
        fitting = wire.fitted(document, model, options)
        if fitting is document or not ask.keep_digits():
            return fitting
        return wire.fitted(ask.document, model, options)

    def _converted(
        self, protocol: str, document: dict[str, Any], recall: Recall | None
    ) -> Converted:
        """*document* in *protocol*, the client's own or another."""
        context, account = self._context, self._account
        foreign = protocol != context.wire.name
        converted = convert_request(
            context.wire.name,
            protocol,
            document,
            model=context.ask.model,
            upstream_model=self._model,
            options=account.options(self._model),
            compact=context.path == COMPACT_PATH,
            maker=account.server if foreign else "",
            recall=recall,
        )
        context.record.dropped = converted.dropped
        return converted


def replace_model(body: bytes, model: str) -> bytes:
    """*body* with another ``model``; every other byte stays."""
    return with_known_member(body, "model", orjson.dumps(model))
