"""
The accounts that may serve a request, in the order in which to ask them.

Rule 1: fitting is a matter of the config alone: the model. Any account serves any
        protocol, through conversion; of equals, the client's own protocol goes first.
Rule 2: priority, then the session's own account, then least load. A session whose
        cache is warm stays even if an account of better priority is free again:
        moving costs its prompt cache and its reasoning.
Rule 3: nothing is refused while any fitting account is untried (*last resort*).
Rule 4: only the account that made a response or a compaction can go on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from gateway.accounts.affinity import Affinity, Bound, Fitting, even_weights
from gateway.accounts.health import Health
from gateway.accounts.outage import Availability
from gateway.accounts.session import Session
from gateway.config.schema import Account


class Load(NamedTuple):
    """An account's slots: how many are taken, and of how many (0 = no limit)."""

    in_use: int = 0
    limit: int = 0

    @property
    def full(self) -> bool:
        return 0 < self.limit <= self.in_use

    @property
    def share(self) -> float:
        """The share that is taken; without a limit, the count decides among such."""
        return self.in_use / self.limit if self.limit else self.in_use / (1 << 20)


LoadOf = Callable[[], Mapping[str, Load]]


class AccountQuery(NamedTuple):
    """
    What a request asks of accounts, the same for all of its attempts.

    Attributes:
        model: the client's name of it.
        protocol: the client's.
        session: the conversation.
        user: whose request it is; "" for no user in particular.
    """

    model: str
    protocol: str
    session: Session
    user: str = ""


class Restrictions(NamedTuple):
    """
    The accounts that one attempt may go to.

    Attributes:
        tried: accounts that the request was sent to before.
        owners: the only accounts that can serve it; empty for any.
        fitting: every account that the config lets serve the model.
    """

    tried: Collection[str] = ()
    owners: Collection[str] = ()
    fitting: Fitting = frozenset()


class Rejection(NamedTuple):
    """
    A fitting account that is not asked.

    Attributes:
        reason: what it is out for, or ``tried``.
        left_s: seconds until it returns; None if unknown.
        dated: the upstream itself said so.
    """

    name: str
    reason: str
    left_s: float | None = None
    dated: bool = False


class Choice(NamedTuple):
    """
    Where a request may go.

    Attributes:
        tiers: names, best tier first; inside a tier the better first, and each as
            good as the others when it comes to waiting for a slot.
        prefer: the account worth waiting for a moment; "" if none is.
        rejected: the fitting accounts that are out or were tried.
        fitting: every account that the config lets serve the model.
        last_resort: all are out; these are asked nevertheless.
        bound: the only ones that can go on from the turn before; empty for any.
    """

    tiers: list[list[str]]
    prefer: str
    rejected: list[Rejection]
    fitting: list[str]
    last_resort: bool = False
    bound: Collection[str] = ()

    @property
    def ordered(self) -> list[str]:
        """All of ``tiers``."""
        return [name for tier in self.tiers for name in tier]


def candidates(
    serving: Sequence[Account],
    query: AccountQuery,
    restrictions: Restrictions,
    health: Health,
    affinity: Affinity,
    load: LoadOf,
    now: float,
) -> Choice:
    """
    The accounts to ask for *query*, best first.

    ``fitting`` empty: no account serves the model. ``tiers`` empty otherwise: all
    were tried, or all are out (``Health.refusal`` says what to tell the client).

    Args:
        serving: the accounts that may serve the model (``ModelIndex``).
        load: looked at only where there is something to weigh.
    """
    tried, owners, fitting = restrictions
    model, user = query.model, query.user
    fit = [a for a in serving if a.name in owners] if owners else serving
    names = [account.name for account in fit]
    if len(fit) == 1 and not tried and health.available(names[0], model, now, user).ok:
        return Choice([names], "", [], names)  # the usual case where there is one
    left = [account for account in fit if account.name not in tried]
    rejected = [Rejection(name, "tried") for name in names if name in tried]
    found, last_resort = _availability(left, query, health, now)
    rejected += [_out(name, f, now) for name, f in found.items() if not f.ok]
    well = [account for account in left if found[account.name].ok]
    if len(well) == 1:  # nothing to weigh
        return Choice([[well[0].name]], "", rejected, names, last_resort)
    able = [account.name for account in well]
    bound = affinity.bound(query.session.key, able, now, fitting, model)
    held = bound if bound and query.session.is_named else None
    mine = held.account if held else ""
    order = _Order(affinity, load(), query.session, mine, found, now)
    ranked = [order.of(tier) for tier in _tiers(well, query.protocol, held)]
    prefer = mine if ranked and mine in ranked[0] else ""
    return Choice(ranked, prefer, rejected, names, last_resort)


def _out(name: str, found: Availability, now: float) -> Rejection:
    left_s = None if found.until is None else round(found.until - now, 1)
    return Rejection(name, found.reason, left_s, found.dated)


def _availability(
    left: list[Account], query: AccountQuery, health: Health, now: float
) -> tuple[dict[str, Availability], bool]:
    """What may be asked of *left*, by name; and whether it is the last resort."""
    model, user = query.model, query.user
    found = {a.name: health.available(a.name, model, now, user) for a in left}
    if not any(f.ok for f in found.values()):
        found = {n: f._replace(ok=f.shunned) for n, f in found.items()}
    last_resort = bool(left) and not any(f.ok for f in found.values())
    if last_resort:
        found = {a.name: health.last_resort(a.name, model, now, user) for a in left}
    return found, last_resort


def _tiers(
    well: list[Account], protocol: str, held: Bound | None
) -> list[list[Account]]:
    """*well* by rank: a warm *held*, then priority, then the client's own protocol."""
    warm = held.account if held and held.warm else ""
    ranks: dict[tuple[float, bool], list[Account]] = {}
    best = min((account.priority for account in well), default=0)
    for account in well:
        foreign = account.upstream_protocol(protocol) != protocol
        rank = (account.priority, foreign)
        if account.name == warm:
            rank = (best, False)
        ranks.setdefault(rank, []).append(account)
    return [ranks[rank] for rank in sorted(ranks)]


class _Order(NamedTuple):
    """The order inside a tier."""

    affinity: Affinity
    load: Mapping[str, Load]
    session: Session
    mine: str
    found: Mapping[str, Availability]
    now: float

    def of(self, tier: list[Account]) -> list[str]:
        """
        The session's own account, then those with a free slot, then the rest.

        A named session takes them as hashing says, so that it comes back to the same
        one; what has no session goes where most is free.
        """
        weights = even_weights([(a.name, a.max_concurrent) for a in tier])
        hashed = self.affinity.first_choice(self.session.key, weights, self.now)
        place = {name: n for n, name in enumerate(hashed)}

        def rank(account: Account) -> tuple[bool, bool, bool, float, int]:
            name = account.name
            load = self.load.get(name, Load(0, account.max_concurrent))
            share = 0.0 if self.session.is_named else load.share
            spare = self.found[name].spare
            return (name != self.mine, load.full, spare, share, place[name])

        return [account.name for account in sorted(tier, key=rank)]
