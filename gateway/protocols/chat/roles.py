"""
Chat messages whose roles alternate, for servers that refuse others.

Mistral: "Unexpected role 'user' after role 'tool'", "Expected last role User or Tool
(or Assistant with prefix True) for serving but got assistant". Templates of Gemma and
Llama: "Conversation roles must alternate user/assistant/user/assistant".
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.filler_turns import CONTINUE, DONE, OPENING
from gateway.protocols.options import Options

ChatMessage = dict[str, Any]


def arranged(messages: list[ChatMessage], options: Options) -> list[ChatMessage]:
    """*messages* in the order of roles, and with the end, that the server takes."""
    if options.roles == "alternate":
        messages = _alternating(messages)
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or last.get("tool_calls"):
        return messages
    if options.prefill == "prefix":
        last["prefix"] = True
    elif options.prefill == "turn":
        messages.append({"role": "user", "content": CONTINUE})
    return messages


def _alternating(messages: list[ChatMessage]) -> list[ChatMessage]:
    done: list[ChatMessage] = []
    for message in messages:
        role = message["role"]
        before = done[-1]["role"] if done else "system"
        if role == "assistant" and before == "system":
            done.append({"role": "user", "content": OPENING})
        if role == "user" and before == "tool":
            done.append({"role": "assistant", "content": DONE})
        if role == before == "user":
            done[-1]["content"] = _both(done[-1]["content"], message["content"])
        elif role == before == "assistant" and not done[-1].get("tool_calls"):
            done[-1] = _one_turn(done[-1], message)
        else:
            done.append(message)
    return done


def _both(first: Any, second: Any) -> Any:
    """The contents of two turns of the user as one."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _one_turn(first: ChatMessage, second: ChatMessage) -> ChatMessage:
    """Two turns of the assistant as one, the calls of the second with it."""
    texts = [one["content"] for one in (first, second) if one.get("content")]
    thoughts = [
        one["reasoning_content"]
        for one in (first, second)
        if one.get("reasoning_content")
    ]
    whole = {**first, **second, "content": "\n\n".join(texts) or second["content"]}
    if thoughts:
        whole["reasoning_content"] = "\n\n".join(thoughts)
    return whole
