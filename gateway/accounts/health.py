"""
Which account is well, and when the others return.

Rule 1: a mark stands against an account as a whole, or against one model on it.
Rule 2: one outage is one strike, however many requests met it: what was sent before
        the last strike only lengthens it, by the upstream's own word.
Rule 3: after the window one real request is the probe; the others wait for it.
Rule 4: while anything else is well, an account that is out is left alone. If nothing
        is, *last_resort* asks: the first strikes refuse nobody, later ones are probed
        every few seconds, unless the upstream itself said when.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from gateway.accounts.mark import WELL, Availability, Mark, look, look_again, worse
from gateway.accounts.pace import (
    EARLY_S,
    PACES,
    Recovery,
    jittered,
    usual_s,
    window_s,
)
from gateway.accounts.verdict import Verdict
from gateway.errors import GatewayError, Overloaded, UpstreamError, whole_retry_after

MAX_MARKS = 4096  # model names come from clients
PROVEN_S = 60.0
STALE_S = 600.0  # a mark that nobody probed for so long counts no more


class Happening(NamedTuple):
    """A line for the log: the event and its keys."""

    event: str
    facts: dict[str, Any]


class Health:
    """The state of all accounts; *chance* is uniform in 0…1, for jitter."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._marks: OrderedDict[tuple[str, str], Mark] = OrderedDict()
        self._recovery: dict[str, Recovery] = {}
        self._served: OrderedDict[tuple[str, str], float] = OrderedDict()

    # -- what happens to accounts ---------------------------------------------------

    def started(
        self, account: str, model: str, now: float, *, last_resort: bool = False
    ) -> bool:
        """
        A request is about to be sent; False if the probe is taken by now.

        *now* names the attempt: give the same as *started_at* of its outcome.
        """
        if not self._marks:
            return True
        ask = self.last_resort if last_resort else self.available
        found = ask(account, model, now)
        if not found.ok:
            return False
        for mark in self._marks_of(account, model):
            if mark.ramp_from is not None:
                mark.starts += 1
            elif found.probe:
                mark.probe_at = now
        return True

    def failed(
        self, account: str, model: str, verdict: Verdict, started_at: float, now: float
    ) -> list[Happening]:
        """
        An attempt failed before its first output.

        Later failures and what clients do are not told here; see ``dropped``.
        """
        if not verdict.reason:
            self.dropped(account, model, started_at)
            return []
        key = (account, model if verdict.scope == "model" else "")
        old = self._marks.get(key)
        if old is not None and (old.over(now) or now > old.until + STALE_S):
            old = None
        if old is not None and started_at < (old.ramp_from or old.struck_at):
            return self._lengthened(key, old, verdict, now)
        mark = self._struck(key, old, verdict, now)
        self._marks[key] = mark
        self._marks.move_to_end(key)
        if len(self._marks) > MAX_MARKS:
            self._marks.popitem(last=False)
        return [_cooled(key, mark, now)]

    def succeeded(
        self, account: str, model: str, started_at: float, now: float
    ) -> list[Happening]:
        """An attempt brought its first output, or its whole answer."""
        key = (account, model)
        self._served[key] = now
        self._served.move_to_end(key)
        if len(self._served) > MAX_MARKS:
            self._served.popitem(last=False)
        if not self._marks:
            return []
        recovered = False
        for key in ((account, ""), key):
            mark = self._marks.get(key)
            if mark is None or mark.ramp_from is not None:
                continue
            # An older request that still went well proves a path, not a quota.
            proof = mark.reason in ("network", "failed") and not mark.told
            if started_at >= mark.struck_at or proof:
                self._learn(account, mark, now)
                mark.ramp_from, mark.starts, mark.probe_at = now, 0, None
                recovered = True
        return [Happening("account.recovered", {"account": account})] * recovered

    def dropped(self, account: str, model: str, started_at: float) -> None:
        """An attempt ended without a word about the account: its probe is free."""
        for mark in self._marks_of(account, model):
            if mark.probe_at == started_at:
                mark.probe_at = None

    # -- what may be done -----------------------------------------------------------

    def available(self, account: str, model: str, now: float) -> Availability:
        """Whether *account* may be sent a request while others could be, too."""
        if not self._marks:
            return WELL
        return worse([look(m, now) for m in self._marks_of(account, model, now)])

    def last_resort(self, account: str, model: str, now: float) -> Availability:
        """Whether *account* may be sent a request when no other can be."""
        marks = self._marks_of(account, model, now)
        return worse([look_again(mark, now) for mark in marks])

    def returns_at(
        self, accounts: Iterable[str], model: str, now: float
    ) -> float | None:
        """When the first of *accounts* returns if all are out; None for none."""
        found = [self.last_resort(account, model, now) for account in accounts]
        return min((now if f.ok else f.until or now for f in found), default=None)

    def refusal(self, accounts: Iterable[str], model: str, now: float) -> GatewayError:
        """
        What to tell a client whose every account is out.

        Waiting does not help against a refused credential or a used-up quota without
        a date: those are told as what they are.
        """
        names = list(accounts)
        marks = [m for name in names for m in self._marks_of(name, model, now)]
        at = self.returns_at(names, model, now)
        wait_s = 1.0 if at is None else at - now
        reasons = {mark.reason for mark in marks if not mark.back(now)}
        undated = not any(mark.told for mark in marks)
        if reasons and reasons <= {"refused", "quota"} and undated:
            code = "upstream_refused" if "refused" in reasons else "upstream_quota"
            return UpstreamError(code)
        return Overloaded("cooling_down", retry_after_s=wait_s)

    def last_word(
        self, verdict: Verdict, accounts: Iterable[str], model: str, now: float
    ) -> GatewayError:
        """The error of the last *verdict*, saying when to come back if that helps."""
        error, lasting = verdict.error, verdict.reason in ("refused", "quota")
        lasting = lasting and error.status != 429  # final for Codex without a time
        if verdict.pass_on or not verdict.reason or lasting and not verdict.until_s:
            return error
        at = self.returns_at(accounts, model, now)
        error.retry_after_s = whole_retry_after(1.0 if at is None else at - now)
        return error

    def proven(self, account: str, model: str, now: float) -> bool:
        """Whether *account* served *model* lately and has no mark since."""
        served = self._served.get((account, model))
        lately = served is not None and now - served <= PROVEN_S
        return lately and not self._marks_of(account, model, now)

    def has_served(self, account: str, model: str) -> bool:
        """Whether *account* is known to have *model*."""
        return (account, model) in self._served

    def forget(self, account: str) -> None:
        """Take every mark off *account*, as after a change of its credential."""
        for key in [key for key in self._marks if key[0] == account]:
            del self._marks[key]
        self._recovery.pop(account, None)

    # -- across restarts --------------------------------------------------------------

    def dump(self, now: float, now_unix: float) -> list[dict[str, Any]]:
        """Every window that still runs, in Unix seconds, as JSON values."""
        shift = now_unix - now
        return [
            {
                "account": account,
                "model": model,
                "reason": mark.reason,
                "since": mark.since + shift,
                "until": mark.until + shift,
                "told": mark.told,
                "strikes": mark.strikes,
            }
            for (account, model), mark in self._marks.items()
            if mark.ramp_from is None and mark.until > now
        ]

    def load(self, rows: Iterable[dict[str, Any]], now: float, now_unix: float) -> None:
        """Take up windows of ``dump`` that still run; odd rows are left out."""
        shift = now - now_unix
        for row in rows:
            try:
                key = (str(row["account"]), str(row["model"]))
                until = float(row["until"]) + shift
                since = min(now, float(row["since"]) + shift)
                strikes, told = max(1, int(row["strikes"])), bool(row["told"])
                reason = row["reason"]
            except (KeyError, TypeError, ValueError):
                continue
            if reason in PACES and until > now:
                early = min(until, now + EARLY_S)
                self._marks[key] = Mark(reason, since, now, until, early, told, strikes)

    # -- inside -----------------------------------------------------------------------

    def _marks_of(
        self, account: str, model: str, now: float | None = None
    ) -> list[Mark]:
        """The marks on *account*, those over by *now* removed."""
        found: list[Mark] = []
        if not self._marks:
            return found
        for key in dict.fromkeys(((account, ""), (account, model))):
            mark = self._marks.get(key)
            if mark is None:
                continue
            if now is not None and mark.over(now):
                del self._marks[key]
            else:
                found.append(mark)
        return found

    def _struck(
        self, key: tuple[str, str], old: Mark | None, verdict: Verdict, now: float
    ) -> Mark:
        reason = verdict.reason
        strikes, since = 1, now
        if old is not None and PACES[old.reason].brief == PACES[reason].brief:
            strikes = old.strikes + 1
            since = old.since if old.ramp_from is None else now
        wait_s = window_s(reason, strikes, self._recovery.get(key[0]), now)
        wait_s = jittered(wait_s, self._chance())
        told_s = verdict.until_s
        if told_s is not None:
            # Never before it says; one that said too little before is doubted.
            wait_s = max(told_s, wait_s) if strikes > 1 else told_s
            wait_s += min(1.0, 0.05 * told_s) * self._chance()
        early = now + EARLY_S * (0.75 + 0.25 * self._chance())
        told = told_s is not None
        return Mark(reason, since, now, now + wait_s, early, told, strikes)

    def _lengthened(
        self, key: tuple[str, str], mark: Mark, verdict: Verdict, now: float
    ) -> list[Happening]:
        """Another request of the same outage: only news counts."""
        if mark.ramp_from is not None:
            return []  # it was sent before the return
        graver = PACES[verdict.reason].first_s > PACES[mark.reason].first_s
        told_s = verdict.until_s or 0.0
        if not graver and now + told_s <= mark.until:
            return []
        fresh = self._struck(key, None, verdict, now)
        mark.reason, mark.told = fresh.reason, fresh.told or mark.told
        mark.until = max(mark.until, fresh.until)
        return [_cooled(key, mark, now)]

    def _learn(self, account: str, mark: Mark, now: float) -> None:
        if not PACES[mark.reason].brief or mark.told:
            return
        usual = usual_s(mark.reason)
        known = self._recovery.setdefault(account, Recovery(usual, now))
        # It came back somewhere between the last failure and now; a success long
        # after the window says only that nobody asked.
        between = (mark.struck_at + min(now, mark.until)) / 2
        known.learn(between - mark.since, usual, now)


def _cooled(key: tuple[str, str], mark: Mark, now: float) -> Happening:
    account, model = key
    facts: dict[str, Any] = {
        "account": account,
        "until_s": round(mark.until - now, 1),
        "reason": mark.reason,
        "strikes": mark.strikes,
    }
    return Happening("account.cooled", facts | ({"model": model} if model else {}))
