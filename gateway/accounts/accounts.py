"""
All accounts as the relay sees them: one door to choice, health, affinity and budget.

The pure parts decide; this file gives them the clock and the load, and writes what
happens to accounts into the log.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gateway.accounts.affinity import Affinity
from gateway.accounts.choice import (
    AccountQuery,
    Choice,
    LoadOf,
    ModelIndex,
    candidates,
)
from gateway.accounts.health import Health
from gateway.accounts.health_event import HealthEvent
from gateway.accounts.owners import Owners
from gateway.accounts.reasoning_owner import (
    Readable,
    Reader,
    broken_loop,
    compaction,
    proofs,
    readable,
)
from gateway.accounts.retry_budget import RetryBudget
from gateway.accounts.verdict import Verdict
from gateway.config.schema import Account, Price
from gateway.context import RequestContext
from gateway.errors import ClientError, GatewayError, whole_retry_after
from gateway.telemetry import log

STATE = "x-codex-turn-state"
LASTING = ("refused", "quota")  # a person must act


class Accounts:
    """
    Args:
        load: the accounts' slots at this moment.

    Attributes:
        accounts: every account by its name.
    """

    def __init__(self, accounts: Iterable[Account], load: LoadOf) -> None:
        self.accounts: Mapping[str, Account] = {
            account.name: account for account in accounts
        }
        self._fleet = ModelIndex(self.accounts.values())
        self._load = load
        self._health = Health(random.random)
        self._affinity = Affinity()
        self._owners = Owners()
        self._verifying: set[str] = set()  # accounts that have refused thinking
        self._budget = RetryBudget()
        self._renewed_at: dict[str, float] = {}  # monotonic: by a reload
        self._log = log.get()

    def replace(self, accounts: Iterable[Account]) -> None:
        """Take up a changed config: what is new is well, what is gone is forgotten."""
        fresh = {account.name: account for account in accounts}
        now = time.monotonic()
        for name in self.accounts.keys() | fresh.keys():
            old, new = self.accounts.get(name), fresh.get(name)
            if old and new and _asked(old) == _asked(new):
                continue
            self._health.forget(name)
            self._renewed_at[name] = now
            if not (old and new and old.base_url == new.base_url):
                self._affinity.forget(name)
                self._verifying.discard(name)
            if old and new and old.base_url != new.base_url:
                self._affinity.forget_responses(name)
        self._renewed_at = {
            name: at for name, at in self._renewed_at.items() if name in fresh
        }
        self.accounts = fresh
        self._fleet = ModelIndex(fresh.values())

    # --- choosing --------------------------------------------------------------------

    def choose(
        self, turn: RequestContext, tried: Collection[str], now: float
    ) -> Choice:
        """Where *turn* may go next."""
        model = turn.ask.model
        serving = self._fleet.serving(model)
        # Where there is one account, no other could answer.
        owners = self._makers(turn, now) if len(serving) > 1 else ()
        fitting = self._fleet.fitting(model)
        ask = AccountQuery(
            model,
            turn.wire.name,
            turn.session,
            tried,
            owners,
            fitting,
            turn.user.name,
        )
        return candidates(
            serving,
            ask,
            self._health,
            self._affinity,
            self._load,
            now,
        )

    def _makers(self, turn: RequestContext, now: float) -> list[str]:
        """
        The only accounts that can answer *turn*: that which made the previous response,
        or those that may have made the compaction that stands for the history. Empty:
        any can, or none is known.
        """
        if turn.wire.name != "responses":
            return []
        native = self._native(turn)
        document, user = turn.ask.document, turn.user.name
        ident = document.get("previous_response_id")
        if isinstance(ident, str):
            maker = self._affinity.maker(user, ident, now)
            if maker in native:
                return [maker]
            if turn.kept_elsewhere:
                return native
        if proof := compaction(document):
            latest, is_foreign = self._latest(turn), self._owners.is_foreign
            likely = [
                name for name in native if not is_foreign(user, proof, name, latest)
            ]
            return likely or native  # who cannot read it says so better than we can
        return []

    def _native(self, turn: RequestContext) -> list[str]:
        """The fitting accounts that keep responses themselves."""
        return [
            account.name
            for account in self._fleet.serving(turn.ask.model)
            if account.speaks("responses") == "responses"
        ]

    def _latest(self, turn: RequestContext) -> str:
        """The account of the session's last answer, of those that fit the model."""
        model = turn.ask.model
        fitting = self._fleet.fitting(model)
        return self._affinity.latest(turn.session.key, fitting, model)

    def check(self, turn: RequestContext) -> None:
        """
        Refuse a model that no account serves, before anything is waited for.

        Raises:
            ClientError: "model_not_found".
        """
        if not self._fleet.serving(turn.ask.model):
            raise _no_model(turn.ask.model)

    def refusal(self, turn: RequestContext, choice: Choice, now: float) -> GatewayError:
        """Why nobody can be asked: no such model, or all who have it are out."""
        model = turn.ask.model
        if not choice.fitting:
            return _no_model(model)
        error = self._health.refusal(choice.fitting, model, now, turn.user.name)
        if error.code == "cooling_down":
            error.message = f"Every account for model {model} is cooling down"
        return error

    def may_retry(
        self, turn: RequestContext, account: str, now: float, *, same: bool
    ) -> bool:
        """Whether the retry budget allows a further attempt, at *account*."""
        model = turn.ask.model
        pool = self._fleet.fitting(model)
        proven = self._health.proven(account, model, now, turn.user.name)
        return self._budget.take(pool, account, now, proven=proven and not same)

    def elsewhere(
        self, turn: RequestContext, way: Iterable[str], tried: Iterable[str]
    ) -> bool:
        """Whether an account of *way* that was not tried is known to have the model."""
        left = set(way) - set(tried)
        return any(self._health.has_served(name, turn.ask.model) for name in left)

    def start(
        self, turn: RequestContext, choice: Choice, account: str, now: float
    ) -> bool:
        """A request is about to go to *account*; False if its probe is taken."""
        if not turn.record.attempts:
            self._budget.request(self._fleet.fitting(turn.ask.model), now)
        turn.attempt_at = now
        return self._health.started(
            account,
            turn.ask.model,
            now,
            last_resort=choice.last_resort,
            user=turn.user.name,
        )

    # --- what happened ---------------------------------------------------------------

    def served(self, turn: RequestContext, account: str, response_id: str) -> None:
        """*account* brought output: it is well, and it knows the session now."""
        if not self._is_current(turn, account):
            return
        now = time.monotonic()
        model, user = turn.ask.model, turn.user.name
        self._tell(self._health.succeeded(account, model, turn.attempt_at, now, user))
        if turn.session.told:
            fitting = self._fleet.fitting(model)
            self._affinity.bind(turn.session.key, account, now, fitting, model)
        if response_id:
            self._affinity.made(turn.user.name, response_id, account, now)

    def failed(self, turn: RequestContext, account: str, verdict: Verdict) -> None:
        """An attempt failed before its first output."""
        if not self._is_current(turn, account):
            return
        self._tell(
            self._health.failed(
                account,
                turn.ask.model,
                verdict,
                turn.attempt_at,
                time.monotonic(),
                turn.user.name,
            )
        )

    def completed(self, turn: RequestContext, account: str) -> None:
        """*account* brought an answer to its end."""
        if not self._is_current(turn, account):
            return
        user = turn.user.name
        self._tell(self._health.completed(account, user, time.monotonic()))

    def broke(self, turn: RequestContext, account: str) -> None:
        """An answer of *account* broke off behind its first output."""
        self.dropped(turn, account)
        if not self._is_current(turn, account):
            return
        now, user = time.monotonic(), turn.user.name
        self._tell(self._health.broke(account, turn.attempt_at, now, user))

    def side_failed(
        self, account: Account, user: str, model: str, verdict: Verdict, began: float
    ) -> None:
        """A call beside the model endpoints has failed that *began* then."""
        name = account.name
        if name in self.accounts and began >= self._renewed_at.get(name, 0.0):
            now = time.monotonic()
            self._tell(self._health.failed(name, model, verdict, began, now, user))

    def is_available(self, account: Account, user: str = "") -> bool:
        """Whether *account* is not left alone."""
        now = time.monotonic()
        return self._health.available(account.name, "", now, user).ok

    def check_account(self, account: Account, user: str) -> None:
        """
        Refuse what *account* alone could serve, while it is left alone.

        Raises:
            GatewayError: "cooling_down", or why it is out for longer.
        """
        if not self.is_available(account, user):
            now = time.monotonic()
            raise self._health.refusal([account.name], "", now, user)

    def _is_current(self, turn: RequestContext, account: str) -> bool:
        """
        Whether the attempt of *turn* says something of *account* as it is now: a
        reload may have removed it, or changed what it is asked with.
        """
        if account not in self.accounts:
            return False
        return turn.attempt_at >= self._renewed_at.get(account, 0.0)

    def dropped(self, turn: RequestContext, account: str) -> None:
        """An attempt ended without a word about *account*."""
        model, user = turn.ask.model, turn.user.name
        self._health.dropped(account, model, turn.attempt_at, user)

    def last_word(
        self, turn: RequestContext, verdict: Verdict, fitting: list[str]
    ) -> GatewayError:
        """What the client gets of *verdict* when no account is left."""
        return self._health.last_word(
            verdict, fitting, turn.ask.model, time.monotonic(), turn.user.name
        )

    def _tell(self, happenings: Iterable[HealthEvent]) -> None:
        for happening in happenings:
            cooled = happening.event == "account.cooled"
            write = self._log.warning if cooled else self._log.info
            if happening.facts.get("reason") == "refused":
                write = self._log.error  # a person must act
            write(happening.event, **happening.facts)

    # --- sessions --------------------------------------------------------------------

    def document(
        self, turn: RequestContext, account: str, document: dict[str, Any]
    ) -> dict[str, Any]:
        """
        *document* without what *account* cannot read. One that is written again has
        its whole numbers as the client sent them.
        """
        own, spoken = document is turn.ask.document, turn.wire.name
        converted = self.accounts[account].speaks(spoken) != spoken
        if own and converted and turn.ask.keep_digits():
            document = turn.ask.document
        kept = self._readable(turn, account, document)
        if own and kept.body is not document and turn.ask.keep_digits():
            kept = self._readable(turn, account, turn.ask.document)
        turn.left_out = ("thinking",) if kept.thinking_off else ()
        if kept.removed or kept.thinking_off:
            turn.mark(
                "stripped",
                before=self._latest(turn),
                pieces=kept.removed,
                thinking_off=kept.thinking_off,
            )
        return kept.body

    def _readable(
        self, turn: RequestContext, account: str, document: dict[str, Any]
    ) -> Readable:
        protocol, target = turn.wire.name, self.accounts[account]
        if protocol == "chat":
            return Readable(document)  # Chat has no place for a proof
        latest, user = self._latest(turn), turn.user.name
        is_foreign, model = self._owners.is_foreign, turn.ask.model
        native = target.speaks(protocol) == protocol
        reader = Reader(
            lambda proof: is_foreign(user, proof, account, latest),
            native,
            account in self._verifying or self._fleet.verifies(target, model),
            turn.thinking_off and native,
        )
        return readable(protocol, document, reader)

    def refused_reasoning(
        self, turn: RequestContext, account: str, document: dict[str, Any]
    ) -> bool:
        """
        *account* could not read some reasoning in *document*; whether it would be sent
        another body now.
        """
        protocol, target = turn.wire.name, self.accounts.get(account)
        if target is None:
            return False  # a reload has removed it meanwhile
        sent = self._readable(turn, account, document).body
        if protocol == "messages" == target.speaks(protocol):
            if broken_loop(sent) and not turn.thinking_off:
                turn.thinking_off = True
                return True
            self._verifying.add(account)
        self._owners.refused(turn.user.name, proofs(protocol, sent), account)
        return self._readable(turn, account, sent).removed > 0

    def made(self, turn: RequestContext, found: Iterable[str]) -> None:
        """The account that serves *turn* made the proofs *found*."""
        self._owners.made(turn.user.name, found, turn.record.account)

    def keep_state(self, turn: RequestContext, account: str, state: str) -> None:
        """*account* gave Codex the turn state *state*."""
        self._owners.made(turn.user.name, [state], account)

    def knows_state(self, turn: RequestContext, account: str) -> bool:
        """Whether *account* may be sent the turn state that Codex sends."""
        state = turn.headers.get(STATE)
        if state is None:
            return True
        user, latest = turn.user.name, self._latest(turn)
        return not self._owners.is_foreign(user, state, account, latest)

    def maker(self, user: str, response_id: str) -> Account | None:
        """The account that made the response *response_id* for *user*."""
        name = self._affinity.maker(user, response_id, time.monotonic())
        return self.accounts.get(name)

    def is_native(self, account: Account | None) -> bool:
        """Whether *account* keeps responses itself."""
        return account is not None and account.protocol == "responses"

    def has_native(self, turn: RequestContext) -> bool:
        """Whether an account that keeps responses itself fits *turn*."""
        return bool(self._native(turn))

    def other_may_read(self, turn: RequestContext, tried: Collection[str]) -> bool:
        """
        Whether *turn* goes on from a compaction that an account which has not been
        tried may have made.
        """
        if turn.wire.name != "responses" or not compaction(turn.ask.document):
            return False
        return bool(set(self._native(turn)) - set(tried))

    # --- state -----------------------------------------------------------------------

    def names(self, account: str, model: str) -> bool:
        """Whether the config names the upstream *model* for *account*."""
        found = self.accounts.get(account)
        return found is not None and found.names(model)

    def states(self) -> dict[str, dict[str, Any]]:
        """Every account: whether it takes requests, else why not and until when."""
        now = time.monotonic()
        states: dict[str, dict[str, Any]] = {}
        for name in self.accounts:
            found = self._health.available(name, "", now)
            states[name] = {"available": found.ok}
            if found.reason:
                states[name]["reason"] = found.reason
            if found.until is not None and not found.ok:
                states[name]["returns_in_s"] = whole_retry_after(found.until - now)
        return states

    def usable(self) -> bool:
        """
        Whether any account takes requests, if only because no other is left; one
        whose credential or quota was refused does not.
        """
        now = time.monotonic()
        looks = [self._health.last_resort(name, "", now) for name in self.accounts]
        return any(look.ok and look.reason not in LASTING for look in looks)

    def dump(self) -> list[dict[str, Any]]:
        """The windows that still run, for the next start."""
        rows = self._health.dump(time.monotonic(), time.time())
        for row in rows:
            if account := self.accounts.get(row["account"]):
                row["asked"] = _fingerprint(account)
        return rows

    def load(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take up the windows of an earlier process, of accounts that are the same."""
        fits = []
        for row in rows:
            account = self.accounts.get(str(row.get("account")))
            asked = row.pop("asked", "")  # earlier versions did not write it
            if account and asked in ("", _fingerprint(account)):
                fits.append(row)
        self._health.load(fits, time.monotonic(), time.time())


def _asked(account: Account) -> Account:
    """*account* without what does not show in its requests."""
    return dataclasses.replace(
        account, max_concurrent=0, priority=0, models=(), price=Price()
    )


def _fingerprint(account: Account) -> str:
    """The same as 8 hex digits; the account's key is in it."""
    facts = dataclasses.asdict(_asked(account))
    return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:8]


def _no_model(model: str) -> ClientError:
    return ClientError("model_not_found", f"No account serves the model '{model}'")
