"""Reasoning proofs in Messages requests: signed and redacted thinking."""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_access import objects
from gateway.protocols.outline import members
from gateway.protocols.reasoning_proofs import (
    Document,
    FilteredBody,
    ProofFilter,
    is_wrapped,
    proof_name,
)

are_signatures = True
conversation = "messages"

THINKING = ("thinking", "redacted_thinking")
"""The types of content blocks that are reasoning."""
_LOOKED_AT = ("type", "thinking", "signature", "data")


def proofs_in(body: Document) -> list[str]:
    """See ``ReasoningProofs.proofs_in``."""
    found = [
        _proof_of(block)
        for message in objects(body.get("messages"))
        for block in objects(message.get("content"))
    ]
    return [proof for proof in found if proof]


def compaction_in(body: Document) -> str:
    """See ``ReasoningProofs.compaction_in``; Messages has none."""
    return ""


def bound(pieces: Any) -> list[Document]:
    """See ``ReasoningProofs.bound``; a message without thinking is none of them."""
    found = []
    for message in pieces:
        content = message["content"]
        if not isinstance(content, str):
            blocks = [
                members(block, _LOOKED_AT)
                for block in content
                if block["type"] in THINKING
            ]
            if blocks:
                found.append({"content": blocks})
    return found


def lacks_thinking(body: Document) -> bool:
    """
    Whether the last turn calls tools without the thinking that must come first.

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


def filtered(body: Document, account: ProofFilter) -> FilteredBody:
    """See ``ReasoningProofs.filtered``."""
    given = body.get("messages")
    if not isinstance(given, list):
        return FilteredBody(body)
    kept: list[Any] = []
    removed = 0
    for message in given:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            left = [block for block in content if not _is_unreadable(block, account)]
            removed += len(content) - len(left)
            if not left and content:
                continue  # an empty message is refused
            if len(left) < len(content):
                message = {**message, "content": left}
        kept.append(message)
    if removed:
        body = {**body, "messages": kept}
    checked = removed and account.native and account.verifies
    if account.thinking_off or checked and lacks_thinking(body):
        return FilteredBody(_without_thinking(body), removed, True)
    return FilteredBody(body, removed)


def _is_unreadable(block: object, account: ProofFilter) -> bool:
    """Whether the account cannot be sent the content *block*."""
    if not isinstance(block, dict) or block.get("type") not in THINKING:
        return False
    proof = _proof_of(block)
    if not account.native:
        return bool(proof) and account.is_foreign(proof)
    if block["type"] == "thinking" and not account.verifies:
        return not block.get("thinking")  # it reads the text alone
    if not proof or is_wrapped(block.get("signature")):
        return True
    return account.is_foreign(proof)


def _without_thinking(body: Document) -> Document:
    """*body* with thinking off for this once, and with what would ask for it."""
    body = {**body, "thinking": {"type": "disabled"}}
    managed = body.get("context_management")
    if isinstance(managed, dict) and isinstance(managed.get("edits"), list):
        edits = [edit for edit in managed["edits"] if not _clears_thinking(edit)]
        body["context_management"] = {**managed, "edits": edits}
        if not edits:
            del body["context_management"]
    return body


def _clears_thinking(edit: object) -> bool:
    kind = edit.get("type") if isinstance(edit, dict) else None
    return str(kind).startswith("clear_thinking")


def _proof_of(block: Document) -> str:
    """What names the proof in a Messages *block*; "" if nothing binds it."""
    if block.get("type") not in THINKING:
        return ""
    return proof_name(block.get("signature") or block.get("data"))
