"""
Reasoning that only the account that made it can read.

Responses carries it encrypted, Messages signed; both come back with every later turn.
An account that is given another's refuses the whole request, so on a move it is left
out. The client keeps it in its history for ever: who made what must be remembered.

Rule 1: a session that never moved costs nothing: its body is not looked at.
Rule 2: at a move, and ever after, what is unknown in the history was made by the
        account of the session's last answer.
Rule 3: what remains is legal: whole items are dropped, never emptied ones kept.
Rule 4: a compaction *is* the history. It is never dropped; the session is pinned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]

MAX_KNOWN = 100_000
MAX_WATCHED = 20_000
OWN_MARK = "gw1."  # begins what the gateway itself wraps
_TAIL = 48  # of such a text, enough to tell it from every other
_COMPACTIONS = ("compaction", "compaction_summary")
_PAIRED = ("function_call", "custom_tool_call")
_THINKING = ("thinking", "redacted_thinking")


class Foreign:
    """Who made which reasoning, of the sessions that have moved."""

    def __init__(self) -> None:
        self._made_by: OrderedDict[str, str] = OrderedDict()
        self._watched: OrderedDict[str, None] = OrderedDict()

    def leave_out(
        self, session: str, latest: str, account: str, protocol: str, body: Document
    ) -> tuple[Document, int]:
        """
        *body* as *account* can read it, and how many items were left out.

        Args:
            session: the session's key.
            latest: the account of its last answer; "" if unknown.
            account: the one that *body* is for.
            protocol: the client's, in which *body* is.
        """
        if latest and latest != account:
            self._watch(session)
        if session not in self._watched:
            return body, 0
        for tail in tails(protocol, body):
            self._made_by.setdefault(tail, latest or account)
            self._made_by.move_to_end(tail)
        _shorten(self._made_by, MAX_KNOWN)
        known = self._made_by
        return strip_foreign(
            protocol, body, lambda tail: known.get(tail, account) != account
        )

    def refused(
        self, session: str, protocol: str, body: Document
    ) -> tuple[Document, int]:
        """*body* without any reasoning: an account could not read some of it."""
        self._watch(session)
        for tail in tails(protocol, body):
            self._made_by[tail] = ""
        _shorten(self._made_by, MAX_KNOWN)
        return strip_foreign(protocol, body)

    def state_came(self, value: str, account: str) -> None:
        """*account* gave a client the ``x-codex-turn-state`` *value*."""
        self._made_by[value[-_TAIL:]] = account
        _shorten(self._made_by, MAX_KNOWN)

    def state_fits(self, value: str, latest: str, account: str) -> bool:
        """Whether *account* may be sent the client's turn state *value*."""
        return self._made_by.get(value[-_TAIL:], latest or account) == account

    def _watch(self, session: str) -> None:
        self._watched[session] = None
        self._watched.move_to_end(session)
        _shorten(self._watched, MAX_WATCHED)


def pinned(body: Document) -> bool:
    """Whether a Responses *body* holds a compaction that only its maker can read."""
    given = body.get("input")
    if not isinstance(given, list):
        return False
    for item in given:
        if not isinstance(item, dict) or item.get("type") not in _COMPACTIONS:
            continue
        proof = item.get("encrypted_content")
        if proof and not str(proof).startswith(OWN_MARK):
            return True
    return False


def tails(protocol: str, body: Document) -> list[str]:
    """The end of every bound piece of reasoning in *body*."""
    if protocol == "responses":
        items = _objects(body.get("input"))
        return [tail for item in items if (tail := _reasoning(item))]
    if protocol == "messages":
        return [
            tail
            for message in _objects(body.get("messages"))
            for block in _objects(message.get("content"))
            if (tail := _thinking(block))
        ]
    return []


