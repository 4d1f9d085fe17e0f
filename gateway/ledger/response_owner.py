"""Which account made a response, and for whom, from the rows of the requests."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, or_, select

from gateway.ledger.ledger import Ledger
from gateway.ledger.tables import HAS_FOREIGN_RESPONSE_ID, request

_row = request.c


async def response_owner(ledger: Ledger, response_id: str, user: str) -> str:
    """The account that made *response_id* for *user*; "" if no row says so."""
    wanted = (
        select(_row.account)
        .where(_has(response_id), _row.user == user, _row.account != "")
        .order_by(_row.started_at.desc())
        .limit(1)
    )
    return await ledger.read(lambda connection: connection.scalar(wanted) or "")


async def is_of_another(ledger: Ledger, response_id: str, user: str) -> bool:
    """Whether *response_id* was made for others than *user* alone."""
    users = select(_row.user).where(_has(response_id)).distinct()
    found = await ledger.read(lambda connection: list(connection.scalars(users)))
    return bool(found) and user not in found


def _has(response_id: str) -> ColumnElement[bool]:
    """
    The rows of a response. Both ways to find one have an index: an id that the upstream
    gave, and one that the gateway made of its own request id.
    """
    ours = response_id.removeprefix("resp_").replace("-", "")
    return or_(
        and_(_row.response_id == response_id, HAS_FOREIGN_RESPONSE_ID),
        and_(_row.plain_id == ours, _row.response_id == response_id),
    )
