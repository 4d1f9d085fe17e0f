"""
How a request comes in: its key, its URL, its body, and what it asks for.

A request that is refused is refused as early as can be: by its key, by a key in its
URL, because the daemon drains or cannot keep records, for want of a place in the queue,
and only then by what its body says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiohttp import web

from gateway.accounts.session import Session, session_of
from gateway.admission.body_room import BodyRooms, BodyShare
from gateway.admission.interface import Holder, SlotSource
from gateway.client import body
from gateway.client.intake import Intake
from gateway.config.schema import Limits
from gateway.context import RequestContext
from gateway.endpoints.auth import Identity, refuse_keys_in
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.open_requests import OpenRequests
from gateway.endpoints.request_scope import RequestScope
from gateway.endpoints.websocket.create import Create
from gateway.errors import ClientError, GatewayError
from gateway.ledger.ledger import Ledger
from gateway.record import Record
from gateway.telemetry import log


class RequestReader:
    """
    Args:
        registry: has a place in the queue for a request whose body arrives.
        ledger: without it no model request is served.
    """

    def __init__(
        self,
        live: LiveConfig,
        open_requests: OpenRequests,
        registry: SlotSource,
        ledger: Ledger,
        intake: Intake,
    ) -> None:
        self._live = live
        self._open = open_requests
        self._registry = registry
        self._ledger = ledger
        self._intake = intake
        self._rooms = BodyRooms()

    def resize_room(self, user: str, max_bytes: int) -> None:
        """Change the room for bodies of *user* at once."""
        self._rooms.resize(user, max_bytes)

    async def context(
        self, scope: RequestScope, path: str, *, slot: bool = True
    ) -> RequestContext:
        """
        The model request of *scope*, read and understood.

        Args:
            path: the endpoint behind ``/v1``.
            slot: it runs in a slot of its user, and may have to wait for it.
        """
        request, record, keys = scope.request, scope.record, self._live.keys
        identity = self._identify(scope)
        query = _query_of(request)
        self._check_open()
        holder = _holder(record)
        if (data := self._maybe_whole(scope, identity, holder, slot)) is None:
            data = await self._rest_of_body(scope, identity, holder, slot)
        if self._live.keys is not keys:  # they changed while the body arrived
            self._check_user(identity)
            identity = self._identify(scope)
            if holder.user != record.user:  # the key is another's now
                holder = _holder(record)
        ask = body.parse(data, scope.wire.proofs)
        session = _noted(scope, ask, request.headers)
        assert scope.body_share
        return RequestContext(
            ask=ask,
            record=record,
            wire=scope.wire,
            path=path,
            query=query,
            headers=request.headers,
            user=identity.user,
            limits=identity.limits,
            client=scope.client,
            session=session,
            holder=holder,
            deadline=record.arrived + identity.limits.queue_timeout_s,
            share=scope.body_share,
        )

    def _check_user(self, identity: Identity) -> None:
        """Refuse a request whose user has been removed since its head arrived."""
        if identity.user.name not in self._live.users:
            raise ClientError("user_removed")

    def message(self, scope: RequestScope, create: Create) -> RequestContext:
        """
        The same for a request that came as a message on the websocket of *scope*: whose
        key the upgrade bore is asked anew.
        """
        record = scope.record
        identity = self._identify(scope)
        self._check_open()
        record.arrived = time.monotonic()
        ask = create.body(self._live.config.server.max_body_bytes)
        session = _noted(scope, ask, create.headers)
        assert scope.body_share
        return RequestContext(
            ask=ask,
            record=record,
            wire=scope.wire,
            path=scope.wire.path,
            query="",
            headers=create.headers,
            user=identity.user,
            limits=identity.limits,
            client=scope.client,
            session=session,
            holder=_holder(record),
            deadline=record.arrived + identity.limits.queue_timeout_s,
            share=scope.body_share,
        )

    def enter_room(self, user: str, limits: Limits) -> BodyShare:
        """A share of the room for bodies of *user*; it takes nothing yet."""
        return self._rooms.enter(user, limits.max_waiting_bytes)

    def check_open(self) -> None:
        """
        Raises:
            Overloaded: "draining": nothing new is taken.
        """
        self._open.check_draining()

    def _check_open(self) -> None:
        """Refuse what could not be served, or not be recorded."""
        self._open.check_draining()
        if not self._ledger.healthy:
            raise GatewayError("ledger_unavailable", detail=self._ledger.reason)

    def _maybe_whole(
        self, scope: RequestScope, identity: Identity, holder: Holder, slot: bool
    ) -> bytes | None:
        """
        The body of a request that takes its place in the queue now, if there is nothing
        to wait for; else None, and ``_rest_of_body`` gives it.
        """
        if slot:
            self._registry.arrive(holder)
        limit_bytes = identity.limits.max_waiting_bytes
        share = self._rooms.enter(identity.user.name, limit_bytes)
        scope.body_share, data = share, None
        max_bytes, failed = self._live.config.server.max_body_bytes, True
        try:
            data = self._intake.maybe_whole(scope.request, share, max_bytes)
            failed = False
        finally:
            if slot and (failed or data is not None):
                self._registry.arrived(holder)
        if data is not None:
            scope.record.arrived = time.monotonic()
        return data

    async def _rest_of_body(
        self, scope: RequestScope, identity: Identity, holder: Holder, slot: bool
    ) -> bytes:
        """The body of a request that keeps its place in the queue meanwhile."""
        try:
            return await self.body(scope, identity)
        finally:
            if slot:
                self._registry.arrived(holder)

    async def body(self, scope: RequestScope, identity: Identity) -> bytes:
        """The body of the request of *scope*, which takes up room of its user."""
        limit_bytes, share = identity.limits.max_waiting_bytes, scope.body_share
        if share is None:
            share = self._rooms.enter(identity.user.name, limit_bytes)
        scope.body_share, scope.reading_body = share, True
        try:
            data = await self._intake.read(
                scope.request, share, self._live.config.server.max_body_bytes
            )
        finally:
            scope.reading_body = False
            if share.waited_s:
                _note_room(scope.record, share.waited_s, limit_bytes)
        scope.record.arrived = time.monotonic()
        return data

    def identity(self, scope: RequestScope) -> Identity:
        """
        Whose key a request that asks for no answer of a model bears.

        Raises:
            GatewayError: it has none, or nothing new is taken.
        """
        identity = self._identify(scope)
        self._open.check_draining()
        return identity

    def _identify(self, scope: RequestScope) -> Identity:
        """Whose key the request bears; noted in the record."""
        identity, record = self._live.keys.identify(scope.request.headers), scope.record
        record.user, record.key = identity.user.name, identity.key
        record.mark(time.monotonic(), "authenticated", user=record.user)
        return identity


def _noted(
    scope: RequestScope, ask: body.RequestBody, headers: Mapping[str, str]
) -> Session:
    """The session that *ask* belongs to; noted in the record with what it asks for."""
    record = scope.record
    record.model, record.stream = log.clean_id(ask.model), ask.stream
    session = session_of(headers, ask.outline, record.user)
    record.session = log.clean_id(session.value)
    return session


def _query_of(request: web.BaseRequest) -> str:
    """The query string of *request*, which may hold no key."""
    if "?" not in request.raw_path:
        return ""
    refuse_keys_in(request.query)
    return request.rel_url.raw_query_string


def _holder(record: Record) -> Holder:
    return Holder(record.request_id, record.user)


def _note_room(record: Record, waited_s: float, limit_bytes: int) -> None:
    record.mark(
        time.monotonic(),
        "room_awaited",
        waited_s=round(waited_s, 3),
        limit_bytes=limit_bytes,
    )
