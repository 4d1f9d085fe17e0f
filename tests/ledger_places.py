"""
Where ledgers under test are kept: SQLite files, and a real PostgreSQL of our own.

The server is started from the machine's own binaries (Debian: package postgresql), in
a folder of its own, on 127.0.0.1 alone. Without them its tests are skipped, or fail
where ``GATEWAY_TEST_POSTGRES=required``.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.config import schema as config
from gateway.ledger.database import Database
from gateway.ledger.ledger import Ledger
from gateway.record import AttemptRecord, Record
from gateway.usage import Usage

START_WAIT_S = 30.0
NOON = 1_795_521_600.0  # 2026-11-24 12:00 UTC


@dataclass
class Place:
    """One empty ledger's address."""

    url: str
    base: Path

    async def open(self, **rules: int) -> Ledger:
        return await Ledger.open(self.url, self.base, config.LedgerSettings(**rules))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the ledger holds, read beside it."""
        database = Database(self.url, self.base)
        try:
            with database.read() as connection:
                return [tuple(row) for row in connection.exec_driver_sql(sql)]
        finally:
            database.dispose()

    def execute(self, sql: str) -> None:
        """Change something behind the ledger's back."""
        database = Database(self.url, self.base)
        try:
            database.prepare()
            with database.write() as connection:
                connection.exec_driver_sql(sql)
        finally:
            database.dispose()


class Postgres:
    """A PostgreSQL server of our own."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-pg-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = unprivileged()
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", self.data, "-U", "gateway", "-A", "trust", "-N")

    @property
    def data(self) -> str:
        return str(self._folder / "data")

    def url(self, database: str) -> str:
        return f"postgresql://gateway@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": str(self._folder),
            "fsync": "off",  # a test loses nothing with the machine
            "max_connections": 40,
        }
        flags = [word for key in options for word in ("-c", f"{key}={options[key]}")]
        self._process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self.data, *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **self._as,
        )
        self._wait()

    def stop(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGINT)  # "fast": breaks every connection
        self._process.wait(START_WAIT_S)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        name = f"ledger_{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments],
            check=True,
            capture_output=True,
            cwd="/",
            **self._as,
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + START_WAIT_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "daemon"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no other user")


def binaries() -> Path:
    """The folder with PostgreSQL's programs; skips or fails without."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve())
    if not found:
        missing = "PostgreSQL is not installed (Debian: package postgresql)"
        if os.environ.get("GATEWAY_TEST_POSTGRES") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    return found[-1].parent


@pytest.fixture(name="postgres", scope="session")
def postgres_fixture() -> Iterator[Postgres]:
    server = Postgres(binaries())
    server.start()
    yield server
    server.remove()


@pytest.fixture(name="sqlite_place")
def sqlite_place_fixture(tmp_path: Path) -> Place:
    return Place("sqlite:///ledger.db", tmp_path)


@pytest.fixture(name="postgres_place")
def postgres_place_fixture(postgres: Postgres, tmp_path: Path) -> Place:
    return Place(postgres.new_database(), tmp_path)


@pytest.fixture(name="place", params=["sqlite", "postgresql"])
def place_fixture(request: pytest.FixtureRequest) -> Place:
    """An empty ledger's address, on both databases."""
    kind = "sqlite_place" if request.param == "sqlite" else "postgres_place"
    found: Place = request.getfixturevalue(kind)
    return found


OpenLedger = Callable[..., Awaitable[Ledger]]


@pytest.fixture(name="open_ledger")
async def open_ledger_fixture() -> AsyncIterator[OpenLedger]:
    """Opens ledgers that are stopped when the test is over."""
    opened: list[Ledger] = []

    async def start(place: Place, **rules: int) -> Ledger:
        opened.append(await place.open(**rules))
        return opened[-1]

    yield start
    for ledger in opened:
        await ledger.stop()


async def written(ledger: Ledger) -> None:
    """Return when everything that was put before is in the database."""
    while ledger.waiting:
        await asyncio.sleep(0.005)


def record_of(request_id: str = "", **fields: Any) -> Record:
    """A request that went well; *fields* say what is different."""
    record = Record(
        request_id=request_id or str(uuid.uuid4()),
        started_at=NOON,
        received=100.0,
        user="alice",
        key="0123abcd",
        account="openai-1",
        protocol="responses",
        upstream_protocol="responses",
        model="gpt-5",
        upstream_model="gpt-5",
        stream=True,
        status=200,
        client="codex",
        session="thread-1",
        usage=Usage(100, 20, 10, 4, 50, 30),
        cost_usd=0.25,
    )
    record.set_outcome("ok")
    record.attempts.append(AttemptRecord(1, "openai-1", NOON + 0.5, NOON + 2, 200))
    record.mark(100.25, "authenticated", user="alice")
    for name, value in fields.items():
        setattr(record, name, value)
    return record
