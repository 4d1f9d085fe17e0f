"""
Settles a request: what its answer cost, and that every sink has its record.

Rule 1: a record goes to every sink exactly once, and what it cost is counted for its
        user before the next request has its slot.
Rule 2: before an answer's terminal goes out, its row is durable.
Rule 3: the ledger keeps the requests of users. One without a valid key is counted and
        logged only, else anyone who reaches the port could fill the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway.config.schema import Account
from gateway.context import RequestContext
from gateway.ledger.ledger import Ledger
from gateway.protocols.token_estimate import estimate_tokens
from gateway.record import Record
from gateway.telemetry import log
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.accounting.prices import Prices

# Of an answer whose usage was not reported; an event of a stream is mostly its frame.
BYTES_PER_TOKEN = 4
STREAM_BYTES_PER_TOKEN = 160


class Accounting:
    """
    Args:
        prices: gives the price list, which the first answer may have to wait for;
            None while it cannot be read.
        sinks: each is called with every record that is closed.
        budgets: each is called with every record once its cost is known.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: Callable[[], Prices | None],
        sinks: Sequence[Callable[[Record], None]],
        budgets: Sequence[Callable[[Record], None]],
    ) -> None:
        self._ledger = ledger
        self._prices = prices
        self._sinks = sinks
        self._budgets = budgets

    def begin(self, record: Record) -> None:
        """Write ahead: the request is about to be sent upstream."""
        self._ledger.begin(record)

    async def persist(self, record: Record) -> None:
        """
        Return when the row of *record* is durable.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        record.duration_ms = (time.monotonic() - record.received) * 1000
        await self._ledger.close(record)
        record.durable = True

    def charge(self, record: Record) -> None:
        """Count what *record* cost, which is known; a second call does nothing."""
        if not record.charged:
            record.charged = True
            for budget in self._budgets:
                budget(record)

    def close(self, record: Record) -> None:
        """Hand *record* to every sink; a second call does nothing."""
        if record.closed:
            return
        record.closed = True
        if record.duration_ms is None or not record.durable:
            record.duration_ms = (time.monotonic() - record.received) * 1000
        if record.user and not record.durable:
            self._ledger.add(record)
        self.charge(record)
        for sink in self._sinks:
            sink(record)
        log.finished(record)

    def record_usage(
        self, context: RequestContext, account: Account, usage: Usage
    ) -> None:
        """
        Enter what an answer cost: as reported, else as estimated; never just 0.

        Args:
            account: as the config described it when it was asked.
        """
        record = context.record
        record.usage = usage
        if not usage.reported:
            if not context.attempt.received_bytes:
                return
            _estimate(context, usage)
        if prices := self._prices():
            record.cost_usd = prices.cost_usd(
                account, record.upstream_model, usage, record.started_at
            )


def _estimate(context: RequestContext, usage: Usage) -> None:
    """Fill in what the upstream has not reported."""
    record = context.record
    record.estimated = True
    if usage.input_tokens is None:
        usage.input_tokens = estimate_tokens(context.ask.document)
    if usage.output_tokens is None:
        each = STREAM_BYTES_PER_TOKEN if record.stream else BYTES_PER_TOKEN
        usage.output_tokens = max(1, context.attempt.received_bytes // each)
