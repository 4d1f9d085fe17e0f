"""
Which account is well, and when the others return.

Rule 1: an outage concerns an account as a whole, one model on it, or one user of it
        (``AccountHealth``).
Rule 2: one outage is one strike, however many requests met it: what was sent before
        the last strike only lengthens it, by the upstream's own time.
Rule 3: after the cooldown one real request is the probe; the others wait for it.
Rule 4: while another account is well, one that is out is left alone. If none is,
        *last_resort* asks: the first strikes refuse no request, later ones are
        probed every few seconds, unless the upstream itself said when.
Rule 5: a refused credential is one user's word until a second user meets it, or a
        probe after the cooldown, with no answer to any user in between.
Rule 6: an error or a reset that passes by itself may be the doing of one request, too.
        While the account serves others, it counts for that user or that model alone,
        until a second one meets it. Each answer halves the strikes.
Rule 7: three streams in a row that broke, of two users, count as a failure. Only a
        whole answer ends that, and where no other account fits it is asked all the
        same.
Rule 8: an account that the operator paused is asked by no request, whatever else is
        known of it, also across a changed config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from gateway.accounts import backoff, health_event
from gateway.accounts.account_health import PROVEN_S, AccountHealth, Scope
from gateway.accounts.health_event import HealthEvent
from gateway.accounts.outage import (
    PAUSED,
    WELL,
    Availability,
    Outage,
    look,
    look_again,
    worse,
)
from gateway.accounts.saved_outages import outage_of, row_of_outage
from gateway.accounts.verdict import Verdict

STALE_S = 600.0  # an outage that no request probed for so long counts no more
MAX_STRIKES = 64  # the cooldown has long reached its cap


class Health:
    """
    The state of all accounts; *chance* is uniform in 0…1, for jitter. It has many
    methods, one for each thing that can happen to an account or be asked of it.

    A *user* of "" is no user in particular.

    Attributes:
        paused: since when the operator has paused accounts, in monotonic seconds.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._accounts: dict[str, AccountHealth] = {}
        self._recovery: dict[str, backoff.Recovery] = {}
        self.paused: Mapping[str, float] = {}

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
        for outage in self.outages_of(account, model, user):
            if outage.ramp_from is not None:
                outage.starts += 1
            elif found.probe:
                outage.probe_at = now
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

        What clients do is reported by ``dropped``, streams that break later by
        ``broke``.
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
            outage, is_news = self._met(account, old, verdict, started_at, now)
            one.set_model_outage(model, outage)
        else:
            outage, is_news = self._met(account, one.whole, verdict, started_at, now)
            one.whole, model = outage, ""
        return [health_event.cooled(account, model, outage, now)] if is_news else []

    def broke(
        self, account: str, started_at: float, now: float, user: str
    ) -> list[HealthEvent]:
        """A stream broke within its answer, by the upstream's doing."""
        one = self._of(account)
        old = one.whole
        if not one.note_broken(user):
            return []
        if old is not None and (old.until > now and not old.breaks):
            return []  # it is out already, by another word
        if old is not None and old.breaks and started_at < old.struck_at:
            return []  # the same outage
        strikes = min(old.strikes + 1, MAX_STRIKES) if old and old.breaks else 1
        wait_s = backoff.jittered(
            backoff.cooldown_s("failed", strikes, None, now), self._chance()
        )
        until = now + wait_s
        one.whole = Outage(
            "failed", now, now, until, until, False, strikes, breaks=True
        )
        return [health_event.cooled(account, "", one.whole, now)]

    def succeeded(
        self, account: str, model: str, started_at: float, now: float, user: str = ""
    ) -> list[HealthEvent]:
        """An attempt brought its first output, or its whole answer."""
        one = self._of(account)
        one.note_served(model, user, now)
        if not one.any:
            return []
        recovered = False
        for outage in (one.whole, one.by_model.get(model)):
            if outage is None or outage.breaks:
                continue
            if outage.ramp_from is not None:
                outage.strikes -= outage.strikes // 2
                continue
            # An older request that still went well proves a path, not a quota.
            proof = outage.reason in ("network", "failed") and not outage.dated
            if started_at >= outage.struck_at or proof:
                self._learn(account, outage, now)
                outage.ramp_from, outage.starts, outage.probe_at = now, 0, None
                outage.strikes -= outage.strikes // 2
                recovered = True
        for name, outage in list(one.by_user.items()):
            if started_at >= outage.struck_at:
                del one.by_user[name]
                recovered = recovered or not outage.quiet
        return [health_event.recovered(account)] if recovered else []

    def completed(self, account: str, user: str, now: float) -> list[HealthEvent]:
        """An answer came to its end."""
        one = self._of(account)
        one.note_whole()
        outage = one.whole
        if outage is None or not outage.breaks or outage.ramp_from is not None:
            return []
        outage.ramp_from, outage.starts, outage.probe_at = now, 0, None
        return [health_event.recovered(account)]

    def dropped(
        self, account: str, model: str, started_at: float, user: str = ""
    ) -> None:
        """An attempt ended without a word about the account: its probe is free."""
        for outage in self.outages_of(account, model, user):
            if outage.probe_at == started_at:
                outage.probe_at = None

    def probed_elsewhere(
        self, account: str, model: str, now: float, user: str = ""
    ) -> None:
        """Another process has sent the probe."""
        for outage in self.outages_of(account, model, user):
            if outage.ramp_from is None:
                outage.probe_at = now

    # -- what may be done -----------------------------------------------------------

    def available(
        self, account: str, model: str, now: float, user: str = ""
    ) -> Availability:
        """Whether *account* may be sent a request while others could be, too."""
        if account in self.paused:
            return PAUSED
        one = self._accounts.get(account)
        if one is None or not one.any:
            return WELL
        return worse([look(outage, now) for outage in one.outages(model, user, now)])

    def last_resort(
        self, account: str, model: str, now: float, user: str = ""
    ) -> Availability:
        """Whether *account* may be sent a request when no other can be."""
        if account in self.paused:
            return PAUSED
        outages = self.outages_of(account, model, user, now)
        return worse([look_again(outage, now) for outage in outages])

    def outages_of(
        self, account: str, model: str, user: str, now: float | None = None
    ) -> list[Outage]:
        """The outages on *account*, those over by *now* removed."""
        one = self._accounts.get(account)
        return list(one.outages(model, user, now)) if one and one.any else []

    def all_outages(self, account: str) -> list[tuple[Scope, str, Outage]]:
        """Every outage of *account* with its scope and its name there."""
        one = self._accounts.get(account)
        return list(one.all_outages()) if one else []

    def proven(self, account: str, model: str, now: float, user: str = "") -> bool:
        """Whether *account* served *model* lately and has no outage since."""
        one = self._accounts.get(account)
        served = one.served.get(model) if one else None
        lately = served is not None and now - served.at <= PROVEN_S
        return lately and not self.outages_of(account, model, user, now)

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
        """Every outage that still runs, in Unix seconds, as JSON values."""
        return [
            row_of_outage(outage, account, scope, name, now_unix - now)
            for account, one in self._accounts.items()
            for scope, name, outage in one.all_outages()
            if outage.ramp_from is None and outage.until > now
        ]

    def account(self, name: str) -> AccountHealth:
        """What is known of the account *name*."""
        return self._of(name)

    def load(self, rows: Iterable[dict[str, Any]], now: float, now_unix: float) -> None:
        """Take up outages of ``dump`` that still run; odd rows are left out."""
        for row in rows:
            found = outage_of(row, now, now - now_unix)
            if found is None:
                continue
            account, scope, name, outage = found
            self._of(account).put(scope, name, outage)

    # -- inside -----------------------------------------------------------------------

    def _of(self, account: str) -> AccountHealth:
        one = self._accounts.get(account)
        if one is None:
            one = self._accounts[account] = AccountHealth()
        return one

    def _met(
        self,
        account: str,
        old: Outage | None,
        verdict: Verdict,
        started_at: float,
        now: float,
    ) -> tuple[Outage, bool]:
        """The outage after a failure, and whether that is news."""
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
        outage, is_news = self._met(
            account, one.by_user.get(user), verdict, started_at, now
        )
        outage.quiet = one.serves_others(user, now)
        one.set_user_outage(user, outage)
        is_news = is_news and not outage.quiet
        return [health_event.cooled(account, "", outage, now)] if is_news else []

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
            strikes = sum(outage.strikes for outage in doubts)
            latest = max(doubts, key=lambda outage: outage.struck_at)
            old = replace(latest, strikes=strikes, quiet=False)
            one.by_user.clear()
        one.whole, is_news = self._met(account, old, verdict, started_at, now)
        return (
            [health_event.cooled(account, "", one.whole, now)]
            if is_news or doubts
            else []
        )

    def _struck(
        self, account: str, old: Outage | None, verdict: Verdict, now: float
    ) -> Outage:
        reason = verdict.reason
        strikes, since = 1, now
        if (
            old is not None
            and backoff.POLICIES[old.reason].brief == backoff.POLICIES[reason].brief
        ):
            strikes = old.strikes + 1
            since = old.since if old.ramp_from is None else now
        wait_s = backoff.cooldown_s(reason, strikes, self._recovery.get(account), now)
        wait_s = backoff.jittered(wait_s, self._chance())
        upstream_s = verdict.until_s
        if upstream_s is not None:
            # Never before the upstream says; one that said too little is doubted.
            wait_s = max(upstream_s, wait_s) if strikes > 1 else upstream_s
            wait_s += min(1.0, 0.05 * upstream_s) * self._chance()
        early = now + backoff.EARLY_S * (0.75 + 0.25 * self._chance())
        dated = upstream_s is not None
        return Outage(reason, since, now, now + wait_s, early, dated, strikes)

    def _lengthened(
        self, account: str, outage: Outage, verdict: Verdict, now: float
    ) -> bool:
        """Another request of the same outage; whether it brought news."""
        if outage.ramp_from is not None:
            return False  # it was sent before the return
        graver = (
            backoff.POLICIES[verdict.reason].first_s
            > backoff.POLICIES[outage.reason].first_s
        )
        upstream_s = verdict.until_s or 0.0
        if not graver and now + upstream_s <= outage.until:
            return False
        fresh = self._struck(account, None, verdict, now)
        outage.reason, outage.dated = fresh.reason, fresh.dated or outage.dated
        outage.until = max(outage.until, fresh.until)
        return True

    def _learn(self, account: str, outage: Outage, now: float) -> None:
        if not backoff.POLICIES[outage.reason].brief or outage.dated:
            return
        usual = backoff.usual_s(outage.reason)
        known = self._recovery.setdefault(account, backoff.Recovery(usual, now))
        # It came back somewhere between the last failure and now; a success long
        # after the cooldown says only that no request was sent.
        between = (outage.struck_at + min(now, outage.until)) / 2
        known.learn(between - outage.since, usual, now)
