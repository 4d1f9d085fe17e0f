"""
Reasoning that a client could not keep, until it comes back with the result of a call.

Rule 1: it is a user's own, and a session's: call ids repeat in others.
Rule 2: a proof goes to the account that made it; another gets the words alone.
Rule 3: it is bounded, per user and in all; the longest unused goes first.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.protocols.json_reader import dumped
from gateway.protocols.model import Reasoning

MAX_USER_BYTES = 4 * 1024 * 1024
MAX_BYTES = 64 * 1024 * 1024
ENTRY_BYTES = 512  # what an entry takes beside its texts

_Key = tuple[str, str]  # session, call id


class _Kept(NamedTuple):
    account: str
    reasoning: Sequence[Reasoning]
    size: int


class _Memory:
    """What is kept for one user."""

    def __init__(self) -> None:
        self.entries: OrderedDict[_Key, _Kept] = OrderedDict()
        self.size = 0

    def drop(self, key: _Key) -> None:
        if (old := self.entries.pop(key, None)) is not None:
            self.size -= old.size


class KeptReasoning:
    """The memory of all users."""

    def __init__(self) -> None:
        self._users: OrderedDict[str, _Memory] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes that are kept, about."""
        return self._size

    def keep(
        self,
        user: str,
        session: str,
        account: str,
        calls: Mapping[str, Sequence[Reasoning]],
    ) -> None:
        """*account* made what led to each of *calls*, by call id."""
        if not calls:
            return
        memory = self._users.setdefault(user, _Memory())
        self._users.move_to_end(user)
        before = memory.size
        for call_id, reasoning in calls.items():
            key, size = (session, call_id), _size(reasoning)
            memory.drop(key)
            if size <= MAX_USER_BYTES:
                memory.entries[key] = _Kept(account, reasoning, size)
                memory.size += size
        while memory.size > MAX_USER_BYTES:
            memory.drop(next(iter(memory.entries)))
        self._size += memory.size - before
        while self._size > MAX_BYTES:
            self._size -= self._users.popitem(last=False)[1].size

    def of(
        self, user: str, session: str, account: str, call_id: str
    ) -> list[Reasoning]:
        """What led to the call *call_id*, as *account* can read it."""
        memory = self._users.get(user)
        kept = memory.entries.get((session, call_id)) if memory else None
        if memory is None or kept is None:
            return []
        memory.entries.move_to_end((session, call_id))
        self._users.move_to_end(user)
        if kept.account == account:
            return [dataclasses.replace(one) for one in kept.reasoning]
        return [
            Reasoning(one.texts, opaque=one.opaque)
            for one in kept.reasoning
            if one.texts or one.opaque
        ]


def _size(reasoning: Sequence[Reasoning]) -> int:
    size = ENTRY_BYTES
    for one in reasoning:
        size += sum(map(len, one.texts))
        size += len(one.signature) + len(one.redacted) + len(one.blob)
        size += len(dumped(one.opaque.fields)) if one.opaque else 0
    return size
