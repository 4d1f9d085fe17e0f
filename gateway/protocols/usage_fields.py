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
    hit = count(fields.get("prompt_cache_hit_tokens"))
    missed = count(fields.get("prompt_cache_miss_tokens"))
    if read is None and hit is not None and missed is not None:
        read = hit + missed
    _note(usage, "input_tokens", read)
    _note(usage, "output_tokens", _largest(fields, _OUTPUT))
    _note(usage, "cached_tokens", cached_in(fields))
    _note(usage, "cache_write_tokens", _largest(fields, _WRITTEN, _INPUT_DETAILS))
    _note(usage, "reasoning_tokens", _largest(fields, _REASONING, _OUTPUT_DETAILS))


def cached_in(fields: dict[str, Any]) -> int | None:
    """How many tokens of the input came from a cache."""
    return _largest(fields, _CACHED, _INPUT_DETAILS)


def _largest(
    fields: dict[str, Any], names: tuple[str, ...], inside: tuple[str, ...] = ()
) -> int | None:
    """The largest count by one of *names*, in *fields* or in an object of it."""
    holders = [fields, *(h for key in inside if isinstance(h := fields.get(key), dict))]
    found = [count(holder.get(name)) for holder in holders for name in names]
    return max((number for number in found if number is not None), default=None)


def _note(usage: Usage, name: str, value: int | None) -> None:
    if value is not None:
        setattr(usage, name, value)
