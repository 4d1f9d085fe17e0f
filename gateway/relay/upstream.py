"""
The way to every account: where a request goes, and who answers it.

The transport answers over HTTP; the trial account answers inside the process behind the
same seam. Nothing above this file knows which of the two it was.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from gateway import trial
from gateway.config.schema import Account, UpstreamLimits
from gateway.errors import UpstreamError
from gateway.protocols.json_access import read_object
from gateway.transport.interface import STOP, Feed, Transport, UpstreamResponse

MAX_BODY_BYTES = 128 * 1024 * 1024  # of a whole answer that is read


class HttpRequest(NamedTuple):
    """
    Attributes:
        protocol: that the account is asked in.
        path: behind ``base_url``, for example "/responses".
        query: of the client's URL, passed as it was.
    """

    protocol: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    query: str = ""
    method: str = "POST"


class Upstream:
    """The accounts' servers, and the trial account."""

    def __init__(self, transport: Transport, limits: UpstreamLimits) -> None:
        self._transport = transport
        self._limits = limits
        self._urls: dict[tuple[str, str], URL] = {}

    def replace(self, limits: UpstreamLimits) -> None:
        """Take up changed limits, for the requests that follow."""
        self._limits = limits

    async def open(self, account: Account, request: HttpRequest) -> UpstreamResponse:
        """
        Send *request* to *account* and return when the head of its answer is there.
        The caller limits how long that may take, and reads the body.

        Raises:
            UpstreamError: "upstream_connect", "upstream_reset",
                "upstream_malformed".
        """
        protocol, path, headers, body, query, method = request
        if account.embedded:
            document = read_object(body)
            answer = trial.answer(
                protocol,
                path,
                document,
                headers,
                now_unix=int(time.time()),
                ident=headers["x-request-id"],
            )
            return EmbeddedResponse(answer)
        try:
            return await self._transport.open(
                method,
                self._url(account, path, query),
                headers.items(),
                body,
                connect_timeout_s=self._limits.connect_timeout_s,
                idle_timeout_s=0.0,
            )
        except ValueError as error:
            raise UpstreamError("upstream_connect", detail=repr(error)) from None

    def _url(self, account: Account, path: str, query: str) -> URL:
        known = self._urls.get((account.base_url, path))
        if known is None:
            known = URL(account.base_url.rstrip("/") + path, encoded=True)
            if len(self._urls) < 10_000:
                self._urls[account.base_url, path] = known
        return URL(f"{known}?{query}", encoded=True) if query else known


class EmbeddedResponse:
    """An answer of the trial account, as an ``UpstreamResponse``."""

    def __init__(self, answer: trial.TrialResponse) -> None:
        self.status = answer.status
        self.headers = CIMultiDictProxy(CIMultiDict(answer.headers))
        self.idle_timeout_s = 0.0  # it is never silent
        whole = iter([(answer.delay_s, answer.body)])
        self._pieces = whole if answer.pieces is None else answer.pieces

    async def read(self) -> bytes:
        """See ``UpstreamResponse.read``."""
        for delay_s, piece in self._pieces:
            await asyncio.sleep(delay_s)
            return piece
        return b""

    async def body(self, limit_bytes: int) -> bytes:
        """See ``UpstreamResponse.body``."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def pump(self, feed: Feed) -> None:
        """See ``UpstreamResponse.pump``."""
        while piece := await self.read():
            rest = feed(piece)
            if rest is STOP:
                return
            if rest is not None:
                await rest

    def close(self, linger_s: float = 0.0) -> None:
        """See ``UpstreamResponse.close``."""
        self._pieces = iter(())
