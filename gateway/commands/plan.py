"""
``gateway plan``: what other limits would have changed for the requests of the past.

The ledger's requests go through the policy of admission twice, under a simulated clock:
with the limits of the config, and with those that are asked about. The first shows how
far the second can be trusted, because the ledger knows how long each has really waited.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from gateway.accounts.model_index import serves
from gateway.admission.simulation import Arrival, Simulation
from gateway.commands.plan_answer import PlanAnswer, Replay
from gateway.commands.plan_setting import (
    PlanError,
    Setting,
    changed,
    parse_like,
    parse_set,
    setting_of,
)
from gateway.commands.refusal import FAILED, refuse, refuse_config
from gateway.config.load import load_beside
from gateway.config.parse import ConfigError
from gateway.config.schema import Account, Config, User
from gateway.ledger import render, runtime_users
from gateway.ledger.arrivals import PastRequest, past_requests
from gateway.ledger.database import Database, LedgerError
from gateway.ledger.report import QuestionError, parse_since


def plan(args: argparse.Namespace, path: Path) -> int:
    """Print what would have been; returns 0, or 1 when that cannot be said."""
    try:
        config = load_beside(path)
        changes = [*map(parse_set, args.set), *map(parse_like, args.like)]
        since = parse_since(args.since, datetime.now(UTC))
        past, made = _past(config, path.parent, since)
        now = setting_of(config, {one.user for one in past}, made)
        then = changed(now, changes)
        fitting = [one for one in past if _tiers(now.accounts, one.model)]
        if not fitting:
            raise PlanError(f"No request has asked for a slot since {since:%Y-%m-%d}.")
        was = _simulated(fitting, now, "as it is")
        be = _simulated(fitting, then, "as asked") if changes else None
    except ConfigError as error:
        return refuse_config(args, error, status=FAILED)
    except LedgerError as error:
        return refuse(args, "ledger_unavailable", str(error))
    except (PlanError, QuestionError) as error:
        return refuse(args, "invalid_argument", str(error))
    arrivals = arrivals_of(fitting, now.accounts)
    answer = PlanAnswer(fitting, arrivals, was, be)
    print(render.as_json(answer.document()) if args.json else answer.text(args.plot))
    return 0


def _past(
    config: Config, folder: Path, since: datetime
) -> tuple[list[PastRequest], Sequence[User]]:
    """The requests, and the users that were made at run time."""
    database = Database(config.ledger.url, folder)
    try:
        with database.inspect() as connection:
            made = runtime_users.load(connection).users
            return list(past_requests(connection, since)), made
    finally:
        database.dispose()


def _simulated(past: Sequence[PastRequest], setting: Setting, name: str) -> Replay:
    simulation = Simulation(setting.plan())
    arrivals = arrivals_of(past, setting.accounts)
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as p:
        task = p.add_task(name, total=len(arrivals))
        passages = simulation.run(arrivals, lambda done: p.update(task, completed=done))
    slots = simulation.plan.accounts
    return Replay(passages, slots, simulation.busy_s)


def arrivals_of(
    past: Sequence[PastRequest], accounts: Sequence[Account]
) -> list[Arrival]:
    """*past* as admission met it; what never ran is given the usual time."""
    usual, began = _usual_times(past), past[0].at
    tiers: dict[str, tuple[tuple[str, ...], ...]] = {}
    found = []
    for one in past:
        fit = tiers.get(one.model)
        if fit is None:
            fit = tiers[one.model] = _tiers(accounts, one.model)
        service_s = one.service_s
        if service_s is None:
            service_s = usual.get((one.user, one.model)) or usual.get(("", ""), 1.0)
        fits = one.session and any(one.account in tier for tier in fit)
        found.append(
            Arrival(
                (one.at - began).total_seconds(),
                one.user,
                fit,
                service_s,
                one.wait_s if one.refused == "left" else None,
                one.account if fits else "",
            )
        )
    return found


def _tiers(accounts: Sequence[Account], model: str) -> tuple[tuple[str, ...], ...]:
    """The accounts that serve *model*, by priority."""
    ranks: dict[int, list[str]] = {}
    for one in accounts:
        if serves(one, model):
            ranks.setdefault(one.priority, []).append(one.name)
    return tuple(tuple(ranks[rank]) for rank in sorted(ranks))


def _usual_times(past: Sequence[PastRequest]) -> dict[tuple[str, str], float]:
    """The median time of each user with each model; of all under two empty names."""
    times: dict[tuple[str, str], list[float]] = {}
    for one in past:
        if one.service_s is not None:
            times.setdefault((one.user, one.model), []).append(one.service_s)
            times.setdefault(("", ""), []).append(one.service_s)
    return {key: sorted(some)[len(some) // 2] for key, some in times.items()}
