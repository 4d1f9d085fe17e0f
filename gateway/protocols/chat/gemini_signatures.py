"""
Gemini's signatures on calls, where a conversation has none.

Gemini 3 refuses a step whose first call is not signed. A call that another model made,
or whose client kept no signature, has none; for these Google documents a filler.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures, autumn 2026; on the
OpenAI-compatible endpoint it is in the call's ``extra_content``.
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_access import sub

FILLER = "skip_thought_signature_validator"


def signed(messages: list[Any]) -> list[Any]:
    """
    *messages* with the filler on each first call that has no signature; the same list
    if there is none.
    """
    done = [_signed(message) for message in messages]
    same = all(new is old for new, old in zip(done, messages, strict=True))
    return messages if same else done


def _signed(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    calls = message.get("tool_calls")
    if not (isinstance(calls, list) and calls and isinstance(calls[0], dict)):
        return message
    first, extra = calls[0], sub(calls[0], "extra_content")
    google = sub(extra, "google")
    if google.get("thought_signature"):
        return message
    google = {**google, "thought_signature": FILLER}
    first = {**first, "extra_content": {**extra, "google": google}}
    return {**message, "tool_calls": [first, *calls[1:]]}
