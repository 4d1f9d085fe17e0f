"""
What the name of a model says about it, where the protocol does not.

Rule: a name that is not known counts as a current model, so that a new one works
      on the day it appears; an account's options overrule all of this.

Source: the vendors' model pages and migration notes, autumn 2026.
"""

from __future__ import annotations

import re

from gateway.protocols.claude_versions import claude_version
from gateway.protocols.options import Options
from gateway.protocols.vendor_limits import limit

_SHORT_DESCRIPTIONS = re.compile(r"(?:^|/)(?:gpt-[34]|chatgpt-4|o\d)")
_OPENAI_REASONS = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d))")

_FIXED_SAMPLING = re.compile(
    r"kimi-(?:k2\.[5-9]|k[3-9]|for-coding)|(?:^|/)k[3-9](?:-|$)"
)
"""They refuse every ``temperature`` but their own."""
_GEMINI = re.compile(r"gemini-(\d+)")

_LIMITS = tuple(
    (re.compile(pattern), tokens)
    for pattern, tokens in (
        (r"claude-3-(?:opus|sonnet|haiku)", 4096),
        (r"claude-3-5", 8192),
        (r"claude-opus-4(?:-1)?(?:-\d{8})?$", 32000),
        (
            r"claude-(?:3-7-sonnet|sonnet-4(?:-5)?|haiku-4-5|opus-4-5)(?:-\d{8})?$",
            64000,
        ),
        (r"(?:^|/)gpt-(?:3\.5|4-turbo)", 4096),
        (r"(?:^|/)(?:gpt-4o|chatgpt-4o)", 16384),
        (r"(?:^|/)gpt-4\.1", 32768),
        (r"(?:^|/)o[134](?![.\d])", 100_000),
        (r"(?:^|/)gpt-5(?![\d])", 128_000),
    )
)


def thinking_mode(model: str, options: Options) -> str:
    """How a Messages model is asked to think: "adaptive", "manual" or "none"."""
    if options.thinking != "auto":
        return options.thinking
    version = claude_version(model)
    if version is None or version >= (4, 6):
        return "adaptive"
    return "manual" if version >= (3, 7) else "none"


def takes_system_turns(model: str, options: Options) -> bool:
    """Whether a Messages model takes ``role: "system"`` inside the conversation."""
    if options.system_messages != "auto":
        return options.system_messages == "keep"
    version = claude_version(model)
    if version is None:
        return False
    return version >= (5, 0) or (version >= (4, 8) and "opus" in model)


def messages_takes_sampling(model: str, options: Options) -> bool:
    """Whether a Messages model takes ``temperature`` and its kin; others than
    Claude do."""
    if options.sampling != "auto":
        return options.sampling == "keep"
    version = claude_version(model)
    return version is None or version < (4, 7)


def openai_takes_sampling(model: str, effort: str, options: Options) -> bool:
    """Whether a Responses or Chat model takes ``temperature`` and ``top_p``."""
    if options.sampling != "auto":
        return options.sampling == "keep"
    if _FIXED_SAMPLING.search(model):
        return False
    return effort == "none" or _OPENAI_REASONS.search(model) is None


def description_limit(model: str, options: Options) -> int:
    """The longest description of a tool, in characters; 0: any."""
    if options.max_tool_description:
        return options.max_tool_description
    short = _SHORT_DESCRIPTIONS.search(model)
    return int(limit("chat", "tool_description")) if short else 0


def fills_signatures(model: str, options: Options) -> bool:
    """Whether calls without Gemini's signature get its filler; none before Gemini 3
    is asked for one."""
    version = _GEMINI.search(model)
    current = version is None or int(version[1]) >= 3
    return options.unsigned_calls == "fill" and current


def takes_stop(model: str) -> bool:
    """Whether a Chat model takes ``stop``."""
    return _OPENAI_REASONS.search(model) is None


def takes_prefill(model: str, options: Options, *, thinks: bool) -> bool:
    """Whether a Messages model goes on with the assistant's last words."""
    if options.prefill != "auto":
        return options.prefill != "turn"
    version = claude_version(model)
    return not thinks and version is not None and version < (4, 6)


def output_limit(model: str, options: Options) -> int | None:
    """The most tokens that *model* answers with; None if that is not known."""
    if options.max_output_tokens:
        return options.max_output_tokens
    for pattern, tokens in _LIMITS:
        if pattern.search(model):
            return tokens
    return None


def lowered(tokens: int, model: str, options: Options) -> int:
    """A wish for *tokens* of output, not beyond what the server takes."""
    most = output_limit(model, options)
    return max(1, tokens if most is None else min(tokens, most))
