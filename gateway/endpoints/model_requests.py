"""
HTTP in: who asks, what for, and the one record of it.

Every model request walks the same way: request id, key, body, user slot, relay. The
way back is an exception; here it becomes the client's HTTP status or its stream's
ending, and the record is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounting.settlement import Accounting
from gateway.accounts.accounts import Accounts
from gateway.accounts.session import session_of
from gateway.admission.body_room import BodyRooms, BodyShare
from gateway.admission.registry import Holder, Place, Registry
from gateway.client import body
from gateway.client import kinds as clients
from gateway.client.answer import ClientAnswer
from gateway.client.answer_headers import id_headers
from gateway.client.framing import send_whole
from gateway.client.intake import Intake
from gateway.client.interface import QueuePlace
from gateway.client.kinds import ClientKind
from gateway.client.sse_stream import SseStream
from gateway.config.cors import Origins
from gateway.config.schema import Config
from gateway.context import RequestContext
from gateway.endpoints.auth import Identity, Keys, refuse_keys_in
from gateway.endpoints.request_ids import request_id_of
from gateway.errors import (
    ClientError,
    GatewayError,
    Overloaded,
    PassedOn,
    UpstreamError,
)
from gateway.ledger.ledger import Ledger
from gateway.protocols import PROTOCOLS
from gateway.protocols.protocol import WireProtocol, response_id_of
from gateway.protocols.stream_state import StreamState
from gateway.record import Record
from gateway.relay.failover import Answer, Relay
from gateway.telemetry import log

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def refusal(error: GatewayError, wire: WireProtocol, record: Record) -> web.Response:
    """*error* as a plain HTTP answer in the protocol's form."""
    headers = id_headers(record)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401 or error.final:
        headers["x-should-retry"] = "false"
    text = wire.error_body(error, record.request_id)
    if isinstance(error, PassedOn) and error.raw:
        text = error.raw
    record.status = wire.error_status(error)
    return web.Response(
        status=record.status,
        headers=headers,
        body=text,
        content_type="application/json",
    )


@dataclass(slots=True, eq=False)
class RequestScope:
    """One request at the door: its record, and its stream once there is one."""

    request: web.BaseRequest
    record: Record
    wire: WireProtocol
    client: ClientKind
    task: asyncio.Task[web.StreamResponse] | None = None
    stream: SseStream | None = None
    down: ClientAnswer | None = None
    context: RequestContext | None = None
    share: BodyShare | None = None
    arriving: bool = False  # its body is being read
    answered: bool = False  # its whole answer is on the way
    stop: GatewayError | None = None  # why it was stopped from outside


Inner = Callable[[RequestScope], Awaitable[web.StreamResponse]]


