"""
What stands against one account, and for it.

Rule 1: a mark stands against the account as a whole, against one model on it, or
        against it for one user alone: a credential may be refused because of what
        that user's request holds.
Rule 2: the three are bounded apart from each other. Model names come from clients, so
        no number of them removes a mark of another kind, or of another account.
Rule 3: an answer to anybody proves the credential, and clears what single users met.
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

MAX_MODEL_MARKS = 256  # of one account
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
        others_at: when to somebody else.
    """

    at: float = _NEVER
    user: str = ""
    others_at: float = _NEVER


class AccountHealth:
    """
    One account.

    Attributes:
        whole: the mark on all of it.
        by_user: the marks that concern one user.
        by_model: the marks on one model, the oldest first.
        served: when each model was served last, the oldest first.
        broken: how many streams broke amid the answer since the last whole answer.
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
        """Whether there is any mark."""
        return bool(self.whole or self.by_user or self.by_model)

    def marks(
        self, model: str, user: str, now: float | None = None
    ) -> Iterator[Outage]:
        """
        The marks that count for *model* and *user*, those over by *now* removed.

        Args:
            user: "" for nobody in particular: what one user met counts then unless
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
        if (mark := self.by_model.get(model)) is not None:
            yield mark

    def _clean(self, model: str, user: str, now: float) -> None:
        if self.whole is not None and self.whole.over(now):
            self.whole = None
        mark = self.by_model.get(model)
        if mark is not None and mark.over(now):
            del self.by_model[model]

    def all_marks(self) -> Iterator[tuple[Scope, str, Outage]]:
        """Every mark with its scope and its name there."""
        if self.whole is not None:
            yield "account", "", self.whole
        for user, mark in self.by_user.items():
            yield "user", user, mark
        for model, mark in self.by_model.items():
            yield "model", model, mark

    def drop_stale(self, before: float) -> None:
        """Forget what single users met whose window ended *before* that moment."""
        stale = [name for name, mark in self.by_user.items() if mark.until < before]
        for name in stale:
            del self.by_user[name]

    def put(self, scope: Scope, name: str, mark: Outage) -> None:
        """Put *mark* on the account, or on what *name* is there."""
        if scope == "model":
            self.mark_model(name, mark)
        elif scope == "user":
            self.mark_user(name, mark)
        else:
            self.whole = mark

    def mark_model(self, model: str, mark: Outage) -> None:
        """Put *mark* on *model*; of too many, names that nothing served go first."""
        self.by_model[model] = mark
        self.by_model.move_to_end(model)
        if len(self.by_model) > MAX_MODEL_MARKS:
            unserved = (name for name in self.by_model if name not in self.served)
            del self.by_model[next(unserved, next(iter(self.by_model)))]

    def mark_user(self, user: str, mark: Outage) -> None:
        """Put *mark* on the account, for *user* alone."""
        self.by_user[user] = mark
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
        """Whether somebody else than *user* was served lately."""
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
            mark.reason in PASSING
            for name, mark in self.by_user.items()
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
        for name, mark in self.by_model.items():
            if name != model and mark.reason in PASSING and mark.ramp_from is None:
                yield mark.struck_at

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
