"""
The health of one account: its outages, and what it served.

Rule 1: an outage concerns the account as a whole, one model on it, or one user of it
        alone: a credential may be refused because of what
        that user's request holds.
Rule 2: the three are bounded apart from each other. Model names come from clients, so
        no number of them removes one of another kind, or of another account.
Rule 3: an answer to any user proves the credential, and clears what single users met.
Rule 4: a failure that passes by itself belongs to the user, or to the model, where the
        account has served others since: another user that model, or another model. A
        second user or a second model that meets it makes it the account's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeVar

from gateway.accounts.outage import Outage
from gateway.accounts.verdict import PASSING

Scope = Literal["account", "user", "model"]

MAX_MODEL_OUTAGES = 256  # of one account
MAX_SERVED_MODELS = 1024  # of one account
MAX_USERS = 64  # of one account that are known to be served
PROVEN_S = 60.0
BROKEN_STREAMS = 3  # in a row, after which an account is left alone
BROKEN_USERS = 2  # that must have met them: one client may break its own streams

_NEVER = -math.inf
_T = TypeVar("_T")


class Served(NamedTuple):
    """
    When a model was served last, in monotonic seconds.

    Attributes:
        user: to whom.
        others_at: when to another user.
    """

    at: float = _NEVER
    user: str = ""
    others_at: float = _NEVER


class AccountHealth:
    """
    One account.

    Attributes:
        whole: the outage on all of it.
        by_user: the outages that concern one user.
        by_model: the outages on one model, the oldest first.
        served: when each model was served last, the oldest first.
        broken: how many streams broke within the answer since the last whole answer.
    """

    __slots__ = (
        *("whole", "by_user", "by_model", "served", "_users", "broken"),
        "_broken_users",
    )

    def __init__(self) -> None:
        self.whole: Outage | None = None
        self.by_user: OrderedDict[str, Outage] = OrderedDict()
        self.by_model: OrderedDict[str, Outage] = OrderedDict()
        self.served: OrderedDict[str, Served] = OrderedDict()
        self._users: OrderedDict[str, float] = OrderedDict()
        self.broken = 0
        self._broken_users: set[str] = set()

    @property
    def any(self) -> bool:
        """Whether there is any outage."""
        return bool(self.whole or self.by_user or self.by_model)

    def outages(
        self, model: str, user: str, now: float | None = None
    ) -> Iterator[Outage]:
        """
        The outages that count for *model* and *user*, those over by *now* removed.

        Args:
            user: "" for no user in particular: what one user met counts then unless
                others are served.
        """
        if now is not None:
            self._clean(model, user, now)
        if self.whole is not None:
            yield self.whole
        if user:
            mine = self.by_user.get(user)
        else:
            mine = next((m for m in self.by_user.values() if not m.quiet), None)
        if mine is not None:
            yield mine
        if (outage := self.by_model.get(model)) is not None:
            yield outage

    def _clean(self, model: str, user: str, now: float) -> None:
        if self.whole is not None and self.whole.over(now):
            self.whole = None
        outage = self.by_model.get(model)
        if outage is not None and outage.over(now):
            del self.by_model[model]

    def all_outages(self) -> Iterator[tuple[Scope, str, Outage]]:
        """Every outage with its scope and its name there."""
        if self.whole is not None:
            yield "account", "", self.whole
        for user, outage in self.by_user.items():
            yield "user", user, outage
        for model, outage in self.by_model.items():
            yield "model", model, outage

    def drop_stale(self, before: float) -> None:
        """Forget what single users met whose cooldown ended *before* that moment."""
        stale = [name for name, outage in self.by_user.items() if outage.until < before]
        for name in stale:
            del self.by_user[name]

    def put(self, scope: Scope, name: str, outage: Outage) -> None:
        """Put *outage* on the account, or on what *name* is there."""
        if scope == "model":
            self.set_model_outage(name, outage)
        elif scope == "user":
            self.set_user_outage(name, outage)
        else:
            self.whole = outage

    def set_model_outage(self, model: str, outage: Outage) -> None:
        """Put *outage* on *model*; of too many, names that nothing served go first."""
        self.by_model[model] = outage
        self.by_model.move_to_end(model)
        if len(self.by_model) > MAX_MODEL_OUTAGES:
            unserved = (name for name in self.by_model if name not in self.served)
            del self.by_model[next(unserved, next(iter(self.by_model)))]

    def set_user_outage(self, user: str, outage: Outage) -> None:
        """Put *outage* on the account, for *user* alone."""
        self.by_user[user] = outage
        self.by_user.move_to_end(user)
        if len(self.by_user) > MAX_USERS:
            self.by_user.popitem(last=False)

    def note_served(self, model: str, user: str, now: float) -> None:
        """*model* was served to *user*."""
        last = self.served.get(model, Served())
        others_at = last.others_at if last.user == user else last.at
        _note(self.served, model, Served(now, user, others_at), MAX_SERVED_MODELS)
        _note(self._users, user, now, MAX_USERS)

    def serves_others(self, user: str, now: float) -> bool:
        """Whether another user than *user* was served lately."""
        for other, at in reversed(self._users.items()):
            if now - at > PROVEN_S:
                return False
            if other != user:
                return True
        return False

    def whose(self, model: str, user: str, now: float) -> Scope:
        """Whose a failure is that *user* met with *model*: rule 4."""
        if self.whole is not None and not self.whole.back(now):
            return "account"
        last = self.served.get(model, Served())
        others_at = last.others_at if last.user == user else last.at
        met_by_others = any(
            outage.reason in PASSING
            for name, outage in self.by_user.items()
            if name != user
        )
        if now - others_at <= PROVEN_S and not met_by_others:
            return "user"
        served = [one.at for name, one in self.served.items() if name != model]
        served_at = max(served, default=_NEVER)
        struck_at = max(self._passing(model), default=_NEVER)
        proven = now - served_at <= PROVEN_S and struck_at < served_at
        return "model" if proven else "account"

    def _passing(self, model: str) -> Iterator[float]:
        """When other models than *model* met what passes by itself."""
        for name, outage in self.by_model.items():
            if name != model and outage.reason in PASSING and outage.ramp_from is None:
                yield outage.struck_at

    def note_broken(self, user: str) -> bool:
        """A stream of *user* broke; whether the account is to be left alone for it."""
        self.broken += 1
        if len(self._broken_users) < BROKEN_USERS:
            self._broken_users.add(user)
        enough = len(self._broken_users) >= BROKEN_USERS
        return enough and self.broken >= BROKEN_STREAMS

    def note_whole(self) -> None:
        """An answer came to its end."""
        self.broken = 0
        self._broken_users.clear()


def _note(table: OrderedDict[str, _T], key: str, value: _T, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
