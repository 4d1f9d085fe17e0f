"""The last day of the ledger, in counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, func, select
from sqlalchemy.exc import SQLAlchemyError

from gateway.commands.doctor.facts import PastFacts
from gateway.config.schema import Account, Config
from gateway.errors import UPSTREAM_CODES
from gateway.ledger.arrivals import REFUSED_IN_QUEUE
from gateway.ledger.database import Database, LedgerError
from gateway.ledger.tables import attempt, request

SPAN = timedelta(days=1)
MAX_GROUPS = 2000  # names of models are made up by clients


def past_facts(database: Database, config: Config) -> PastFacts:
    """The last day; nothing where the ledger cannot be asked."""
    try:
        with database.inspect() as connection:
            return _counted(connection, config, datetime.now(UTC) - SPAN)
    except (LedgerError, SQLAlchemyError):
        return PastFacts()


def _counted(connection: Connection, config: Config, since: datetime) -> PastFacts:
    r, count = request.c, func.count()
    late = and_(r.started_at >= since, r.outcome != "open")
    ended = connection.scalar(select(count).where(late))

    def groups(
        column: ColumnElement[str], *where: ColumnElement[bool]
    ) -> dict[str, int]:
        question = select(column, count).where(late, *where)
        question = question.group_by(column).order_by(count.desc()).limit(MAX_GROUPS)
        return {str(key): number for key, number in connection.execute(question)}

    codes = groups(r.error_code, r.origin == "gateway")
    absent = groups(r.model, r.error_code == "model_not_found", r.model != "")
    in_vain = groups(r.user, r.error_code.in_(REFUSED_IN_QUEUE))
    tokens = func.coalesce(r.input_tokens, 0) + func.coalesce(r.output_tokens, 0)
    unpriced = groups(r.model, r.cost_usd.is_(None), tokens > 0, r.account != "trial")
    attempts, failures = _attempts(connection, since)
    return PastFacts(
        int(ended or 0),
        codes,
        _still_absent(absent, config.account),
        in_vain,
        attempts,
        failures,
        unpriced,
        _served(connection, since),
    )


def _served(connection: Connection, since: datetime) -> dict[str, str]:
    """A model that each account has answered for."""
    r = request.c
    question = (
        select(r.account, func.max(r.model))
        .where(r.started_at >= since, r.outcome == "ok", r.account != "")
        .group_by(r.account)
    )
    return {account: model for account, model in connection.execute(question)}


def _still_absent(asked: dict[str, int], accounts: Iterable[Account]) -> dict[str, int]:
    """What no account serves by now, either: the config may have been mended."""
    from gateway.accounts.model_index import serves

    served = list(accounts)
    return {
        model: number
        for model, number in asked.items()
        if not any(serves(one, model) for one in served)
    }


def _attempts(
    connection: Connection, since: datetime
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """How many attempts each account had, and how its failures ended."""
    a, count = attempt.c, func.count()
    question = (
        select(a.account, a.error_code, count)
        .where(a.request_started_at >= since)
        .group_by(a.account, a.error_code)
    )
    all_of: dict[str, int] = {}
    failed: dict[str, dict[str, int]] = {}
    for account, code, number in connection.execute(question):
        all_of[account] = all_of.get(account, 0) + number
        if code in UPSTREAM_CODES:
            failed.setdefault(account, {})[code] = number
    return all_of, failed
