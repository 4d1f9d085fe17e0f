"""
``GET /v1/responses`` as the upgrade to a websocket, and all websockets that are open.

A refused upgrade is answered and recorded as every other refusal. The libraries for
websockets are loaded at the first upgrade.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.client.answer_headers import id_headers
from gateway.client.kinds import recognise
from gateway.content_coding import DecodeScheduler
from gateway.endpoints.auth import Identity, refuse_keys_in
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.model_requests import ModelRequests
from gateway.endpoints.recording import Handler, Recorder
from gateway.endpoints.request_ids import request_id_of
from gateway.endpoints.request_reader import RequestReader
from gateway.endpoints.request_scope import RequestScope
from gateway.endpoints.websocket.services import Services
from gateway.endpoints.websocket.turn_memory import TurnMemory
from gateway.errors import ClientError, GatewayError, Overloaded
from gateway.record import Record
from gateway.telemetry import log

if TYPE_CHECKING:
    from gateway.endpoints.websocket.response_socket import ResponseSocket

MAX_OPEN = 2000  # of one user
MESSAGE_LIMIT = "x-codex-websocket-max-message-bytes"


class WebSockets:
    """
    The handler of upgrades, and what is open.

    Args:
        scheduler: shared with all others who decode.
    """

    def __init__(
        self,
        live: LiveConfig,
        recorder: Recorder,
        reader: RequestReader,
        model_requests: ModelRequests,
        scheduler: DecodeScheduler,
    ) -> None:
        self._services = Services(
            live, recorder, reader, model_requests, TurnMemory(), scheduler
        )
        self._open: dict[str, ResponseSocket] = {}
        self._of_user: Counter[str] = Counter()
        self._log = log.get()

    def __len__(self) -> int:
        return len(self._open)

    def endpoint(self, protocol: str) -> Handler:
        """The handler of ``GET`` at the path that asks a model of *protocol*."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await self._upgrade(request, protocol)
            except GatewayError as error:
                refusal = error

            async def refuse(scope: RequestScope) -> web.StreamResponse:
                self._services.reader.identity(scope)
                raise refusal

            recorded = self._services.recorder.recorded
            return await recorded(protocol, refuse, kept=False)(request)

        return handle

    async def _upgrade(
        self, request: web.BaseRequest, protocol: str
    ) -> web.StreamResponse:
        """
        Answer with 101, and serve the websocket to its end.

        Raises:
            GatewayError: it is refused.
        """
        from gateway.client.websocket.client_socket import ClientSocket
        from gateway.client.websocket.handshake import agree, asks_for_websocket
        from gateway.endpoints.websocket.response_socket import ResponseSocket

        services, headers = self._services, request.headers
        identity = services.live.keys.identify(headers)
        if "?" in request.raw_path:
            refuse_keys_in(request.query)
        services.reader.check_open()
        if not asks_for_websocket(headers):
            raise ClientError("upgrade_required")
        handshake = agree(headers)
        self._check_number(request, identity)
        limit_bytes = services.live.config.server.max_body_bytes
        socket = ClientSocket(
            request,
            handshake,
            lambda: services.reader.enter_room(identity.user.name, identity.limits),
            limit_bytes,
            services.scheduler,
        )
        record = self._record(request)
        said = {MESSAGE_LIMIT: str(limit_bytes), **_handshake_headers(record)}
        try:
            response = socket.open({**handshake.headers, **said})
        except ConnectionError:
            return web.Response(status=499)  # it has left already
        one = ResponseSocket(services, request, socket, identity, record.request_id)
        await self._serve(one, identity, record)
        return response

    def _check_number(self, request: web.BaseRequest, identity: Identity) -> None:
        if self._of_user[identity.user.name] < MAX_OPEN:
            return
        refusal = Overloaded("too_many_websockets", retry_after_s=10.0)
        if recognise(request.headers).reads_failed:
            refusal.status = 426  # Codex goes on over HTTP, and shows nothing
        raise refusal

    def _record(self, request: web.BaseRequest) -> Record:
        """The ids of the upgrade; it is no request for an answer, and has no row."""
        unix_s = time.time()
        ident = request_id_of(request.headers, unix_s)
        if ident in self._open:  # a client's own id, used twice
            ident = request_id_of({}, unix_s)
        return Record(ident, unix_s, time.monotonic())

    async def _serve(
        self, one: ResponseSocket, identity: Identity, record: Record
    ) -> None:
        """From the 101 to the end."""
        ident, user, began = one.connection_id, one.user, time.monotonic()
        self._open[ident] = one
        self._of_user[user] += 1
        facts = {"connection_id": ident, "user": user, "request_id": None}
        self._log.info("websocket.opened", **facts, key=identity.key)
        try:
            await one.serve()
        finally:
            del self._open[ident]
            self._of_user[user] -= 1
            if not self._of_user[user]:
                del self._of_user[user]
            self._log.info(
                "websocket.closed",
                **facts,
                responses=one.responses,
                close_code=one.socket.close_code,
                duration_s=round(time.monotonic() - began, 1),
            )

    # --- all of them ------------------------------------------------------------------

    def drain(self) -> None:
        """Close those that are idle, and the others when they are."""
        for one in [*self._open.values()]:
            one.leave()

    def check_keys(self) -> None:
        """Close those whose key is not known any more."""
        for one in [*self._open.values()]:
            one.check_key()


def _handshake_headers(record: Record) -> dict[str, str]:
    """The ids of the upgrade; nothing has waited yet, and no account was asked."""
    headers = id_headers(record)
    return {
        name: value
        for name, value in headers.items()
        if not name.startswith("x-gateway-")
    }
