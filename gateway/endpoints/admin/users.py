"""
``/api/v1/users``: users and their keys; those made at run time can be changed.

Rule 1: a user of the config is shown and answers 409 to every change.
Rule 2: a key is shown once, in the answer to its making; after that its hash is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal, TypeVar

from aiohttp import web
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from gateway.accounting.budget_guard import BudgetGuard
from gateway.admission.interface import AdmissionView
from gateway.config.keys import key_sha256, new_key
from gateway.config.parse import name_mistake
from gateway.config.schema import User
from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.errors import AdminError, invalid
from gateway.endpoints.admin.operations import AdminCall, Operation
from gateway.endpoints.admin.user_values import (
    KeyList,
    KeyState,
    MadeKey,
    NewKey,
    NewUser,
    UserChange,
    UserList,
    UserQuery,
    UserState,
    budget_use,
    changed_user,
    check_change,
    in_config,
    new_user,
    settings_of,
    user_state,
)
from gateway.endpoints.live_config import LiveConfig
from gateway.errors import GatewayError
from gateway.ledger import runtime_users
from gateway.ledger.ledger import Ledger
from gateway.ledger.runtime_changes import RuntimeChanges
from gateway.ledger.runtime_users import RuntimeKey, UserChangeError

T = TypeVar("T")

MAX_LISTED = 1000
USER, KEYS = "/users/{name}", "/users/{name}/keys"
KEY = KEYS + "/{prefix}"
REFUSED = (409, 503)
_PREFIX = re.compile(r"[0-9a-f]{8,64}")
MISSING = ("unknown_user", "unknown_key")


class UserOperations(OperationSource):
    """
    Args:
        changes: makes them, and lets every process know.
    """

    def __init__(
        self,
        live: LiveConfig,
        admission: AdmissionView,
        budgets: BudgetGuard,
        ledger: Ledger,
        changes: RuntimeChanges,
    ) -> None:
        self._live = live
        self._admission = admission
        self._budgets = budgets
        self._ledger = ledger
        self._changes = changes

    def operations(self) -> Iterable[Operation]:
        yield from self._of_users()
        yield from self._of_keys()

    def _of_users(self) -> Iterator[Operation]:
        yield Operation(
            "GET", "/users", "All users", self._list, UserList, query=UserQuery
        )
        yield Operation(
            "POST",
            "/users",
            "Make a user",
            self._add,
            UserState,
            201,
            body=NewUser,
            errors=REFUSED,
        )
        yield Operation("GET", USER, "One user", self._show, UserState)
        yield Operation(
            "PATCH",
            USER,
            "Change the limits and budgets of a user",
            self._set,
            UserState,
            body=UserChange,
            errors=REFUSED,
        )
        yield Operation(
            "DELETE",
            USER,
            "Remove a user: what runs may finish, what waits is refused",
            self._remove,
            None,
            204,
            errors=REFUSED,
        )

    def _of_keys(self) -> Iterator[Operation]:
        yield Operation("GET", KEYS, "The keys of a user", self._keys, KeyList)
        yield Operation(
            "POST",
            KEYS,
            "Make a key, which is shown this once",
            self._add_key,
            MadeKey,
            201,
            body=NewKey,
            errors=REFUSED,
        )
        yield Operation(
            "DELETE",
            KEY,
            "Revoke a key: what runs may finish",
            self._revoke,
            None,
            204,
            errors=REFUSED,
        )

    # --- questions --------------------------------------------------------------------

    async def states(self, names: Iterable[str]) -> list[UserState]:
        """The states of the users of these *names*."""
        live, made = self._live, self._live.runtime.created_at
        uses = await self._uses()
        running, waiting = await self._counts()
        return [
            user_state(
                user := live.users[name],
                live.config.limits,
                self._source(name),
                None if live.is_configured(name) else made.get(name),
                (running[name], waiting[name]),
                (
                    budget_use(one, datetime.fromtimestamp(one.resets_at, UTC))
                    for one in self._budgets.statuses(name)
                ),
                self._key_states(user, uses),
            )
            for name in names
            if name in live.users
        ]

    def _source(self, name: str) -> Literal["config", "runtime"]:
        return "config" if self._live.is_configured(name) else "runtime"

    def _key_states(self, user: User, uses: dict[str, datetime]) -> Iterator[KeyState]:
        source = self._source(user.name)
        for digest in user.key_sha256:
            key = self._live.runtime.keys.get(digest)
            if source == "config":
                key = None
            yield KeyState(
                prefix=digest[: runtime_users.PREFIX_DIGITS],
                user=user.name,
                source=source,
                label=key.label if key else "",
                created_at=key.created_at if key else None,
                expires_at=key.expires_at if key else None,
                last_used_at=uses.get(digest),
            )

    async def _uses(self) -> dict[str, datetime]:
        """When each key was used last, as far as it is known."""
        try:
            uses = await self._ledger.read(runtime_users.key_uses)
        except (SQLAlchemyError, OSError):
            uses = {}  # the database is away: the users are known all the same
        return uses | dict.fromkeys(self._live.used_keys, datetime.now(UTC))

    async def _counts(self) -> tuple[Counter[str], Counter[str]]:
        """How many requests of each user run, and how many wait."""
        running: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        for holder in await self._admission.holders():
            queued = holder.state.startswith("queued")
            (waiting if queued else running)[holder.user] += 1
        return running, waiting

    async def _list(self, call: AdminCall) -> UserList:
        query: UserQuery = call.query
        if not 1 <= query.limit <= MAX_LISTED:
            raise invalid("limit", f"must be from 1 to {MAX_LISTED}")
        names = sorted(name for name in self._live.users if name > query.after)
        listed = names[: query.limit]
        more = listed[-1] if len(names) > len(listed) else None
        return UserList(await self.states(listed), more)

    async def _show(self, call: AdminCall) -> UserState:
        found = await self.states([call.part("name")])
        if not found:
            raise _missing(call.part("name"))
        return found[0]

    async def _keys(self, call: AdminCall) -> KeyList:
        return KeyList((await self._show(call)).keys)

    # --- changes ----------------------------------------------------------------------

    async def _add(self, call: AdminCall) -> UserState:
        user = new_user(call.body)
        if self._live.is_configured(user.name):
            raise in_config(user.name)
        now = datetime.now(UTC)

        def done(_: None) -> None:
            call.changed(f"user.{user.name}", after=settings_of(user))

        await self._change(lambda c: runtime_users.add_user(c, user, now), done)
        return await self._state(user.name)

    async def _set(self, call: AdminCall) -> UserState:
        name, body = self._changeable(call), call.body
        check_change(body)

        def done(both: tuple[User, User]) -> None:
            before, after = both
            call.changed(f"user.{name}", settings_of(before), settings_of(after))

        await self._change(
            lambda c: runtime_users.set_user(c, name, lambda u: changed_user(u, body)),
            done,
        )
        return await self._state(name)

    async def _remove(self, call: AdminCall) -> web.Response:
        name = self._changeable(call)

        def done(user: User) -> None:
            call.changed(f"user.{name}", before=settings_of(user))

        await self._change(lambda c: runtime_users.remove_user(c, name), done)
        return web.Response(status=204)

    async def _add_key(self, call: AdminCall) -> MadeKey:
        name, now, body = self._changeable(call), datetime.now(UTC), call.body
        if body.expires_at is not None and body.expires_at <= now:
            raise invalid("expires_at", "must be in the future")
        key = new_key()
        row = RuntimeKey(key_sha256(key), name, body.label, now, body.expires_at)
        facts = {"label": row.label, "expires_at": row.expires_at}

        def done(_: None) -> None:
            call.changed(f"user.{name}.key.{row.prefix}", after=facts)

        await self._change(lambda c: runtime_users.add_key(c, row), done)
        return MadeKey(key, row.prefix, name, row.label, row.expires_at)

    async def _revoke(self, call: AdminCall) -> web.Response:
        name = self._changeable(call)

        def done(digest: str) -> None:
            prefix = digest[: runtime_users.PREFIX_DIGITS]
            call.changed(f"user.{name}.key.{prefix}", before="valid")

        prefix = call.part("prefix")
        if not _PREFIX.fullmatch(prefix):
            raise AdminError(404, "unknown_key", f"{name} has no key {prefix[:64]}")
        await self._change(lambda c: runtime_users.remove_key(c, name, prefix), done)
        return web.Response(status=204)

    def _changeable(self, call: AdminCall) -> str:
        """The name in the path, if it may be changed here."""
        name = call.part("name")
        if self._live.is_configured(name):
            raise in_config(name)
        if name_mistake(name):
            raise _missing(name)
        return name

    async def _change(
        self, change: Callable[[Connection], T], done: Callable[[T], object]
    ) -> T:
        try:
            return await self._changes.change(runtime_users.KIND, change, done)
        except UserChangeError as error:
            status = 404 if error.code in MISSING else 409
            raise AdminError(status, error.code, str(error)) from None
        except GatewayError as error:
            raise AdminError(503, error.code, error.message) from None

    async def _state(self, name: str) -> UserState:
        found = await self.states([name])
        if not found:  # it is gone again, or the database went away meanwhile
            raise _missing(name)
        return found[0]


def _missing(name: str) -> AdminError:
    return AdminError(404, "unknown_user", f"there is no user {name[:64]}")
