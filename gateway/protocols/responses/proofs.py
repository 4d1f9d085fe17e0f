"""Reasoning proofs in Responses requests: encrypted reasoning, and compactions."""

from __future__ import annotations

from typing import Any

from gateway.protocols.compaction import SUMMARY_MARK, compacted_text
from gateway.protocols.json_access import objects
from gateway.protocols.outline import members
from gateway.protocols.reasoning_proofs import (
    Document,
    FilteredBody,
    ProofFilter,
    is_wrapped,
    proof_name,
)
from gateway.protocols.responses.items import COMPACTIONS

are_signatures = False
conversation = "input"

MAX_UNTYPED = 64
"""Items without a type in an outline: to find that out takes as long as ten others."""
_LOOKED_AT = ("type", "id", "encrypted_content", "content")
_BOUND = frozenset(("reasoning", *COMPACTIONS))
_PAIRED = ("function_call", "custom_tool_call")


def proofs_in(body: Document) -> list[str]:
    """See ``ReasoningProofs.proofs_in``."""
    found = [_proof_of(item) for item in objects(body.get("input"))]
    return [proof for proof in found if proof]


def compaction_in(body: Document) -> str:
    """See ``ReasoningProofs.compaction_in``."""
    for item in reversed(objects(body.get("input"))):
        if item.get("type") in COMPACTIONS and (proof := _proof_of(item)):
            return proof
    return ""


def bound(pieces: Any) -> list[Document]:
    """See ``ReasoningProofs.bound``."""
    found, untyped = [], 0
    for item in pieces:
        try:
            is_bound = item["type"] in _BOUND
        except KeyError:  # a message in its short form
            untyped += 1
            if untyped > MAX_UNTYPED:
                raise
            continue
        if is_bound:
            found.append(members(item, _LOOKED_AT))
    return found


def lacks_thinking(body: Document) -> bool:
    """See ``ReasoningProofs.lacks_thinking``; no server insists on any."""
    return False


def filtered(body: Document, account: ProofFilter) -> FilteredBody:
    """
    See ``ReasoningProofs.filtered``.

    Whole reasoning items are removed. The item after one loses its optional ``id``,
    by which the upstream would miss the reasoning before it.
    """
    given = body.get("input")
    if not isinstance(given, list):
        return FilteredBody(body)
    kept: list[Any] = []
    changed = 0
    alone = False
    for item in given:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "reasoning":
            alone = _is_foreign_item(item, account)
            if alone:
                changed += 1
                continue
        elif alone and (kind in _PAIRED or _is_answer(item)):
            item = {key: value for key, value in item.items() if key != "id"}
        else:
            alone = False
            if kind in COMPACTIONS and account.native and (summary := _summary(item)):
                item, changed = summary, changed + 1
        kept.append(item)
    if not changed:
        return FilteredBody(body)
    return FilteredBody({**body, "input": kept}, changed)


def _is_foreign_item(item: Document, account: ProofFilter) -> bool:
    if account.native and is_wrapped(item.get("encrypted_content")):
        return True
    proof = _proof_of(item)
    return bool(proof) and account.is_foreign(proof)


def _summary(item: Document) -> Document | None:
    """The summary of a compaction *item* that the gateway made, as a user message."""
    text = compacted_text(str(item.get("encrypted_content") or ""))
    if text is None:
        return None
    content = [{"type": "input_text", "text": SUMMARY_MARK + text}]
    return {"type": "message", "role": "user", "content": content}


def _proof_of(item: Document) -> str:
    """The name of the proof in a Responses *item*; "" without a proof."""
    kind, value = item.get("type"), item.get("encrypted_content")
    if kind == "reasoning":
        # A bare id refers to the maker's store; any model can read plain reasoning.
        value = value or ("" if item.get("content") else item.get("id"))
    elif kind not in COMPACTIONS or is_wrapped(value):
        return ""
    return proof_name(value)


def _is_answer(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    return item.get("role") == "assistant" and item.get("type") in (None, "message")
