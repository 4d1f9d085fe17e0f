"""
What the name of a model tells about it, where the protocol does not.

Rule: a name that is not known counts as a current model, so that a new one works
      on the day it appears; an account's options overrule all of this.

Source: the vendors' model pages and migration notes, autumn 2026.
"""

from __future__ import annotations

import re

from gateway.protocols.options import Options

_CLAUDE = re.compile(r"claude-(?:(?:opus|sonnet|haiku|[a-z]+)-)?(\d{1,2})(?!\d)")
_MINOR = re.compile(r"claude-(?:[a-z]+-)?\d{1,2}[-.@](\d{1,2})(?!\d)")
_OPENAI_REASONS = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d))")
_OPENAI_PLAIN = re.compile(r"(?:^|/)(?:gpt-[34]|chatgpt-4)")
_NO_EFFORT_NONE = re.compile(r"(?:^|/)gpt-5(?![.\d])")

_LIMITS = (
    (re.compile(r"claude-3-(?:opus|sonnet|haiku)"), 4096),
    (re.compile(r"claude-3-5"), 8192),
    (re.compile(r"claude-opus-4(?:-1)?(?:-\d{8})?$"), 32000),
)


def claude_version(model: str) -> tuple[int, int] | None:
    """``(4, 5)`` of "claude-haiku-4-5-20251001"; None for other names."""
    major = _CLAUDE.search(model)
    if major is None:
        return None
    minor = _MINOR.search(model)
    return int(major[1]), int(minor[1]) if minor else 0


def thinking_mode(model: str, options: Options) -> str:
    """How a Messages model is told to think: "adaptive", "manual" or "none"."""
    if options.thinking != "auto":
        return options.thinking
    version = claude_version(model)
    if version is None or version >= (4, 6):
        return "adaptive"
    return "manual" if version >= (3, 7) else "none"


def effort_for(model: str, effort: str) -> str:
    """A neutral *effort* as the adaptive Messages model knows it."""
    if effort == "minimal":
        return "low"
    version = claude_version(model)
    if effort == "xhigh" and version is not None and version < (4, 7):
        return "high"
    return effort


def takes_system_turns(model: str, options: Options) -> bool:
    """Whether a Messages model takes ``role: "system"`` amid the conversation."""
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
    return effort == "none" or _OPENAI_REASONS.search(model) is None


def openai_effort(model: str, effort: str) -> str:
    """A neutral *effort* as an OpenAI model knows it; "" if it cannot think."""
    if _OPENAI_PLAIN.search(model):
        return ""
    if effort == "none" and _NO_EFFORT_NONE.search(model):
        return "minimal"
    return effort


def chat_effort(model: str, effort: str, options: Options) -> str:
    """
    A neutral *effort* as a Chat model knows it; "" to leave it out. Servers that
    only follow OpenAI know three words, and refuse others.
    """
    effort = openai_effort(model, effort)
    if options.chat_extras and _OPENAI_REASONS.search(model):
        return effort
    if effort == "none":
        return ""
    return "high" if effort in ("xhigh", "max") else effort


def output_limit(model: str) -> int | None:
    """The most tokens that *model* answers with, where it is less than usual."""
    for pattern, limit in _LIMITS:
        if pattern.search(model):
            return limit
    return None
