"""
What an answer cost, in the places where the servers of OpenAI's protocols report it.

Rule 1: cached tokens are a share of the input, whatever they are called.
Rule 2: counts are cumulative: the last one counts; what a later one leaves out
        stays.
Rule 3: of several names for one count the largest counts: a server that fills in the
        usual names without knowing leaves them 0.

Sources: the OpenAI API reference; the references of Kimi (``cached_tokens``, ``usage``
in the choice), DeepSeek (``prompt_cache_hit_tokens``), OpenRouter
(``cache_write_tokens``), Groq (``x_groq.usage``); what LiteLLM and vLLM send.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.usage import Usage, count

_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
_IN_INPUT_DETAILS = {
    **dict.fromkeys(_CACHED, "cached_tokens"),
    "cache_write_tokens": "cache_write_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
}
_IN_OUTPUT_DETAILS = {"reasoning_tokens": "reasoning_tokens"}
_COUNTS = {
    "prompt_tokens": "input_tokens",
    "input_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "output_tokens": "output_tokens",
    **_IN_INPUT_DETAILS,
    **_IN_OUTPUT_DETAILS,
}
"""Which field of ``Usage`` a name counts for."""
_DETAILS = {
    "prompt_tokens_details": _IN_INPUT_DETAILS,
    "input_tokens_details": _IN_INPUT_DETAILS,
    "completion_tokens_details": _IN_OUTPUT_DETAILS,
    "output_tokens_details": _IN_OUTPUT_DETAILS,
}


def usage_objects(chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every ``usage`` of a Chat chunk or body, the usual place last."""
    choices = chunk.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and isinstance(choice.get("usage"), dict):
                yield choice["usage"]
    groq = chunk.get("x_groq")
    if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
        yield groq["usage"]
    if isinstance(usage := chunk.get("usage"), dict):
        yield usage


def read_usage(fields: dict[str, Any], usage: Usage) -> None:
    """Note a ``usage`` object of Chat or Responses in *usage*."""
    found = _counts(fields)
    if "input_tokens" not in found:
        hit = count(fields.get("prompt_cache_hit_tokens"))
        missed = count(fields.get("prompt_cache_miss_tokens"))
        if hit is not None and missed is not None:
            found["input_tokens"] = hit + missed
    for name, tokens in found.items():
        setattr(usage, name, tokens)


def cached_in(fields: dict[str, Any]) -> int | None:
    """How many tokens of the input came from a cache."""
    return _counts(fields).get("cached_tokens")


def _counts(fields: dict[str, Any]) -> dict[str, int]:
    """The largest count for each field of ``Usage`` that *fields* names."""
    found: dict[str, int] = {}
    for key, value in fields.items():
        if key in _COUNTS:
            _enter(found, _COUNTS[key], value)
        elif key in _DETAILS and isinstance(value, dict):
            names = _DETAILS[key]
            for inner, tokens in value.items():
                if inner in names:
                    _enter(found, names[inner], tokens)
    return found


def _enter(found: dict[str, int], name: str, value: object) -> None:
    tokens = count(value)
    if tokens is not None and tokens >= found.get(name, 0):
        found[name] = tokens
