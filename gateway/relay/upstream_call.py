"""
One call of an account: the request out, the head of its response in.

The body is read by the attempt. Whose fault a failure is, is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config.schema import Account
from gateway.context import RequestContext
from gateway.relay.failures import read_refusal
from gateway.relay.headers import downwards, upstream_request_id
from gateway.relay.upstream import HttpRequest, Upstream
from gateway.relay.upstream_request import UpstreamRequest
from gateway.telemetry import log
from gateway.transport.interface import Ended, UpstreamResponse

DROPPED = "x-gateway-dropped"
MAX_DROPPED_CHARS = 1024
LINGER_S = 1.0  # for the last chunk behind a terminal event
_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class UpstreamCall:
    """
    Args:
        request: as this account gets it.

    Attributes:
        response: None until its head is there.
    """

    __slots__ = ("request", "response", "_context", "_account", "_upstream")

    def __init__(
        self,
        context: RequestContext,
        account: Account,
        request: UpstreamRequest,
        upstream: Upstream,
    ) -> None:
        self.request = request
        self.response: UpstreamResponse | None = None
        self._context = context
        self._account = account
        self._upstream = upstream

    async def open(self) -> UpstreamResponse:
        """
        Send the request; return when the head of a 200 is there.

        Raises:
            UpstreamRefusal: an error status.
            UpstreamError: as ``Upstream.open``.
        """
        context, account, request = self._context, self._account, self.request
        context.mark("connecting", account=account.name)
        self.response = response = await self._upstream.open(
            account,
            HttpRequest(
                request.protocol,
                request.path,
                request.headers,
                request.body,
                context.query if request.same_protocol else "",
                user=context.user.name,
            ),
        )
        request.forget()
        ident = log.clean_id(upstream_request_id(response.headers))
        context.record.upstream_request_id = ident
        context.attempt.status = response.status
        context.mark("head", status=response.status, **response.facts)
        if response.status != 200:
            raise await read_refusal(response)
        return response

    def header(self, name: str) -> str:
        """The value of the response's header *name*; "" if there is none."""
        return self.response.headers.get(name, "") if self.response else ""

    def take_client_headers(self) -> dict[str, str]:
        """
        The headers that the client gets of the response. Its own are dropped with
        this: a long stream need not keep them.
        """
        response, context = self.response, self._context
        if response is None:
            return {}
        headers = downwards(
            response.headers,
            same_protocol=self.request.same_protocol,
            renamed=self.request.renamed,
        )
        response.headers = _NO_HEADERS
        if ident := context.record.upstream_request_id:
            headers["x-upstream-request-id"] = ident
        if DROPPED in context.headers:
            headers |= _dropped(context.record.dropped)
        return headers

    def finish(self, ended: Ended) -> None:
        """
        The answer is whole; let its framing end, unread.

        Args:
            ended: called once the upstream has nothing left to send; never if that
                takes longer than LINGER_S, or fails.
        """
        if self.response:
            self.response.close(LINGER_S, ended)

    def close(self, *, answered: bool = False) -> None:
        """Be done with the upstream; *answered*: the answer was whole."""
        if self.response:
            self.response.close(LINGER_S if answered else 0.0)


def _dropped(paths: Iterable[str]) -> dict[str, str]:
    """The header that names what was left out of a converted request, if anything."""
    names = ",".join(path for path in paths if _PRINTABLE.fullmatch(path))
    return {DROPPED: names[:MAX_DROPPED_CHARS]} if names else {}
