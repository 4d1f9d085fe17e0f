"""
Why an answer ended, by the word in which its upstream says so.

Rule 1: protocols and vendors share the table, since servers in between mix their words.
Rule 2: a word that says that the answer broke off is a failure.
Rule 3: an unknown word says nothing: the answer ended as the rest of it says (a call
        waits for its result, a text is at its end), and the log names the word.

Sources: the vendors' API references (OpenAI, Anthropic, Gemini, DeepSeek, GLM, Kimi,
Mistral, Bedrock), vLLM, SGLang and llama.cpp, autumn 2026.
"""

from __future__ import annotations

import re
from typing import Literal

from gateway.errors import UpstreamError

Stop = Literal["end", "length", "context", "filter", "sequence", "pause", "broken", ""]
"""What a word means; "" for one that is unknown, or none at all."""

WORDS: dict[Stop, tuple[str, ...]] = {
    "end": (
        *("stop", "end_turn", "tool_calls", "tool_call", "tool_use", "function_call"),
        *("end", "eos", "eos_token", "stop_token", "completed", "complete"),
        *("finish", "finished", "done", "max_messages", "steered"),
    ),
    "sequence": ("stop_sequence",),
    "length": (
        *("length", "max_tokens", "max_output_tokens", "max_completion_tokens"),
        *("max_length", "token_limit"),
    ),
    "context": (
        *("model_context_window_exceeded", "context_window_exceeded"),
        *("context_length_exceeded", "context_length", "model_length"),
    ),
    "filter": (
        *("content_filter", "content_filtered", "refusal"),
        *("sensitive",),  # GLM
        *("safety", "recitation", "blocklist", "prohibited_content", "spii"),  # Gemini
        *("image_safety", "language"),
        *("guardrail_intervened",),  # Bedrock
        *("content_policy_violation", "policy_violation"),
    ),
    "pause": ("pause_turn",),
    "broken": (
        *("error", "failed", "failure", "aborted", "cancelled", "canceled"),
        *("abort",),  # vLLM, SGLang
        *("network_error",),  # GLM
        *("insufficient_system_resource",),  # DeepSeek
        *("malformed_function_call", "function_call_filter"),  # Gemini
        *("unexpected_tool_call", "malformed_response"),
        *("malformed_model_output", "malformed_tool_use"),  # Bedrock
        *("timeout", "server_error", "internal_error", "model_error"),
        *("overloaded", "overloaded_error", "engine_overloaded"),
    ),
}
CUT: frozenset[Stop] = frozenset(("length", "context", "filter"))
"""What ended an answer before the model had said what it wanted."""

_BY_WORD: dict[str, Stop] = {
    word: stop for stop, words in WORDS.items() for word in words
}
_OVERLOADED = ("insufficient_system_resource", "overloaded", "engine_overloaded")
_PLAIN = re.compile(r"[\w .:/-]{1,64}", re.ASCII)


def stop_of(word: object) -> Stop:
    """What *word* means, in any case; after a colon some say more."""
    if not isinstance(word, str):
        return ""
    return _BY_WORD.get(word.partition(":")[0].strip().lower(), "")


def unknown(word: object) -> str:
    """*word* for the log if it is present and unknown, else ""."""
    if not isinstance(word, str) or not word or stop_of(word):
        return ""
    return word if _PLAIN.fullmatch(word) else "unprintable"


def broken_off(word: str) -> UpstreamError:
    """The failure of an answer that broke off, as *word* says."""
    overloaded = word.lower().startswith(_OVERLOADED)
    code = "upstream_overloaded" if overloaded else "upstream_failed"
    return UpstreamError(code, detail=f"the answer ended with {word[:64]!r}")
