"""
Reasoning that an account cannot read is left out of what it is sent.

Responses carries reasoning encrypted, Messages signed; both come back with every later
turn, and an account that is given another's refuses the whole request.

Rule 1: a body that needs nothing is not touched: it goes up byte for byte.
Rule 2: what remains is legal: whole items are dropped, never emptied ones kept.
Rule 3: what nobody signed is left out for servers that verify, and for them alone:
        others want it back.
Rule 4: what the gateway wrapped for a converted answer is nothing to an account that
        speaks the client's protocol.
Rule 5: a compaction *is* the history: it is never dropped. One of the gateway's own is
        a text, and goes to such an account as that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.protocols.compaction import SUMMARY_MARK, compacted_text
from gateway.protocols.messages.protocol import THINKING
from gateway.protocols.protocol import PROOF_CHARS, objects
from gateway.protocols.responses.items import COMPACTIONS

Document = dict[str, Any]

OWN_MARK = "gw1."  # begins what the gateway itself wraps
_PAIRED = ("function_call", "custom_tool_call")


class Reader(NamedTuple):
    """
    What an account can read.

    Attributes:
        is_foreign: whether the proof of that name is not for it.
        native: it speaks the client's protocol, and gets the body as it is.
        verifies: Messages: it refuses thinking that nobody signed.
        thinking_off: Messages: this request is to go without thinking.
    """

    is_foreign: Callable[[str], bool]
    native: bool = True
    verifies: bool = True
    thinking_off: bool = False


class Readable(NamedTuple):
    """
    A body as an account can read it.

    Attributes:
        body: the client's own object if nothing was changed, else a copy that shares
            what did not change.
        removed: how many pieces were left out or rewritten.
        thinking_off: thinking had to be turned off.
    """

    body: Document
    removed: int = 0
    thinking_off: bool = False


def readable(protocol: str, body: Document, reader: Reader) -> Readable:
    """*body* of a *protocol* client as the account can read it."""
    if protocol == "responses":
        return _responses(body, reader)
    if protocol == "messages":
        return _messages(body, reader)
    return Readable(body)


def proofs(protocol: str, body: Document) -> list[str]:
    """The names of all pieces of *body* that only their maker can read."""
    if protocol == "responses":
        found = [_proof_of_item(item) for item in objects(body.get("input"))]
    elif protocol == "messages":
        found = [
            _proof_of_block(block)
            for message in objects(body.get("messages"))
            for block in objects(message.get("content"))
        ]
    else:
        found = []
    return [proof for proof in found if proof]


def compaction(body: Document) -> str:
    """The proof of the latest compaction in a Responses *body*; "" if there is none."""
    for item in reversed(objects(body.get("input"))):
        if item.get("type") in COMPACTIONS and (proof := _proof_of_item(item)):
            return proof
    return ""


def broken_loop(body: Document) -> bool:
    """
    Whether the last turn calls tools without the thinking that must stand first.

    Only with a thinking budget; adaptive models do not insist.
    """
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return False
    for message in reversed(objects(body.get("messages"))):
        if message.get("role") == "assistant":
            kinds = [block.get("type") for block in objects(message.get("content"))]
            return "tool_use" in kinds and kinds[0] not in THINKING
    return False


# --- Responses --------------------------------------------------------------------


def _responses(body: Document, reader: Reader) -> Readable:
    """
    Whole reasoning items go. What follows one loses its optional ``id``: by it the
    upstream would miss the reasoning that belongs before it.
    """
    given = body.get("input")
    if not isinstance(given, list):
        return Readable(body)
    kept: list[Any] = []
    changed = 0
    alone = False
    for item in given:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "reasoning":
            alone = _is_foreign_item(item, reader)
            if alone:
                changed += 1
                continue
        elif alone and (kind in _PAIRED or _is_answer(item)):
            item = {key: value for key, value in item.items() if key != "id"}
        else:
            alone = False
            if kind in COMPACTIONS and reader.native and (told := _summary(item)):
                item, changed = told, changed + 1
        kept.append(item)
    return Readable({**body, "input": kept}, changed) if changed else Readable(body)


def _is_foreign_item(item: Document, reader: Reader) -> bool:
    if reader.native and _is_own(item.get("encrypted_content")):
        return True
    proof = _proof_of_item(item)
    return bool(proof) and reader.is_foreign(proof)


def _summary(item: Document) -> Document | None:
    """A compaction *item* of the gateway's own as the text that it holds."""
    text = compacted_text(str(item.get("encrypted_content") or ""))
    if text is None:
        return None
    content = [{"type": "input_text", "text": SUMMARY_MARK + text}]
    return {"type": "message", "role": "user", "content": content}


def _proof_of_item(item: Document) -> str:
    """What names the proof in a Responses *item*; "" if nothing binds it."""
    kind, value = item.get("type"), item.get("encrypted_content")
    if kind == "reasoning":
        # A bare reference into the maker's store; plain reasoning text binds nobody.
        value = value or ("" if item.get("content") else item.get("id"))
    elif kind not in COMPACTIONS or _is_own(value):
        return ""
    return value[-PROOF_CHARS:] if isinstance(value, str) else ""


def _is_answer(item: object) -> bool:
    return _of(item, "role") == "assistant" and _of(item, "type") in (None, "message")


# --- Messages ---------------------------------------------------------------------


def _messages(body: Document, reader: Reader) -> Readable:
    given = body.get("messages")
    if not isinstance(given, list):
        return Readable(body)
    kept: list[Any] = []
    removed = 0
    for message in given:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            left = [block for block in content if not _is_unreadable(block, reader)]
            removed += len(content) - len(left)
            if not left and content:
                continue  # an empty message is refused
            if len(left) < len(content):
                message = {**message, "content": left}
        kept.append(message)
    if removed:
        body = {**body, "messages": kept}
    checked = removed and reader.native and reader.verifies
    if reader.thinking_off or checked and broken_loop(body):
        return Readable(_unthinking(body), removed, True)
    return Readable(body, removed)


def _is_unreadable(block: object, reader: Reader) -> bool:
    """Whether the account cannot be sent the content *block*."""
    if not isinstance(block, dict) or block.get("type") not in THINKING:
        return False
    proof = _proof_of_block(block)
    if not reader.native:
        return bool(proof) and reader.is_foreign(proof)
    if block["type"] == "thinking" and not reader.verifies:
        return not block.get("thinking")  # it reads the text alone
    if not proof or _is_own(block.get("signature")):
        return True
    return reader.is_foreign(proof)


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


def _proof_of_block(block: Document) -> str:
    """What names the proof in a Messages *block*; "" if nothing binds it."""
    if block.get("type") not in THINKING:
        return ""
    value = block.get("signature") or block.get("data")
    return value[-PROOF_CHARS:] if isinstance(value, str) else ""


# --- both -------------------------------------------------------------------------


def _is_own(proof: object) -> bool:
    return isinstance(proof, str) and proof.startswith(OWN_MARK)


def _of(value: object, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
