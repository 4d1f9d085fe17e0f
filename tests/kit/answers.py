"""An answer in the form of the protocol that was asked."""

from __future__ import annotations

from typing import Any

from tests.kit import answer_chat, answer_messages, answer_responses
from tests.kit.answer import Answer, Stream

FORMS = {
    "responses": answer_responses,
    "chat": answer_chat,
    "messages": answer_messages,
}
PROTOCOLS = tuple(FORMS)


def stream(protocol: str, answer: Answer, request: dict[str, Any]) -> Stream:
    """*answer* as a stream of *protocol*, for the body *request*."""
    return FORMS[protocol].stream(answer, request)


def body(protocol: str, answer: Answer, request: dict[str, Any]) -> dict[str, Any]:
    """*answer* as a whole body of *protocol*."""
    return FORMS[protocol].body(answer, request)
