"""The versions that the names of Claude models bear."""

from __future__ import annotations

import re

_CLAUDE = re.compile(r"claude-(?:(?:opus|sonnet|haiku|[a-z]+)-)?(\d{1,2})(?!\d)")
_MINOR = re.compile(r"claude-(?:[a-z]+-)?\d{1,2}[-.@](\d{1,2})(?!\d)")


def claude_version(model: str) -> tuple[int, int] | None:
    """``(4, 5)`` of "claude-haiku-4-5-20251001"; None for other names."""
    major = _CLAUDE.search(model)
    if major is None:
        return None
    minor = _MINOR.search(model)
    return int(major[1]), int(minor[1]) if minor else 0