def strip_foreign(
    protocol: str,
    body: Document,
    foreign: Callable[[str], bool] = lambda tail: True,
) -> tuple[Document, int]:
    """
    *body* without foreign reasoning, and how many pieces were dropped.

    Args:
        foreign: says of a piece's tail (``tails``) whether it is; default: all are.

    Returns:
        *body* itself if there was none, else a copy that shares what did not change.
    """
    if protocol == "responses":
        return _strip_responses(body, foreign)
    if protocol == "messages":
        return _strip_messages(body, foreign)
    return body, 0


def _strip_responses(
    body: Document, foreign: Callable[[str], bool]
) -> tuple[Document, int]:
    """
    Whole reasoning items go. What follows one loses its optional ``id``: by it the
    upstream would miss the reasoning that belongs before it.
    """
    given = body.get("input")
    if not isinstance(given, list):
        return body, 0
    kept: list[Any] = []
    alone = False
    for item in given:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "reasoning":
            tail = _reasoning(item)
            alone = bool(tail) and foreign(tail)
            if alone:
                continue
        elif alone and (kind in _PAIRED or _is_answer(item)):
            item = {key: value for key, value in item.items() if key != "id"}
        else:
            alone = False
        kept.append(item)
    dropped = len(given) - len(kept)
    return ({**body, "input": kept}, dropped) if dropped else (body, 0)


def _strip_messages(
    body: Document, foreign: Callable[[str], bool]
) -> tuple[Document, int]:
    given = body.get("messages")
    if not isinstance(given, list):
        return body, 0
    kept: list[Any] = []
    dropped = 0
    for message in given:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            left = [b for b in content if not ((t := _thinking(b)) and foreign(t))]
            dropped += len(content) - len(left)
            if not left and content:
                continue  # an empty message is refused
            if len(left) < len(content):
                message = {**message, "content": left}
        kept.append(message)
    if not dropped:
        return body, 0
    stripped = {**body, "messages": kept}
    return (_unthinking(stripped) if _broken_loop(stripped) else stripped), dropped


def _broken_loop(body: Document) -> bool:
    """
    Whether the last turn calls tools without the thinking that must stand first.

    Only with a thinking budget; adaptive models do not insist.
    """
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return False
    for message in reversed(_objects(body["messages"])):
        if message.get("role") == "assistant":
            kinds = [block.get("type") for block in _objects(message.get("content"))]
            return "tool_use" in kinds and kinds[0] not in _THINKING
    return False


def _unthinking(body: Document) -> Document:
    """*body* with thinking off for this once, and with what would ask for it."""
    body = {**body, "thinking": {"type": "disabled"}}
    managed = body.get("context_management")
    if isinstance(managed, dict) and isinstance(managed.get("edits"), list):
        edits = [
            edit
            for edit in managed["edits"]
            if not str(_of(edit, "type")).startswith("clear_thinking")
        ]
        body["context_management"] = {**managed, "edits": edits}
        if not edits:
            del body["context_management"]
    return body


def _reasoning(item: Document) -> str:
    """What binds a Responses *item* to its maker; "" if nothing does."""
    if item.get("type") != "reasoning":
        return ""
    if item.get("encrypted_content"):
        return _tail(item)
    # A bare reference into the maker's store; plain reasoning text binds nobody.
    return "" if item.get("content") else str(item.get("id") or "")[-_TAIL:]


def _thinking(block: object) -> str:
    """What binds a Messages *block* to its maker; "" if nothing does."""
    if _of(block, "type") not in _THINKING:
        return ""
    value = _of(block, "signature") or _of(block, "data")
    return value[-_TAIL:] if isinstance(value, str) else ""


def _tail(item: Document) -> str:
    value = item["encrypted_content"]
    return value[-_TAIL:] if isinstance(value, str) else ""


def _is_answer(item: object) -> bool:
    return _of(item, "role") == "assistant" and _of(item, "type") in (None, "message")


def _of(value: object, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _objects(value: object) -> list[Document]:
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def _shorten(memory: OrderedDict[str, Any], most: int) -> None:
    while len(memory) > most:
        memory.popitem(last=False)
