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

_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens")
_REASONING = ("reasoning_tokens",)


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
    read = _largest(fields, _INPUT)
    if read is None:
        hit = count(fields.get("prompt_cache_hit_tokens"))
        missed = count(fields.get("prompt_cache_miss_tokens"))
        if hit is not None and missed is not None:
            read = hit + missed
    if read is not None:
        usage.input_tokens = read
    if (written := _largest(fields, _OUTPUT)) is not None:
        usage.output_tokens = written
    if (cached := cached_in(fields)) is not None:
        usage.cached_tokens = cached
    if (kept := _largest(fields, _WRITTEN, _INPUT_DETAILS)) is not None:
        usage.cache_write_tokens = kept
    if (thought := _largest(fields, _REASONING, _OUTPUT_DETAILS)) is not None:
        usage.reasoning_tokens = thought


def cached_in(fields: dict[str, Any]) -> int | None:
    """How many tokens of the input came from a cache."""
    return _largest(fields, _CACHED, _INPUT_DETAILS)


def _largest(
    fields: dict[str, Any], names: tuple[str, ...], inside: tuple[str, ...] = ()
) -> int | None:
    """The largest count by one of *names*, in *fields* or in an object of it."""
    largest: int | None = None
    for name in names:
        if name in fields and (found := count(fields[name])) is not None:
            if largest is None or found > largest:
                largest = found
    for key in inside:
        if key in fields and isinstance(holder := fields[key], dict):
            found = _largest(holder, names)
            if found is not None and (largest is None or found > largest):
                largest = found
    return largest
