"""
One websocket of a client: its messages, its lanes, its responses, its end.

    message ──▶ lane ──▶ task: scope ──▶ ``Recorder.serve`` ──▶ ``ModelRequests``
       └──▶ interrupt: the task of the response is stopped

Rule 1: a response is a request of its own: id, key, record, slots, queue, ending.
Rule 2: what is wrong with a message is answered, and the websocket goes on.
Rule 3: an idle websocket is closed without a word; a busy one when it is idle.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from gateway.admission.body_room import BodyShare
from gateway.client.answer import NOTHING, ClientAnswer
from gateway.client.body import parse_object
from gateway.client.websocket.client_socket import (
    GOING_AWAY,
    NORMAL,
    POLICY,
    ClientMessage,
    ClientSocket,
)
from gateway.client.websocket.frame_stream import FrameStream
from gateway.client.websocket.text_frames import with_member
from gateway.endpoints.auth import Identity
from gateway.endpoints.request_scope import RequestScope
from gateway.endpoints.websocket import create
from gateway.endpoints.websocket.create import Create
from gateway.endpoints.websocket.lanes import Lanes, name_of
from gateway.endpoints.websocket.services import Services
from gateway.endpoints.websocket.turn_memory import Key
from gateway.errors import ClientError, GatewayError
from gateway.protocols.lossless_json import has_long_number, loads
from gateway.protocols.protocol import response_id_of
from gateway.protocols.responses.frames import (
    INTERRUPTED,
    not_interrupted,
    not_steered,
    warm_up_events,
)
from gateway.telemetry import log

PROTOCOL = "responses"
PING_S = 60.0  # between two signs that an idle connection is in use
_UNANSWERED = ("response.processed",)  # older clients say it


@dataclass(slots=True)
class _Asked:
    """
    A response that was asked for.

    Attributes:
        share: what its message takes of the user's room.
        document: the message; empty once the request was made of it.
        parent_id: the response that it names as the one before.
    """

    share: BodyShare
    lane: str
    document: dict[str, Any]
    parent_id: object


class _Running(NamedTuple):
    """A response that runs."""

    scope: RequestScope
    stream: FrameStream
    lane: str

    def has_id(self, ident: object) -> bool:
        """Whether its client knows it as *ident*."""
        answer = self.scope.answer
        return bool(ident and answer and answer.seen.response_id == ident)


class ResponseSocket:
    """
    Args:
        base: the request that was upgraded.
        identity: whose key it bore.
    """

    def __init__(
        self,
        services: Services,
        request: web.BaseRequest,
        socket: ClientSocket,
        identity: Identity,
        connection_id: str,
    ) -> None:
        self.socket = socket
        self.connection_id = connection_id
        self.user = identity.user.name
        self.responses = 0
        self._services = services
        self._request = request
        self._ping_interval_s = identity.limits.ping_interval_s
        self._headers = create.base_headers(request.headers)
        self._lanes: Lanes[_Asked] = Lanes()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[str, _Running] = {}  # by request id
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._close_code = 0  # that it is to be closed with when it is idle

    # --- its life ---------------------------------------------------------------------

    async def serve(self) -> None:
        """Answer messages until one side closes it."""
        self._tick()
        try:
            while message := await self.socket.next():
                await self._take(message)
            await self.socket.closed()
        finally:
            await self._end()

    async def _end(self) -> None:
        """Nothing runs or waits any more when this returns."""
        if self._timer is not None:
            self._timer.cancel()
        self.socket.release()
        for asked in self._lanes.clear():
            asked.share.release()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._services.turns.drop(self.user, self.connection_id)

    def leave(self) -> None:
        """The daemon goes away: close it when it is idle."""
        self.close_when_idle(GOING_AWAY)

    def close_when_idle(self, code: int) -> None:
        """Close it with *code*: now, or when what runs has ended."""
        self._close_code = self._close_code or code
        if self._lanes.idle:
            self.socket.close(self._close_code)

    def check_key(self) -> None:
        """Close it, now or later, if its key is not known any more."""
        try:
            self._services.live.keys.identify(self._request.headers)
        except ClientError:
            self.close_when_idle(POLICY)

    def _tick(self) -> None:
        """Look after it now and then."""
        age_s = self._loop.time() - self._opened_at
        left_s = self._services.live.config.server.websocket_max_age_s - age_s
        if left_s <= 0:
            self.close_when_idle(NORMAL)
        elif self._timer is not None:
            self.socket.ping()
            self.check_key()
        due_s = PING_S if left_s <= 0 else min(PING_S, left_s)
        self._timer = self._loop.call_later(due_s, self._tick)

    # --- messages ---------------------------------------------------------------------

    async def _take(self, message: ClientMessage) -> None:
        """See what *message* is."""
        lane: object = None
        try:
            document = self._parsed(message)
            lane = document.get("stream_id")
            kind = document.get("type")
            if kind == create.TYPE:
                self._ask(message, document)
                return
            if kind == "response.interrupt":
                blocked = self._interrupt(document)
            elif kind == "response.steer":
                parent = document.get("previous_response_id")
                blocked = self._say(not_steered(parent), lane, parent)
            elif kind in _UNANSWERED:
                blocked = False
            else:
                raise ClientError(
                    "invalid_request",
                    "'type' must be response.create, response.interrupt or "
                    "response.steer",
                    param="type",
                )
            message.share.release()
            if blocked:
                await self.socket.drain()
        except GatewayError as error:
            await self._refuse(error, message, name_of(lane))
        except ConnectionError:
            message.share.release()  # it has left: the next read says so

    def _parsed(self, message: ClientMessage) -> dict[str, Any]:
        if not message.is_text:
            raise ClientError("invalid_request", "A message must be text, not binary")
        document = parse_object(message.data)
        if has_long_number(message.data):
            document = loads(message.data)
        return document

    def _say(self, text: bytes, lane: object, ident: object) -> bool:
        """
        Answer a message about the response *ident*: in the *lane* that it names, else
        in that of the response.
        """
        if name := name_of(lane) or self._lane_of(ident):
            text = with_member(text, "stream_id", orjson.dumps(name))
        return self.socket.write_text(text)

    def _lane_of(self, ident: object) -> str:
        """The lane of the response *ident* if it runs or can be named; else ""."""
        for one in self._running.values():
            if one.has_id(ident):
                return one.lane
        if not isinstance(ident, str):
            return ""
        key = Key(self.connection_id, ident)
        turn = self._services.turns.find(self.user, key)
        return turn.lane if turn else ""

    def _ask(self, message: ClientMessage, document: dict[str, Any]) -> None:
        """
        Let a response begin in its lane, or wait for it.

        Raises:
            GatewayError: it can do neither.
        """
        lane = self._lanes.enter(document.get("stream_id"))
        self._lanes.check()
        if self._close_code == NORMAL:
            raise ClientError("websocket_connection_limit_reached")
        parent = document.get("previous_response_id")
        asked = _Asked(message.share, lane, document, parent)
        self._lanes.add(lane, asked)
        self._start()

    def _start(self) -> None:
        """Begin what may run now."""
        while asked := self._lanes.start():
            task = self._loop.create_task(self._run(asked), name="websocket-response")
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, asked))

    def _done(self, asked: _Asked, task: asyncio.Task[None]) -> None:
        """A response has ended; also one that was cancelled before its first step."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.get().error("request.crashed", exc_info=error)
        asked.share.release()
        self._lanes.done(asked.lane)
        self._start()
        if self._close_code:
            self.close_when_idle(self._close_code)

    # --- responses --------------------------------------------------------------------

    async def _run(self, asked: _Asked) -> None:
        """Answer one ``response.create``."""
        scope, stream = self._scope(asked.share, asked.lane)
        if asked.document.get("generate") is False:
            await self._warm_up(asked, scope, stream)
            return
        self.responses += 1
        self._running[scope.record.request_id] = _Running(scope, stream, asked.lane)
        try:
            await self._services.recorder.serve(
                scope, partial(self._respond, asked, stream)
            )
        finally:
            del self._running[scope.record.request_id]

    def _scope(self, share: BodyShare, lane: str) -> tuple[RequestScope, FrameStream]:
        """The scope of a request whose every failure ends its answer."""
        recorder, socket = self._services.recorder, self.socket
        scope = recorder.message_scope(self._request, PROTOCOL, self.connection_id)
        scope.body_share = share
        record = scope.record
        stream = FrameStream(socket, record, scope.wire, scope.client, lane)
        scope.answer = ClientAnswer(stream, record, self._ping_interval_s)
        return scope, stream

    async def _respond(
        self, asked: _Asked, stream: FrameStream, scope: RequestScope
    ) -> web.StreamResponse:
        """The endpoint of one request."""
        made = self._create(asked)
        stream.on_end = partial(self._remember, asked, made, stream, scope)
        return await self._services.model_requests.serve_message(scope, stream, made)

    def _create(self, asked: _Asked) -> Create:
        """The request, with the turn that it goes on from; it takes the document."""
        document, asked.document = asked.document, {}
        turns, ident = self._services.turns, asked.parent_id
        parent, was_here = None, False
        if isinstance(ident, str):
            key = Key(self.connection_id, ident)
            parent = turns.find(self.user, key)
            was_here = parent is None and turns.was_here(key)
        return Create(document, self._headers, parent, was_here=was_here)

    def _remember(
        self,
        asked: _Asked,
        made: Create,
        stream: FrameStream,
        scope: RequestScope,
        terminal: bytes,
    ) -> None:
        """An answer ends: the next may go on from it, or no longer from its parent."""
        record, turns = scope.record, self._services.turns
        if record.outcome in ("ok", "incomplete"):
            stream.output.take_terminal(terminal)
            if record.response_id and not stream.output.too_large:
                turn = made.turn(stream.output.items, asked.lane)
                key = Key(self.connection_id, record.response_id)
                turns.add(self.user, key, turn)
        elif record.origin != "gateway" and made.parent is not None:
            # As the vendor has it, for the lane that the parent ran in.
            ident = asked.parent_id
            if made.parent.lane == asked.lane and isinstance(ident, str):
                turns.forget(self.user, Key(self.connection_id, ident))

    async def _warm_up(
        self, asked: _Asked, scope: RequestScope, stream: FrameStream
    ) -> None:
        """Answer a request that generates nothing: it is no request to anybody."""
        record, model = scope.record, asked.document.get("model")
        try:
            self._services.live.keys.identify(self._request.headers)
            made = self._create(asked)
            made.check()
            ident = response_id_of(record.request_id)
            turn = made.turn(b"", asked.lane)
            self._services.turns.add(self.user, Key(self.connection_id, ident), turn)
            model = model if isinstance(model, str) else ""
            said = warm_up_events(ident, model, int(record.started_at))
        except GatewayError as error:
            said = stream.failure(error, NOTHING)
        try:
            if stream.put(said):
                await stream.drain()
        except ConnectionError:
            pass  # it is noticed by the reader

    async def _refuse(
        self, error: GatewayError, message: ClientMessage, lane: str
    ) -> None:
        """Answer a message that is no request with *error*, and keep a record of it."""
        scope, _ = self._scope(message.share, lane)

        async def refuse(scope: RequestScope) -> web.StreamResponse:
            identity = self._services.live.keys.identify(self._request.headers)
            scope.record.user, scope.record.key = identity.user.name, identity.key
            raise error

        await self._services.recorder.serve(scope, refuse)

    # --- interrupts -------------------------------------------------------------------

    def _interrupt(self, document: dict[str, Any]) -> bool:
        """Stop the response that *document* names, if its client has some of it."""
        ident = document.get("response_id")
        for one in self._running.values():
            if one.has_id(ident) and not one.scope.has_ending:
                if one.scope.answer and one.scope.answer.settle is not None:
                    one.scope.answer.settle()  # frames that have passed count
                blocked = one.stream.accept_interrupt(str(ident))
                one.scope.stop(ClientError(INTERRUPTED))
                return blocked
        return self._say(not_interrupted(ident), document.get("stream_id"), ident)
