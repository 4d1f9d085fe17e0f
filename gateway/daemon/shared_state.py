"""
What the processes of one gateway tell each other beside slots: which account is out,
where sessions are, what users have used.

Rule 1: each process decides by its own memory; what it hears changes that memory as if
        it had happened here. Nothing waits for another process, but a probe.
Rule 2: what is said is lost while the engine is away; what must be right again then is
        taken from the engine's marks and from the ledger.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounts.accounts import Accounts
from gateway.ledger.day_sum import DaySum
from gateway.record import Record
from gateway.shared import steps
from gateway.shared.answers import MarkAnswer, MarkRow, Push
from gateway.shared.bus import Bus
from gateway.shared.errors import EngineLost
from gateway.shared.membership import Membership

SAY_AGAIN_S = 30.0  # a session that goes on is said again after so long
MAX_SAID = 10_000  # sessions that were said lately
MARK_KEEP_S = 3600.0
MARK_TRIES = 3
PROOFS_AFTER_S = 0.05  # what is learnt of reasoning is said together
MAX_PROOFS_SAID = 1000  # together
PROOFS_FOR_NEW = 5_000  # that a process that joins is given: some 10 ms of work


class SharedState:
    """What this process says to the others, and takes from them."""

    def __init__(
        self,
        engine: Membership,
        bus: Bus,
        accounts: Accounts,
        budgets: BudgetGuard,
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._accounts = accounts
        self._budgets = budgets
        self._marks: dict[str, tuple[int, str]] = {}  # version and text, by account
        self._probing: dict[str, str] = {}  # attempt, by account
        self._attempts = 0
        self._said: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        self._proofs: dict[tuple[str, bool], list[int]] = {}  # not said yet
        engine.heard["M"] = self._mark_heard
        engine.on_joined = self._joined
        accounts.attempts.observer = self
        accounts.probe_claim = self.claim_probe
        accounts.reasoning.on_learnt = self._learnt
        budgets.on_admitted = self._admitted
        budgets.counted_elsewhere = lambda: engine.up
        bus.listen("bound", self._bound_heard)
        bus.listen("proofs", self._proofs_heard)
        bus.listen("proofs?", self._proofs_wanted)
        bus.listen("all-proofs", self._all_proofs_heard)
        bus.listen("spent", self._spent_heard)
        bus.listen("came", lambda user: budgets.note_arrival(user))

    # --- accounts --------------------------------------------------------------------

    def changed(self, account: str) -> None:
        """What is known of *account* may have changed here."""
        self._end_probe(account)
        self._say_mark(account, MARK_TRIES)

    def _say_mark(self, account: str, tries: int) -> None:
        rows = self._accounts.status.rows_of(account)
        text = json.dumps(rows) if rows else ""
        version, known = self._marks.get(account, (0, ""))
        if text == known or not tries or not self._engine.up:
            return

        def said(answer: MarkAnswer) -> None:
            if answer.stored:
                self._marks[account] = (answer.version, text)
                return
            self._marks[account] = (answer.version, answer.text)
            self._accounts.status.take(account, _rows(answer.text), whole=False)
            self._say_mark(account, tries - 1)

        self._engine.ask(steps.mark(account, version, text, MARK_KEEP_S), said)

    def _mark_heard(self, push: Push) -> None:
        if push.mark is not None:
            self._take_mark(push.mark, whole=True)

    def _take_mark(self, mark: MarkRow, *, whole: bool) -> None:
        version, text = self._marks.get(mark.key, (0, ""))
        if mark.version <= version:
            return
        self._marks[mark.key] = (mark.version, mark.text)
        if mark.text != text:
            self._accounts.status.take(mark.key, _rows(mark.text), whole=whole)

    def _joined(self) -> None:
        """Hear what is known, and say what this process knows besides."""
        self._marks.clear()

        def heard(marks: Iterable[MarkRow]) -> None:
            for mark in marks:
                self._take_mark(mark, whole=False)
            for account in list(self._accounts.by_name):
                self._say_mark(account, MARK_TRIES)

        self._engine.ask(steps.marks(), heard)
        if self._engine.generation == 1:
            self._bus.tell("proofs?", self._engine.node)

    async def claim_probe(self, account: str) -> bool:
        """Whether a request of this process is the one that tries *account*."""
        self._attempts += 1
        attempt = f"{self._engine.node}.{self._attempts}"
        try:
            claimed = await self._engine.asked(steps.probe(account, attempt))
        except EngineLost:
            return True  # alone, one request of each process tries
        if claimed:
            self._probing[account] = attempt
        return claimed

    def dropped(self, account: str) -> None:
        """An attempt at *account* says nothing of it."""
        self._end_probe(account)

    def _end_probe(self, account: str) -> None:
        if attempt := self._probing.pop(account, ""):
            self._engine.tell(steps.end_probe(account, attempt))

    # --- sessions --------------------------------------------------------------------

    def bound(
        self, session: str, account: str, fitting: Iterable[str], model: str
    ) -> None:
        """The session is at *account* now."""
        now = time.monotonic()
        last, at = self._said.get((session, model), ("", 0.0))
        if last == account and now - at < SAY_AGAIN_S:
            return
        self._said[session, model] = (account, now)
        self._said.move_to_end((session, model))
        if len(self._said) > MAX_SAID:
            self._said.popitem(last=False)
        words = [session, account, sorted(fitting), model]
        self._bus.tell("bound", json.dumps(words))

    def _bound_heard(self, text: str) -> None:
        session, account, fitting, model = json.loads(text)
        self._accounts.learn_binding(session, account, fitting, model)

    # --- reasoning -------------------------------------------------------------------

    def _learnt(self, keys: list[int], account: str, made: bool) -> None:
        """*account* made proofs, or could not read them."""
        if not self._proofs:
            loop = asyncio.get_running_loop()
            loop.call_later(PROOFS_AFTER_S, self._say_proofs)
        unsaid = self._proofs.setdefault((account, made), [])
        unsaid += keys[: MAX_PROOFS_SAID - len(unsaid)]

    def _say_proofs(self) -> None:
        unsaid, self._proofs = self._proofs, {}
        rows = [[keys, account, made] for (account, made), keys in unsaid.items()]
        self._bus.tell("proofs", json.dumps(rows))

    def _proofs_heard(self, text: str) -> None:
        for keys, account, made in json.loads(text):
            self._accounts.reasoning.learn(keys, account, made)

    def _proofs_wanted(self, node: str) -> None:
        """A process has come: two of the others say what they know, one of them may
        have come just now, too."""
        if self._engine.rank < 2 or self._engine.rank == self._engine.nodes - 1:
            rows = self._accounts.reasoning.dump(PROOFS_FOR_NEW)
            if rows:
                self._bus.tell("all-proofs", json.dumps(rows), node)

    def _all_proofs_heard(self, text: str) -> None:
        self._accounts.reasoning.load(json.loads(text))

    # --- budgets ---------------------------------------------------------------------

    def add(self, record: Record) -> None:
        """A request has ended here."""
        if not self._budgets.is_limited(record.user):
            return
        usage = record.usage
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        if tokens or record.cost_usd:
            words = [record.user, record.started_at, record.cost_usd, tokens]
            self._bus.tell("spent", json.dumps(words))

    def _spent_heard(self, text: str) -> None:
        self._budgets.add_use(*json.loads(text))

    def _admitted(self, user: str) -> None:
        self._bus.tell("came", user)

    def correct(self, sums: Iterable[DaySum]) -> None:
        """The ledger's sums: what was not heard is in them."""
        self._budgets.raise_to(sums)


def _rows(text: str) -> list[dict[str, Any]]:
    return json.loads(text) if text else []
