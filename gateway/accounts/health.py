"""
Which account is well, and when the others return.

Rule 1: a mark stands against an account as a whole, against one model on it, or
        against it for one user (``AccountHealth``).
Rule 2: one outage is one strike, however many requests met it: what was sent before
        the last strike only lengthens it, by the upstream's own word.
Rule 3: after the window one real request is the probe; the others wait for it.
Rule 4: while anything else is well, an account that is out is left alone. If nothing
        is, *last_resort* asks: the first strikes refuse nobody, later ones are probed
        every few seconds, unless the upstream itself said when.
Rule 5: a refused credential is one user's word until a second user meets it, or a
        probe after the window, with no answer to anybody in between.
Rule 6: an error or a reset that passes by itself may be the doing of one request, too.
        While the account serves others, it counts for that user or that model alone,
        until a second one meets it. Each answer halves the strikes.
Rule 7: three streams in a row that broke, of two users, count as a failure. Only a
        whole answer ends that, and where no other account fits it is asked all the
        same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from gateway.accounts import health_event as happening
from gateway.accounts.account_health import PROVEN_S, AccountHealth
from gateway.accounts.backoff import (
    EARLY_S,
    POLICIES,
    Recovery,
    cooldown_s,
    jittered,
    usual_s,
)
from gateway.accounts.health_event import HealthEvent
from gateway.accounts.outage import WELL, Availability, Outage, look, look_again, worse
from gateway.accounts.saved_outages import outage_of, row_of_outage
from gateway.accounts.verdict import Verdict
from gateway.errors import GatewayError, Overloaded, UpstreamError, whole_retry_after

STALE_S = 600.0  # a mark that nobody probed for so long counts no more
MAX_STRIKES = 64  # a window has long reached its cap


class Health:
    """
    The state of all accounts; *chance* is uniform in 0…1, for jitter.

    A *user* of "" is nobody in particular.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._accounts: dict[str, AccountHealth] = {}
        self._recovery: dict[str, Recovery] = {}

    # -- what happens to accounts ---------------------------------------------------

    def started(
        self,
        account: str,
        model: str,
        now: float,
        *,
        last_resort: bool = False,
        user: str = "",
    ) -> bool:
        """
        A request is about to be sent; False if the probe is taken by now.

        *now* names the attempt: give the same as *started_at* of its outcome.
        """
        ask = self.last_resort if last_resort else self.available
        found = ask(account, model, now, user)
        if not (found.ok or found.shunned):
            return False
        for mark in self._marks_of(account, model, user):
            if mark.ramp_from is not None:
                mark.starts += 1
            elif found.probe:
                mark.probe_at = now
        return True

    def failed(
        self,
        account: str,
        model: str,
        verdict: Verdict,
        started_at: float,
        now: float,
        user: str = "",
    ) -> list[HealthEvent]:
        """
        An attempt failed before its first output.

        What clients do is not told here, see ``dropped``; nor are streams that break
        later, see ``broke``.
        """
        if not verdict.reason:
            self.dropped(account, model, started_at, user)
            return []
        one = self._of(account)
        if verdict.doubtful and user:
            return self._doubted(account, one, verdict, started_at, now, user)
        scope: str = verdict.scope
        if verdict.may_be_request and user and scope != "model":
            scope = one.whose(model, user, now)
        if scope == "user":
            return self._noted(account, one, verdict, started_at, now, user)
        if scope == "model":
            old = one.by_model.get(model)
            mark, told = self._met(account, old, verdict, started_at, now)
            one.mark_model(model, mark)
        else:
            mark, told = self._met(account, one.whole, verdict, started_at, now)
            one.whole, model = mark, ""
        return [happening.cooled(account, model, mark, now)] if told else []

    def broke(
        self, account: str, started_at: float, now: float, user: str
    ) -> list[HealthEvent]:
        """A stream broke amid its answer, by the upstream's doing."""
        one = self._of(account)
        old = one.whole
        if not one.note_broken(user):
            return []
        if old is not None and (old.until > now and not old.breaks):
            return []  # it is out already, by another word
        if old is not None and old.breaks and started_at < old.struck_at:
            return []  # the same outage
        strikes = min(old.strikes + 1, MAX_STRIKES) if old and old.breaks else 1
        wait_s = jittered(cooldown_s("failed", strikes, None, now), self._chance())
        until = now + wait_s
        one.whole = Outage(
            "failed", now, now, until, until, False, strikes, breaks=True
        )
        return [happening.cooled(account, "", one.whole, now)]

    def succeeded(
        self, account: str, model: str, started_at: float, now: float, user: str = ""
    ) -> list[HealthEvent]:
        """An attempt brought its first output, or its whole answer."""
        one = self._of(account)
        one.note_served(model, user, now)
        if not one.any:
            return []
        recovered = False
        for mark in (one.whole, one.by_model.get(model)):
            if mark is None or mark.breaks:
                continue
            if mark.ramp_from is not None:
                mark.strikes -= mark.strikes // 2
                continue
            # An older request that still went well proves a path, not a quota.
            proof = mark.reason in ("network", "failed") and not mark.told
            if started_at >= mark.struck_at or proof:
                self._learn(account, mark, now)
                mark.ramp_from, mark.starts, mark.probe_at = now, 0, None
                mark.strikes -= mark.strikes // 2
                recovered = True
        for name, mark in list(one.by_user.items()):
            if started_at >= mark.struck_at:
                del one.by_user[name]
                recovered = recovered or not mark.quiet
        return [happening.recovered(account)] if recovered else []

    def completed(self, account: str, user: str, now: float) -> list[HealthEvent]:
        """An answer came to its end."""
        one = self._of(account)
        one.note_whole()
        mark = one.whole
        if mark is None or not mark.breaks or mark.ramp_from is not None:
            return []
        mark.ramp_from, mark.starts, mark.probe_at = now, 0, None
        return [happening.recovered(account)]

    def dropped(
        self, account: str, model: str, started_at: float, user: str = ""
    ) -> None:
        """An attempt ended without a word about the account: its probe is free."""
        for mark in self._marks_of(account, model, user):
            if mark.probe_at == started_at:
                mark.probe_at = None

    # -- what may be done -----------------------------------------------------------

    def available(
        self, account: str, model: str, now: float, user: str = ""
    ) -> Availability:
        """Whether *account* may be sent a request while others could be, too."""
        one = self._accounts.get(account)
        if one is None or not one.any:
            return WELL
        return worse([look(mark, now) for mark in one.marks(model, user, now)])

    def last_resort(
        self, account: str, model: str, now: float, user: str = ""
    ) -> Availability:
        """Whether *account* may be sent a request when no other can be."""
        marks = self._marks_of(account, model, user, now)
        return worse([look_again(mark, now) for mark in marks])

    def returns_at(
        self, accounts: Iterable[str], model: str, now: float, user: str = ""
    ) -> float | None:
        """When the first of *accounts* returns if all are out; None for none."""
        found = [self.last_resort(account, model, now, user) for account in accounts]
        return min((now if f.ok else f.until or now for f in found), default=None)

    def refusal(
        self, accounts: Iterable[str], model: str, now: float, user: str = ""
    ) -> GatewayError:
        """
        What to tell a client whose every account is out.

        Waiting does not help against a refused credential or a used-up quota without
        a date: those are told as what they are.
        """
        names = list(accounts)
        marks = [m for name in names for m in self._marks_of(name, model, user, now)]
        at = self.returns_at(names, model, now, user)
        wait_s = 1.0 if at is None else at - now
        reasons = {mark.reason for mark in marks if not mark.back(now)}
        undated = not any(mark.told for mark in marks)
        if reasons and reasons <= {"refused", "quota"} and undated:
            code = "upstream_refused" if "refused" in reasons else "upstream_quota"
            return UpstreamError(code)
        return Overloaded("cooling_down", retry_after_s=wait_s)

    def last_error(
        self,
        verdict: Verdict,
        accounts: Iterable[str],
        model: str,
        now: float,
        user: str = "",
    ) -> GatewayError:
        """The error of the last *verdict*, saying when to come back if that helps."""
        error, lasting = verdict.error, verdict.reason in ("refused", "quota")
        lasting = lasting and error.status != 429  # final for Codex without a time
        if verdict.pass_on or not verdict.reason or lasting and not verdict.until_s:
            return error
        at = self.returns_at(accounts, model, now, user)
        error.retry_after_s = whole_retry_after(1.0 if at is None else at - now)
        return error

    def proven(self, account: str, model: str, now: float, user: str = "") -> bool:
        """Whether *account* served *model* lately and has no mark since."""
        one = self._accounts.get(account)
        served = one.served.get(model) if one else None
        lately = served is not None and now - served.at <= PROVEN_S
        return lately and not self._marks_of(account, model, user, now)

    def has_served(self, account: str, model: str) -> bool:
        """Whether *account* is known to have *model*."""
        one = self._accounts.get(account)
        return one is not None and model in one.served

    def forget(self, account: str) -> None:
        """Forget *account*, as after a change of its credential."""
        self._accounts.pop(account, None)
        self._recovery.pop(account, None)

    # -- across restarts --------------------------------------------------------------

    def dump(self, now: float, now_unix: float) -> list[dict[str, Any]]:
        """Every window that still runs, in Unix seconds, as JSON values."""
        return [
            row_of_outage(mark, account, scope, name, now_unix - now)
            for account, one in self._accounts.items()
            for scope, name, mark in one.all_marks()
            if mark.ramp_from is None and mark.until > now
        ]

    def load(self, rows: Iterable[dict[str, Any]], now: float, now_unix: float) -> None:
        """Take up windows of ``dump`` that still run; odd rows are left out."""
        for row in rows:
            found = outage_of(row, now, now - now_unix)
            if found is None:
                continue
            account, scope, name, mark = found
            self._of(account).put(scope, name, mark)

    # -- inside -----------------------------------------------------------------------

    def _of(self, account: str) -> AccountHealth:
        one = self._accounts.get(account)
        if one is None:
            one = self._accounts[account] = AccountHealth()
        return one

    def _marks_of(
        self, account: str, model: str, user: str, now: float | None = None
    ) -> list[Outage]:
        """The marks on *account*, those over by *now* removed."""
        one = self._accounts.get(account)
        return list(one.marks(model, user, now)) if one and one.any else []

    def _met(
        self,
        account: str,
        old: Outage | None,
        verdict: Verdict,
        started_at: float,
        now: float,
    ) -> tuple[Outage, bool]:
        """The mark after a failure, and whether that is news."""
        if old is not None and (old.over(now) or now > old.until + STALE_S):
            old = None
        if old is not None and started_at < (old.ramp_from or old.struck_at):
            return old, self._lengthened(account, old, verdict, now)
        return self._struck(account, old, verdict, now), True

    def _noted(
        self,
        account: str,
        one: AccountHealth,
        verdict: Verdict,
        started_at: float,
        now: float,
        user: str,
    ) -> list[HealthEvent]:
        """A failure that concerns *user* alone; no news while others are served."""
        mark, told = self._met(account, one.by_user.get(user), verdict, started_at, now)
        mark.quiet = one.serves_others(user, now)
        one.mark_user(user, mark)
        told = told and not mark.quiet
        return [happening.cooled(account, "", mark, now)] if told else []

    def _doubted(
        self,
        account: str,
        one: AccountHealth,
        verdict: Verdict,
        started_at: float,
        now: float,
        user: str,
    ) -> list[HealthEvent]:
        """A refusal that *user*'s own request may have brought about: rule 5."""
        one.drop_stale(now - STALE_S)
        mine = one.by_user.get(user)
        known = one.whole is not None and one.whole.reason == verdict.reason
        agreed = len(one.by_user) > (mine is not None)
        probed = mine is not None and started_at >= mine.until
        if not (known or agreed or probed and not one.serves_others(user, now)):
            return self._noted(account, one, verdict, started_at, now, user)
        old = one.whole if known else None
        if doubts := list(one.by_user.values()):
            strikes = sum(mark.strikes for mark in doubts)
            latest = max(doubts, key=lambda mark: mark.struck_at)
            old = replace(latest, strikes=strikes, quiet=False)
            one.by_user.clear()
        one.whole, told = self._met(account, old, verdict, started_at, now)
        return [happening.cooled(account, "", one.whole, now)] if told or doubts else []

    def _struck(
        self, account: str, old: Outage | None, verdict: Verdict, now: float
    ) -> Outage:
        reason = verdict.reason
        strikes, since = 1, now
        if old is not None and POLICIES[old.reason].brief == POLICIES[reason].brief:
            strikes = old.strikes + 1
            since = old.since if old.ramp_from is None else now
        wait_s = cooldown_s(reason, strikes, self._recovery.get(account), now)
        wait_s = jittered(wait_s, self._chance())
        told_s = verdict.until_s
        if told_s is not None:
            # Never before it says; one that said too little before is doubted.
            wait_s = max(told_s, wait_s) if strikes > 1 else told_s
            wait_s += min(1.0, 0.05 * told_s) * self._chance()
        early = now + EARLY_S * (0.75 + 0.25 * self._chance())
        told = told_s is not None
        return Outage(reason, since, now, now + wait_s, early, told, strikes)

    def _lengthened(
        self, account: str, mark: Outage, verdict: Verdict, now: float
    ) -> bool:
        """Another request of the same outage; whether it brought news."""
        if mark.ramp_from is not None:
            return False  # it was sent before the return
        graver = POLICIES[verdict.reason].first_s > POLICIES[mark.reason].first_s
        told_s = verdict.until_s or 0.0
        if not graver and now + told_s <= mark.until:
            return False
        fresh = self._struck(account, None, verdict, now)
        mark.reason, mark.told = fresh.reason, fresh.told or mark.told
        mark.until = max(mark.until, fresh.until)
        return True

    def _learn(self, account: str, mark: Outage, now: float) -> None:
        if not POLICIES[mark.reason].brief or mark.told:
            return
        usual = usual_s(mark.reason)
        known = self._recovery.setdefault(account, Recovery(usual, now))
        # It came back somewhere between the last failure and now; a success long
        # after the window says only that nobody asked.
        between = (mark.struck_at + min(now, mark.until)) / 2
        known.learn(between - mark.since, usual, now)
