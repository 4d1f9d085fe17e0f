"""
The layers of a request, and how a process is made to serve without one of them.

What stands in for a layer gives what the layer would give for the benchmark's one
request, so everything behind it works as before. A name that the gateway no longer has
fails at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from multidict import CIMultiDict

from gateway.accounting.settlement import Accounting
from gateway.accounts.attempts import AttemptReports
from gateway.accounts.chooser import Chooser
from gateway.accounts.health import Health
from gateway.accounts.session import Session
from gateway.admission.registry import Registry
from gateway.admission.slot import Holder
from gateway.client import body
from gateway.client.answer import ClientAnswer
from gateway.context import RequestContext
from gateway.endpoints import auth, recording, request_reader
from gateway.ledger import request_upsert, rows
from gateway.ledger.ledger import Ledger
from gateway.ledger.writer import LedgerWriter
from gateway.record import Record
from gateway.relay import upstream_call, upstream_request
from gateway.relay.first_event_timeout import FirstEventTimeout
from gateway.telemetry import log
from gateway.telemetry.log_writer import LogWriter
from gateway.telemetry.metrics import Metrics
from gateway.transport import http_transport


def _none(*args: Any, **words: Any) -> None:
    """Does nothing."""


async def _soon(*args: Any, **words: Any) -> None:
    """Does nothing, and is awaited."""


def _instead(owner: Any, name: str, replacement: Any) -> None:
    getattr(owner, name)  # fails where the gateway has changed
    setattr(owner, name, replacement)


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives always what *function* gave first."""
    given: list[Any] = []

    def first(*args: Any, **words: Any) -> Any:
        if not given:
            given.append(function(*args, **words))
        return given[0]

    return first


def _ledger() -> None:
    for name in ("begin", "add", "_put"):
        _instead(Ledger, name, _none)
    for name in ("close", "_written"):
        _instead(Ledger, name, _soon)


def _database() -> None:
    """Rows are made and handed over; nothing is written."""
    _instead(LedgerWriter, "_execute", _none)


def _rows() -> None:
    """Not written either: what is left is the hand-over."""
    _database()
    made = rows.RequestRows((), [], ())
    from gateway.ledger import ledger

    numbers = itertools.count()

    def rows_of(*args: Any, **words: Any) -> Any:
        return made._replace(request=(next(numbers), 0))

    _instead(ledger, "rows_of", rows_of)


def _indexes() -> None:
    from gateway.ledger.tables import request

    request.indexes.clear()


def _timeline_row() -> None:
    parts = request_upsert._parts
    _instead(request_upsert, "_parts", lambda dialect: list(parts(dialect))[:2])
    _instead(rows, "marks_json", lambda marks: "[]")


def _attempt_row() -> None:
    parts = request_upsert._parts
    _instead(request_upsert, "_parts", lambda dialect: list(parts(dialect))[::2])


def _log_line() -> None:
    _instead(log, "finished", _none)


def _log_write() -> None:
    _instead(LogWriter, "put", _none)


def _metrics() -> None:
    _instead(Metrics, "add", _none)


def _price() -> None:
    _instead(Accounting, "record_usage", _none)


def _key() -> None:
    _instead(auth, "key_sha256", lru_cache(auth.key_sha256))


def _slots() -> None:
    class Free:
        """A slot that nothing issues."""

        name = account = "scripted"
        evict = None

        drain = _none

        def release(self) -> bool:
            """No request waits for it."""
            return False

        hand_on = release

    free = Free()

    async def slot(
        self: Any, name: Any, holder: Holder, *args: Any, **words: Any
    ) -> Any:
        return free

    async def account_slot(
        self: Any, tiers: Any, holder: Holder, *args: Any, **words: Any
    ) -> Any:
        holder.state = "running"
        return free

    for kind in (Registry, *Registry.__subclasses__()):
        if "user_slot" in vars(kind) or kind is Registry:
            _instead(kind, "user_slot", slot)
        if "account_slot" in vars(kind) or kind is Registry:
            _instead(kind, "account_slot", account_slot)
    for name in ("arrive", "arrived"):
        _instead(Registry, name, _none)


def _choice() -> None:
    _instead(Chooser, "choose", _once(Chooser.choose))


def _health() -> None:
    for name in ("served", "completed"):
        _instead(AttemptReports, name, _none)
    _instead(AttemptReports, "start", lambda *args, **words: True)
    _instead(Health, "started", lambda *args, **words: True)


def _parse() -> None:
    parse = lru_cache(maxsize=8)(body.parse)

    def parsed(data: bytes, *args: Any) -> Any:
        known = parse(data)
        return body.RequestBody(data, known.document, known.model, known.stream)

    _instead(body, "parse", parsed)


def _headers_up() -> None:
    upwards = _once(upstream_request.upwards)
    _instead(
        upstream_request,
        "upwards",
        lambda *args, **words: CIMultiDict(upwards(*args, **words)),
    )
    _instead(http_transport, "request_head", _by_length(http_transport.request_head))


def _by_length(request_head: Callable[..., bytes]) -> Callable[..., bytes]:
    known: dict[int, bytes] = {}

    def head(target: Any, headers: Any, size: int) -> bytes:
        if size not in known:
            known[size] = request_head(target, headers, size)
        return known[size]

    return head


def _headers_down() -> None:
    _instead(upstream_call, "downwards", lambda *args, **words: {})


def _head_down() -> None:
    from gateway.client import framing

    heads: dict[bool, bytes] = {}

    def head_of(version: Any, headers: Any, keep_alive: bool) -> bytes:
        chunked = "Transfer-Encoding" in headers
        if chunked not in heads:
            heads[chunked] = made(version, headers, keep_alive)
        return heads[chunked]

    made = framing.head_of
    _instead(framing, "head_of", head_of)


def _timeline() -> None:
    _instead(RequestContext, "mark", _none)
    _instead(RequestContext, "mark_ending", _none)
    _instead(Record, "mark", _none)


def _ids() -> None:
    numbers = itertools.count(1)
    _instead(recording, "request_id_of", lambda *args: f"{next(numbers):036d}")


def _session() -> None:
    session = Session("0" * 24, "user", "")
    _instead(request_reader, "session_of", lambda *args: session)


def _timers() -> None:
    _instead(ClientAnswer, "start_keepalives", _none)
    _instead(FirstEventTimeout, "__enter__", lambda self: self)
    _instead(FirstEventTimeout, "__exit__", _none)
    _instead(FirstEventTimeout, "end", _none)


LAYERS: dict[str, Callable[[], None]] = {
    "nothing": _none,
    "ledger": _ledger,
    "database": _database,
    "rows": _rows,
    "indexes": _indexes,
    "timeline row": _timeline_row,
    "attempt row": _attempt_row,
    "log line": _log_line,
    "log write": _log_write,
    "metrics": _metrics,
    "price and usage": _price,
    "key": _key,
    "slots": _slots,
    "choice": _choice,
    "health": _health,
    "parse": _parse,
    "session": _session,
    "headers up": _headers_up,
    "headers down": _headers_down,
    "head down": _head_down,
    "timeline": _timeline,
    "ids": _ids,
    "timers": _timers,
}