class Handlers:
    """
    The model endpoints, and the frame that every other endpoint shares.

    Attributes:
        draining: nothing new is taken.
    """

    def __init__(
        self,
        config: Config,
        keys: Keys,
        registry: Registry,
        relay: Relay,
        books: Accounting,
        ledger: Ledger,
        pool: Accounts,
        allowance: BudgetGuard,
        intake: Intake,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.draining = False
        self._draining_since = 0.0  # monotonic
        self._rooms = BodyRooms()
        self.replace(config, keys)
        self._intake = intake
        self._visits: set[RequestScope] = set()
        self._all_served = asyncio.Event()
        self._when_drained: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._pool = pool
        self._allowance = allowance
        self._registry = registry
        self._relay = relay
        self._books = books
        self._log = log.get()

    def recorded(self, protocol: str, inner: Inner, *, kept: bool = True) -> Handler:
        """
        *inner* with a record, told once at its end, and failures in *protocol*'s form.

        Args:
            kept: whether the ledger keeps the record.
        """
        wire = PROTOCOLS[protocol]

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            client = clients.recognise(request.headers)
            record = self._record(request, wire, client)
            visit = RequestScope(request, record, wire, client)
            record.durable = not kept
            visit.task = asyncio.current_task(self._loop)
            self._visits.add(visit)
            try:
                return await inner(visit)
            except GatewayError as error:
                return await self._failed(error, visit)
            except asyncio.CancelledError:
                if visit.stop is None or visit.task is None:
                    raise  # the client has left
                visit.task.uncancel()
                return await self._failed(visit.stop, visit)
            except Exception as error:
                own = visit.context.ask.data if visit.context else b""
                self._log.error("request.crashed", exc_info=error, own_words=own)
                crash = GatewayError("internal_error", detail=repr(error))
                return await self._failed(crash, visit)
            finally:
                self._visits.discard(visit)
                if self.draining and not self._visits:
                    self._all_served.set()
                    self._when_drained()
                if visit.down:
                    visit.down.stop_keepalives()
                if visit.share:
                    visit.share.release()
                if not record.drained:
                    self._close(visit)

        return handle

    def model_endpoint(self, protocol: str, path: str) -> Handler:
        """The handler of ``POST /v1`` + *path*."""

        async def serve(visit: RequestScope) -> web.StreamResponse:
            context = visit.context = await self.context(visit, path)
            down = None
            if context.ask.stream and path == visit.wire.path:
                down = visit.down = self._downstream(visit, context)
                down.start_keepalives()
            # What never can be is refused before anything is waited for.
            self._allowance.admit(context.user.name, context.client.name)
            self._pool.chooser.check_model(context.ask.model)
            context.slot = await self._registry.user_slot(
                context.user.name,
                context.holder,
                context.deadline,
                session=context.session.value,
            )
            try:
                self._allowance.check(context)
                answer = await self._relay.run(context, down)
            finally:
                if context.slot:  # else a drain has it
                    context.slot.release()
            if visit.stream and visit.stream.response:
                return visit.stream.response
            assert answer is not None
            return await self._hand_out(answer, visit)

        return self.recorded(protocol, serve)

    async def _hand_out(
        self, answer: Answer, visit: RequestScope
    ) -> web.StreamResponse:
        """Send a whole answer; a client that leaves meanwhile has not had it."""
        headers = {**answer.headers, **id_headers(visit.record)}
        visit.answered = True
        try:
            return await send_whole(visit.request, headers, answer.body)
        except ConnectionError as gone:
            visit.record.client_left(has_status=True)
            raise ClientError("client_gone", detail=repr(gone)) from None
        except asyncio.CancelledError:
            visit.record.client_left(has_status=True)
            raise

    def _close(self, visit: RequestScope) -> None:
        record = visit.record
        _note_end_of_wait(record)
        if record.outcome == "client_gone":
            record.mark(time.monotonic(), "client_left")
        elif record.outcome in ("failed", "refused"):
            record.mark(time.monotonic(), record.outcome, code=record.error_code)
        self._books.close(record)

    # --- changes and the stop ---------------------------------------------------------

    def replace(self, config: Config, keys: Keys) -> None:
        """Take up a changed config."""
        self.config, self._keys = config, keys
        self._origins = Origins(config.server.allow_origins)
        for user in config.user:
            room_bytes = user.limits(config.limits).max_waiting_bytes
            self._rooms.resize(user.name, room_bytes)

    @property
    def serving(self) -> int:
        """How many requests are being served."""
        return len(self._visits)

    async def finished(self) -> None:
        """Return when a drain has served everybody."""
        while self._visits:
            self._all_served.clear()
            await self._all_served.wait()

    def drain(self, when_done: Callable[[], None] = lambda: None) -> None:
        """Take nothing new, and send away who waits for a slot."""
        self.draining = True
        self._when_drained = when_done
        self._draining_since = time.monotonic()
        for visit in list(self._visits):
            waits = visit.context and visit.context.holder.state.startswith("queued")
            if waits or visit.arriving:
                self._stop(visit, self._draining())

    def _draining(self) -> Overloaded:
        """The refusal while streams finish; the next daemon comes after this one."""
        left_s = self.config.server.drain_timeout_s - (
            time.monotonic() - self._draining_since
        )
        return Overloaded("draining", retry_after_s=left_s)

    def end_open(self) -> None:
        """End what is still being served."""
        for visit in list(self._visits):
            closed = visit.down and visit.down.state is StreamState.CLOSED
            if not (closed or visit.answered):
                self._stop(visit, GatewayError("gateway_shutdown"))

    def abort_open(self) -> None:
        """Cut off who does not take its ending."""
        for visit in self._visits:
            if visit.request.transport:
                visit.request.transport.abort()

    def _stop(self, visit: RequestScope, error: GatewayError) -> None:
        if visit.stop is None and visit.task:
            visit.stop = error
            visit.task.cancel()

    # --- the way in -------------------------------------------------------------------

    def _record(
        self, request: web.BaseRequest, wire: WireProtocol, client: ClientKind
    ) -> Record:
        unix_s = time.time()
        record = Record(
            request_id_of(request.headers, unix_s), unix_s, time.monotonic()
        )
        record.protocol, record.client = wire.name, client.name
        record.response_id = response_id_of(record.request_id)
        record.names_account = self.config.server.tell_account
        if self._origins:
            record.extra_headers = self._origins.answer(
                request.headers.get("Origin", "")
            )
        record.mark(record.received, "received", path=request.path)
        log.bind(record.request_id)
        return record

    async def context(
        self, visit: RequestScope, path: str, *, slot: bool = True
    ) -> RequestContext:
        """
        The request of *visit*, read and understood.

        Args:
            slot: it runs in a slot of its user, and may have to wait for it.
        """
        request, record = visit.request, visit.record
        identity, keys = self.identify(request, record), self._keys
        query = _query_of(request)
        if self.draining:
            raise self._draining()
        if not self._ledger.healthy:
            raise GatewayError("ledger_unavailable", detail=self._ledger.reason)
        holder = _holder(record)
        if slot:
            self._registry.arrive(holder)
        try:
            data = await self.body(visit, identity)
        finally:
            if slot:
                self._registry.arrived(holder)
        if self._keys is not keys:  # a reload came while the body arrived
            identity = self.identify(request, record)
            if holder.user != record.user:  # the key is another's now
                holder = _holder(record)
        ask = body.parse(data)
        record.model, record.stream = log.clean_id(ask.model), ask.stream
        session = session_of(request.headers, ask.document, record.user)
        record.session = log.clean_id(session.value)
        assert visit.share
        return RequestContext(
            ask,
            record,
            visit.wire,
            path,
            query,
            request.headers,
            identity.user,
            identity.limits,
            visit.client,
            session,
            holder,
            record.arrived + identity.limits.queue_timeout_s,
            visit.share,
        )

    async def body(self, visit: RequestScope, identity: Identity) -> bytes:
        """The body of the request of *visit*, which takes up room of its user."""
        limit_bytes = identity.limits.max_waiting_bytes
        share = visit.share = self._rooms.enter(identity.user.name, limit_bytes)
        visit.arriving = True
        try:
            data = await self._intake.read(
                visit.request, share, self.config.server.max_body_bytes
            )
        finally:
            visit.arriving = False
        visit.record.arrived = time.monotonic()
        return data

    def enter(self, visit: RequestScope) -> Identity:
        """Who asks at an endpoint beside the model endpoints; see ``context``."""
        identity = self.identify(visit.request, visit.record)
        if self.draining:
            raise self._draining()
        return identity

    def identify(self, request: web.BaseRequest, record: Record) -> Identity:
        """Who asks; noted in *record*."""
        identity = self._keys.identify(request.headers)
        record.user, record.key = identity.user.name, identity.key
        record.mark(time.monotonic(), "authenticated", user=record.user)
        return identity

    def _downstream(self, visit: RequestScope, context: RequestContext) -> ClientAnswer:
        record = context.record
        visit.stream = SseStream(visit.request, record, context.wire, context.client)
        down = ClientAnswer(visit.stream, record, context.limits.ping_interval_s)
        if meter := self._allowance.usage_headers(context):
            down.add_headers(meter)
        down.queue_place = lambda: self._queue_place(context)
        return down

    def _queue_place(self, context: RequestContext) -> QueuePlace | None:
        place = self._registry.place(context.holder)
        if place is None:
            return None
        waited_s = context.record.waited_s(time.monotonic())
        return QueuePlace(place.position, place.expected_s, waited_s)

    # --- the way back -----------------------------------------------------------------

    async def _failed(
        self, error: GatewayError, visit: RequestScope
    ) -> web.StreamResponse:
        """Tell the client of *error* in the form that is still open."""
        error.__traceback__ = None  # its frames hold it, and the request
        record, down = visit.record, visit.down
        if error.code == "client_gone" or (down and down.state is StreamState.CLOSED):
            # It left, or has its terminal: the record says already how it ended.
            return _opened(visit) or web.Response(status=error.status)
        refused = not record.attempts and error.origin != "upstream"
        record.set_outcome("refused" if refused else "failed", error.origin, error.code)
        record.detail = _detail(error, visit)
        _note_end_of_wait(record)
        if down is None or down.can_refuse:
            answer = refusal(error, visit.wire, record)
            if self.draining or not visit.request.content.is_eof():
                answer.force_close()  # the rest of the body is not wanted
            return answer
        if down.seen.response_id:
            record.response_id = down.seen.response_id
        self._log.warning(
            "stream.failed",
            response_id=record.response_id,
            error_code=error.code,
            origin=error.origin,
            detail=record.detail,
        )
        if visit.context:
            visit.context.mark_ending("failed", keepalives=down.keepalives)
        with suppress(ClientError):  # it left before it could be told
            await down.fail(error)
        return _opened(visit) or web.Response(status=error.status)


def _opened(visit: RequestScope) -> web.StreamResponse | None:
    """The stream that *visit* has begun, if any."""
    return visit.stream.response if visit.stream else None


def _detail(error: GatewayError, visit: RequestScope) -> str:
    """What log and ledger say of *error*; an upstream's words are redacted already."""
    if isinstance(error, UpstreamError | PassedOn):
        return error.detail
    return log.detail(error.detail, visit.context.ask.data if visit.context else b"")


def _query_of(request: web.BaseRequest) -> str:
    """The query string of *request*, which may hold no key."""
    if "?" not in request.raw_path:
        return ""
    refuse_keys_in(request.query)
    return request.rel_url.raw_query_string


def _holder(record: Record) -> Holder:
    holder = Holder(record.request_id, record.user)
    holder.on_wait = partial(_note_wait, record)
    return holder


def _note_wait(record: Record, place: Place) -> None:
    record.queued = True
    record.mark(
        time.monotonic(),
        "queued",
        scope=place.scope,
        position=place.position,
        expected_s=round(place.expected_s, 1),
    )


def _note_end_of_wait(record: Record) -> None:
    """A request that was refused in line, or left it, has waited, too."""
    if record.queue_ms is None and (
        record.error_code in ("queue_full", "queue_timeout")
        or any(event == "queued" for _, event, _ in record.marks)
    ):
        record.queue_ms = record.waited_s(time.monotonic()) * 1000
