"""What one request carries from attempt to attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.accounts.verdict import Verdict
from gateway.client.answer import ClientAnswer
from gateway.context import RequestContext
from gateway.ledger.response_store import PreviousTurn


@dataclass(slots=True)
class Continuation:
    """
    What a request goes on from, where its body repeats the turns before: what is stored
    of it are its own items and a link, not the whole conversation again.

    Attributes:
        input: its own items, a JSON list.
        earlier: the stored turn before; None if that is not stored.
        must_be_known: a turn that is named in the body, too, and that nothing here
            knows, is refused: it could only have been said here.
        stored: the request's own turn, once it is stored.
    """

    input: bytes
    earlier: PreviousTurn | None = None
    must_be_known: bool = False
    stored: PreviousTurn | None = None


@dataclass(slots=True)
class FailoverState:
    """
    The body as it is now, the accounts that were tried, and what came of it.

    Attributes:
        client: where a stream goes; None for a whole answer.
        continuation: see ``Continuation``; None where the body says it.
        earlier: the stored turn that the request goes on from.
        native_only: only an account that keeps responses can know the turn before.
        tried: names of accounts.
        fitting: every account that the config lets serve the model.
        verdict: of the last attempt; None before the first has failed.
        paused: the one pause before the same account is asked again is spent.
        reasoning_drops: how often reasoning that an account refused was left out.
        thinking_off: Messages: the history does not allow thinking.
    """

    context: RequestContext
    client: ClientAnswer | None = None
    continuation: Continuation | None = None
    earlier: PreviousTurn = PreviousTurn()
    native_only: bool = False
    tried: tuple[str, ...] = ()
    fitting: Sequence[str] = ()
    verdict: Verdict | None = None
    paused: bool = False
    reasoning_drops: int = 0
    thinking_off: bool = False
    _changed: dict[str, Any] | None = None  # the body, where it is not the client's own

    @property
    def document(self) -> dict[str, Any]:
        """The body that an account is sent, parsed."""
        return self.context.ask.document if self._changed is None else self._changed

    @property
    def is_untouched(self) -> bool:
        """Whether the body is the client's own, and no account has refused it."""
        changed = self._changed is not None or self.thinking_off
        return not changed and not self.reasoning_drops

    def replace_document(self, document: dict[str, Any]) -> None:
        """From now on the body is *document*."""
        own = document is self.context.ask.document
        self._changed = None if own else document

    def try_at(self, account: str) -> None:
        """Its request is sent to *account*."""
        self.tried = *self.tried, account

    def forget_try(self, account: str) -> None:
        """It may be sent to *account* again."""
        self.tried = tuple([name for name in self.tried if name != account])

    def forget_document(self) -> None:
        """No other account will be asked: keep the client's bytes alone."""
        self._changed = None
        self.context.ask.forget_document()
