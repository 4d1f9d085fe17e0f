"""
The ledger's tables, the same on SQLite and PostgreSQL.

Rule 1: ``request`` and ``attempt`` have the words of the canonical log line; a number
        that is not known is NULL, a text that is not known is empty.
Rule 2: a request is its id *and* its start: clients choose ids, and one that sends
        the same id twice has made two requests, both of which cost money.
Rule 3: keys lead with the time, so that what is written now lies together: a commit
        writes whole pages. An index has only the rows that a query can ask for.
Rule 4: a change here needs a migration; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TextClause,
    text,
)
from sqlalchemy.types import TypeDecorator


class Utc(TypeDecorator[datetime]):
    """
    A moment: an aware datetime in UTC or Unix seconds go in, a datetime comes out.

    SQLite keeps it as readable text in UTC without an offset, so it also sorts.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime | float | None, dialect: Dialect
    ) -> datetime | None:
        if value is None:
            return None
        if not isinstance(value, datetime):
            value = datetime.fromtimestamp(value, UTC)
        naive = dialect.name == "sqlite"
        return value.astimezone(UTC).replace(tzinfo=None) if naive else value

    def process_result_value(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value


metadata = MetaData()

HAS_SESSION = text("session <> ''")
HAS_UPSTREAM_ID = text("upstream_request_id <> ''")
# The gateway's own response id is the request's id: that has an index of its own.
HAS_FOREIGN_RESPONSE_ID = text(
    "response_id <> '' AND response_id <> 'resp_' || plain_id"
)
IS_OPEN = text("outcome = 'open'")


_PARTIAL: list[tuple[Index, TextClause]] = []


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _index(name: str, column: str, where: TextClause) -> Index:
    """Of the rows for which *where* is true."""
    index = Index(name, column, sqlite_where=where)
    _PARTIAL.append((index, where))
    return index


def speak_postgresql() -> None:
    """
    Let the tables be made on PostgreSQL. SQLAlchemy loads its dialect for that, which
    a ledger in SQLite need not pay for: 2 MB and 0.03 s.
    """
    for index, where in _PARTIAL:
        index.dialect_options["postgresql"]["where"] = where


def _tokens(name: str) -> Column[int | None]:
    return Column(name, BigInteger)


request = Table(
    "request",
    metadata,
    Column("request_id", Text, nullable=False),
    Column("started_at", Utc, nullable=False),
    _text("response_id"),
    _text("user"),
    _text("key"),
    _text("account"),
    _text("protocol"),
    _text("upstream_protocol"),
    _text("model"),
    _text("upstream_model"),
    Column("stream", Boolean, nullable=False),
    _text("outcome"),  # "open" until it is closed
    _text("origin"),
    _text("error_code"),
    Column("status", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("queue_ms", Float),
    Column("first_event_ms", Float),
    Column("duration_ms", Float),
    _tokens("input_tokens"),
    _tokens("cached_tokens"),
    _tokens("cache_write_tokens"),
    _tokens("cache_write_1h_tokens"),
    _tokens("output_tokens"),
    _tokens("reasoning_tokens"),
    Column("estimated", Boolean, nullable=False),
    Column("cost_usd", Float(53)),
    _text("upstream_request_id"),
    _text("client"),
    _text("session"),
    _text("dropped"),  # what a conversion left out, joined by commas
    _text("plain_id"),  # the request id without dashes, as people paste it
    _text("node"),  # the process that serves it, see ``presence``
    PrimaryKeyConstraint("started_at", "request_id", name="request_pkey"),
    Index("request_plain_id", "plain_id"),
    _index("request_response_id", "response_id", HAS_FOREIGN_RESPONSE_ID),
    _index("request_upstream_request_id", "upstream_request_id", HAS_UPSTREAM_ID),
    _index("request_session", "session", HAS_SESSION),
    _index("request_open", "outcome", IS_OPEN),
)

attempt = Table(
    "attempt",
    metadata,
    Column("request_id", Text, nullable=False),
    Column("request_started_at", Utc, nullable=False),
    Column("n", Integer, nullable=False, autoincrement=False),
    _text("account"),
    Column("started_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("status", Integer, nullable=False),
    _text("error_code"),
    PrimaryKeyConstraint("request_started_at", "request_id", "n", name="attempt_pkey"),
    sqlite_with_rowid=False,  # so small a row lies best in its key
)

timeline = Table(
    "timeline",
    metadata,
    Column("request_id", Text, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("marks", Text, nullable=False),  # JSON: [[at_s, event, {fact: value}], …]
    PrimaryKeyConstraint("started_at", "request_id", name="timeline_pkey"),
)

account_state = Table(
    "account_state",
    metadata,
    Column("account", Text, primary_key=True),
    Column("state", Text, nullable=False),  # JSON
    Column("updated_at", Utc, nullable=False),
)

response = Table(
    "response",
    metadata,
    Column("turn_id", Text, nullable=False),
    _text("parent_id"),  # the turn that it continues; "" = none
    Column("response_id", Text, nullable=False),
    Column("user", Text, nullable=False),
    _text("account"),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    # Of this turn and all before it; of this turn alone.
    Column("turns", Integer, nullable=False, server_default="1"),
    Column("total_bytes", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("turn_id", name="response_pkey"),
    Index("response_expires_at", "expires_at"),
    Index("response_response_id", "response_id", "user"),
    Index("response_user", "user", "created_at", "bytes"),
    Index("response_parent_id", "parent_id"),
)

runtime_user = Table(
    "runtime_user",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Utc, nullable=False),
    # Limits: NULL = that of [limits]. Budgets: 0 = no limit.
    Column("max_concurrent", Integer),
    Column("max_queued", Integer),
    Column("queue_timeout_s", Float(53)),
    Column("ping_interval_s", Float(53)),
    Column("max_waiting_bytes", BigInteger),
    Column("usd_per_day", Float(53), nullable=False, server_default="0"),
    Column("usd_per_month", Float(53), nullable=False, server_default="0"),
    Column("tokens_per_day", BigInteger, nullable=False, server_default="0"),
    Column("requests_per_minute", Integer, nullable=False, server_default="0"),
)

runtime_key = Table(
    "runtime_key",
    metadata,
    Column("key_sha256", Text, primary_key=True),
    Column("user", Text, nullable=False),
    _text("label"),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc),  # NULL = never
    Index("runtime_key_user", "user"),
)

# When a key was used last, to the minute; also of the keys in the config.
key_use = Table(
    "key_use",
    metadata,
    Column("key_sha256", Text, primary_key=True),
    Column("last_used_at", Utc, nullable=False),
)

# Accounts that the operator has paused; "who" is that of admin.changed.
account_pause = Table(
    "account_pause",
    metadata,
    Column("account", Text, primary_key=True),
    Column("paused_at", Utc, nullable=False),
    _text("who"),
)

# When the operator last had the cooldown of an account forgotten.
account_reset = Table(
    "account_reset",
    metadata,
    Column("account", Text, primary_key=True),
    Column("reset_at", Utc, nullable=False),
)

# A row for each kind of what is changed at run time; every process looks whether its
# version is another one.
runtime_version = Table(
    "runtime_version",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
)
