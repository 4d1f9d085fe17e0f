"""
The outline of a large request: what is asked of one that goes up as it came.

To make objects of a conversation of a megabyte, to look through them and to free them
takes several times as long as to see that its bytes are JSON.

Rule 1: an outline is the parsed request without ``LEFT_OUT``, and with no more of its
        conversation than what only the maker can read. Who needs more parses the whole.
Rule 2: the body is checked as strictly as by the full parse, which decides about what
        the quick reader cannot read, or what has an unusual form.
Rule 3: of a name that comes twice in a piece of the conversation the first counts here,
        in a full parse the last. So once an account has refused reasoning, the full
        parse says what it is sent.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from simdjson import Parser

Document = dict[str, Any]

MIN_BYTES = 32768
"""Of shorter bodies a full parse is about as quick."""

LEFT_OUT = frozenset(("tools", "system"))
"""Large members that no account is chosen by."""

KEPT_BYTES = 4 * 1024 * 1024
"""The longest body whose buffers are kept for the next; new ones cost page faults."""

_BOM = b"\xef\xbb\xbf"  # passed over by the quick reader, refused by the full parse


class Conversation(Protocol):
    """Where a protocol's requests hold their conversation: a module ``proofs``."""

    conversation: str

    def bound(self, pieces: Any) -> list[Document]:
        """
        Of *pieces*, a lazy list, what only the maker can read.

        Raises:
            KeyError, TypeError: a piece has an unusual form.
        """
        ...


def outline_of(data: bytes, protocol: Conversation) -> Document | None:
    """The outline of the JSON object *data*; None where the full parse must decide."""
    from simdjson import Object  # at the first large body

    if data.startswith(_BOM):
        return None
    try:
        lazy = _parser(len(data)).parse(data)
    except (ValueError, RuntimeError):  # no JSON, or whole numbers beyond 64 bits
        return None
    if not isinstance(lazy, Object):
        return None
    names = list(lazy)
    if len(set(names)) < len(names) or any("\0" in name for name in names):
        return None
    try:
        return {
            name: _value(name, lazy[name], protocol)
            for name in names
            if name not in LEFT_OUT
        }
    except (KeyError, TypeError):
        return None


def _value(name: str, value: Any, protocol: Conversation) -> Any:
    """What an outline has as the member *name*."""
    from simdjson import Array, Object

    if isinstance(value, Array):
        is_conversation = name == protocol.conversation
        return protocol.bound(value) if is_conversation else value.as_list()
    return value.as_dict() if isinstance(value, Object) else value


def members(lazy: Any, names: Collection[str]) -> Document:
    """
    Those *names* that the *lazy* object has: texts as they are, of anything else
    whether it is empty.
    """
    # To ask for a name that is not there takes twenty times as long as to list all.
    found = {name: lazy[name] for name in lazy if name in names}
    return {
        name: value if isinstance(value, str) else bool(value)
        for name, value in found.items()
    }


def _parser(size: int) -> Parser:
    from simdjson import Parser

    return _kept_parser() if size <= KEPT_BYTES else Parser()


@cache
def _kept_parser() -> Parser:
    from simdjson import Parser

    return Parser()
