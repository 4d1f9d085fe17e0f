"""How far the attempts of one request have come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.accounts.verdict import Verdict
from gateway.client.body import RequestBody
from gateway.ledger.response_store import PreviousTurn


@dataclass(slots=True)
class FailoverState:
    """The body as it stands, and the accounts that were asked."""

    ask: RequestBody
    changed: dict[str, Any] | None = None  # the body, where it is not the client's own
    earlier: PreviousTurn = PreviousTurn()  # the kept turn that it goes on from
    tried: set[str] = field(default_factory=set)
    paused: bool = False  # the one pause on the same account is spent
    stripped: int = 0  # how often unreadable reasoning has been left out
    fitting: list[str] = field(default_factory=list)
    verdict: Verdict | None = None  # of the last attempt

    @property
    def document(self) -> dict[str, Any]:
        """The body that an account is to be sent."""
        return self.ask.document if self.changed is None else self.changed

    def change(self, document: dict[str, Any]) -> None:
        """From now on the body is *document*."""
        self.changed = None if document is self.ask.document else document

    def forget_document(self) -> None:
        """No other account will be asked: keep the client's bytes alone."""
        self.changed = None
        self.ask.forget_document()
