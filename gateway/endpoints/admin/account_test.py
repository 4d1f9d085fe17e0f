"""
``POST /api/v1/accounts/{name}/test``: one small real request, step by step.

It is a request like any other, with a row in the ledger and a line in the log, of the
user ``operator``; it goes to its account whatever is known of that, also while it is
paused or cooling down.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.accounting.settlement import Accounting
from gateway.accounts.attempts import AttemptKey
from gateway.accounts.session import Session
from gateway.accounts.verdict import Verdict
from gateway.admission.body_room import BodyRooms
from gateway.admission.interface import Admission, Holder
from gateway.client import body
from gateway.client.answer import ClientAnswer
from gateway.client.interface import ClientStream, QueuePlace
from gateway.client.kinds import OTHER
from gateway.config.schema import Account, Limits, User
from gateway.context import RequestContext
from gateway.endpoints.admin.accounts import AccountView
from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.errors import invalid
from gateway.endpoints.admin.operations import AdminCall, Operation
from gateway.endpoints.admin.way_to_account import WayStep, way_to
from gateway.endpoints.request_ids import new_uuid
from gateway.errors import GatewayError
from gateway.protocols import PROTOCOLS
from gateway.protocols.protocol import response_id_of
from gateway.protocols.stream_facts import StreamFacts
from gateway.record import Record
from gateway.relay.account_slots import GrantedAccount
from gateway.relay.failover import Relay
from gateway.telemetry import log

OPERATOR = "operator"
TEST_S = 90.0
STEPS = (
    *("name", "connect", "tls", "key", "model", "first_event", "ending"),
    "usage",
)
NOT_REACHED = "not reached"
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class TestBody:
    model: str = field(default="", metadata={"doc": "default: one that it names"})


@dataclass(frozen=True, slots=True)
class TestStep:
    """``ms``: since the step, or, from ``key`` on, the request began."""

    step: str
    ok: bool
    ms: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class AccountTest:
    """What came of the steps, in their order; ``ok`` if all went well."""

    ok: bool
    request_id: str
    model: str
    steps: list[TestStep]


class DroppedStream(ClientStream):
    """A client that takes everything and keeps nothing."""

    has_http_head = True

    def begin(self, headers: Mapping[str, str]) -> None: ...

    def add_headers(self, headers: Mapping[str, str]) -> None: ...

    def put(self, data: bytes, *, last: bool = False) -> bool:
        return False

    async def drain(self) -> None: ...

    def abort(self) -> None: ...

    def keepalive(
        self, place: QueuePlace | None, now: float, last_output_at: float
    ) -> bytes:
        return b""

    def failure(self, error: GatewayError, seen: StreamFacts) -> bytes:
        return b""


class TestOperations(OperationSource):
    """The handler."""

    def __init__(
        self,
        view: AccountView,
        admission: Admission,
        relay: Relay,
        accounting: Accounting,
    ) -> None:
        self._view = view
        self._admission = admission
        self._relay = relay
        self._accounting = accounting

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "POST",
            "/accounts/{name}/test",
            "Send one small real request, and say how each step went",
            self._test,
            answer=AccountTest,
            body=TestBody,
            errors=(429, 503),
        )

    async def _test(self, call: AdminCall) -> AccountTest:
        account = self._view.check(call.part("name"))
        model = call.body.model or _own_model(account)
        if not model:
            raise invalid("model", "must be named: the account has patterns alone")
        steps = [TestStep(*step) async for step in way_to(account)]
        if not steps[-1].ok:
            return _result("", model, steps)
        context = _context(account, model)
        record, verdict = context.record, None
        log.bind(record.request_id)
        try:
            async with asyncio.timeout(TEST_S):
                verdict = await self._asked(context, account)
        except TimeoutError:
            record.set_outcome("failed", "gateway", "upstream_timeout")
        except GatewayError as error:
            record.set_outcome("failed", error.origin, error.code)
            record.detail = log.detail(error.detail or error.message)
        finally:
            if not record.drained:
                self._accounting.close(record)
        rest = (TestStep(*step) for step in _judged(record, verdict))
        return _result(record.request_id, model, [*steps, *rest])

    async def _asked(self, context: RequestContext, account: Account) -> Verdict | None:
        """Take a slot of *account*, and ask it."""
        known = {one.name for one in self._admission.counts("user")}
        if OPERATOR not in known:
            self._admission.set_user(OPERATOR, 0, 1000)
        try:
            slot = await self._admission.account_slot(
                ((account.name,),), context.holder, context.deadline
            )
            key = AttemptKey(
                account.name, context.ask.model, OPERATOR, time.monotonic()
            )
            context.record.queue_ms = context.record.waited_s(time.monotonic()) * 1000
            client = ClientAnswer(DroppedStream(), context.record, TEST_S)
            granted = GrantedAccount(slot, key)
            verdict = await self._relay.attempt_at(context, client, granted)
        finally:
            if OPERATOR not in known:
                self._admission.remove_user(OPERATOR)
        if verdict:
            error = verdict.error
            context.record.set_outcome("failed", error.origin, error.code)
            context.record.detail = error.detail or log.detail(error.message)
        return verdict


def _own_model(account: Account) -> str:
    """A model that the config names for *account*; "" for none."""
    named = (*account.rename, *account.models)
    return next((one for one in named if not _GLOB.search(one)), "")


def _context(account: Account, model: str) -> RequestContext:
    """The smallest request, in the first protocol: it is converted for the others."""
    now, unix_s = time.monotonic(), time.time()
    wire = next(iter(PROTOCOLS.values()))
    data = {"model": model, "input": "Say ok.", "stream": True, "store": False}
    ask = body.parse(orjson.dumps({**data, "max_output_tokens": 64}))
    record = Record(new_uuid(unix_s), unix_s, now, arrived=now)
    record.user, record.protocol, record.client = OPERATOR, wire.name, OTHER.name
    record.model, record.stream = log.clean_id(model), True
    record.response_id = response_id_of(record.request_id)
    record.mark(now, "received", path="test", account=account.name)
    limits = Limits()
    context = RequestContext(
        ask=ask,
        record=record,
        wire=wire,
        path=wire.path,
        query="",
        headers=CIMultiDictProxy(CIMultiDict()),
        user=User(OPERATOR, ()),
        limits=limits,
        client=OTHER,
        session=Session("", "user", ""),
        holder=Holder(record.request_id, OPERATOR),
        deadline=now + limits.queue_timeout_s,
        share=BodyRooms().enter(OPERATOR, limits.max_waiting_bytes),
    )
    context.stopped = "client_gone"  # an operator who leaves wants no drain
    return context


def _judged(record: Record, verdict: Verdict | None) -> Iterator[WayStep]:
    """The steps of the request itself, up to the first that failed."""
    marks = {event: round(at_s * 1000, 1) for at_s, event, _ in record.marks}
    attempt = record.attempts[-1] if record.attempts else None
    status = attempt.status if attempt else 0
    reason = verdict.reason if verdict else ""
    why = record.detail or record.error_code
    usage = record.usage
    said = f"HTTP {status}" if status else ""
    counted = usage.reported and not record.estimated
    tokens = f"{usage.input_tokens or 0} in, {usage.output_tokens or 0} out"
    answered = record.outcome in ("ok", "incomplete")
    rows = (
        ("key", bool(status) and reason != "refused", marks.get("head"), said),
        ("model", status < 400 and reason != "no_model", marks.get("head"), ""),
        (
            "first_event",
            "first_event" in marks,
            marks.get("first_event"),
            "",
        ),
        ("ending", answered, record.duration_ms, record.outcome),
        ("usage", counted, None, tokens if counted else "not reported"),
    )
    for step, ok, ms, detail in rows:
        rounded = None if ms is None else round(ms, 1)
        yield WayStep(step, ok, rounded, detail if ok else why or detail)
        if not ok:
            return


def _result(request_id: str, model: str, steps: list[TestStep]) -> AccountTest:
    """With a row for each step that was not reached."""
    ok = all(step.ok for step in steps) and len(steps) == len(STEPS)
    missing = STEPS[len(steps) :]
    rest = [TestStep(step, False, None, NOT_REACHED) for step in missing]
    return AccountTest(ok, request_id, model, steps + rest)
