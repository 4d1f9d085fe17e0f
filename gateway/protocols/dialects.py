"""
What the servers of the vendors take, a row each.

Rule 1: a dialect is a row: only what differs from ``Options``' own defaults.
Rule 2: an account's ``[account.convert]`` overrides its row, key by key.
Rule 3: "auto" goes by the host, then by the name of the upstream model; a server that
        neither identifies is its protocol's vendor, and in Chat "other".

Sources: the vendors' API references and their servers' own refusals, autumn 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from gateway.protocols import PROTOCOLS
from gateway.protocols.options import Options
from gateway.protocols.vendor_limits import limit

Dialect = Literal[
    "auto",
    "openai",
    "azure",
    "anthropic",
    "gemini",
    "deepseek",
    "qwen",
    "glm",
    "kimi",
    "minimax",
    "mimo",
    "mistral",
    "vllm",
    "ollama",
    "openrouter",
    "other",
]
DIALECTS: tuple[str, ...] = get_args(Dialect)[1:]

# What every server takes that only follows OpenAI's Chat.
_FOLLOWER: Mapping[str, Any] = {
    "system_messages": "hoist",
    "ids": "verbatim",
    "chat_max_tokens_field": "max_tokens",
    "chat_extras": False,
    "responses_cache_marks": False,
    "no_effort": "omit",
    "efforts": ("low", "medium", "high"),
}

ROWS: Mapping[str, Mapping[str, Any]] = {
    "openai": {"ids": "short", "max_tools": limit("chat", "tools")},
    "azure": {
        "ids": "short",
        "chat_user": "user",
        "max_tools": limit("chat", "tools"),
        "max_tool_description": limit("chat", "tool_description"),
    },
    "anthropic": {},
    "gemini": {
        **_FOLLOWER,
        "efforts": ("none", "minimal", "low", "medium", "high"),
        "schema": "gemini",
        "unsigned_calls": "fill",
        "strict": False,
        "chat_user": "none",
        "image_urls": False,
        "files": False,
    },
    "deepseek": {
        **_FOLLOWER,
        "chat_thinking": "switch",
        "efforts": ("low", "medium", "high", "xhigh", "max"),
        "thinks_when_forced": False,
        "thinking_back": True,
        "strict": False,
        "json_schema": False,
        "images": False,
        "files": False,
        "prefill": "keep",
    },
    "qwen": {
        **_FOLLOWER,
        "chat_thinking": "enable",
        "thinks_when_forced": False,
        "thinking_back": True,
        "strict": False,
        "files": False,
    },
    "glm": {
        **_FOLLOWER,
        "chat_thinking": "switch",
        "efforts": (),
        "thinking_back": True,
        "strict": False,
        "json_schema": False,
        "files": False,
    },
    "kimi": {
        **_FOLLOWER,
        "chat_thinking": "switch",
        "efforts": (),
        "thinks_when_forced": False,
        "thinking_back": True,
        "schema": "kimi",
        "image_urls": False,
        "files": False,
    },
    "minimax": {**_FOLLOWER, "thinking_back": True, "files": False},
    "mimo": {
        **_FOLLOWER,
        "chat_thinking": "switch",
        "efforts": (),
        "thinking_back": True,
        "files": False,
    },
    "mistral": {
        **_FOLLOWER,
        "efforts": ("none", "high"),
        "ids": "nine",
        "roles": "alternate",
        "prefill": "prefix",
        "stream_options": False,
        "chat_user": "none",
        "files": False,
    },
    "vllm": {
        **_FOLLOWER,
        "efforts": ("none", "low", "medium", "high"),
        "files": False,
    },
    "ollama": {
        **_FOLLOWER,
        "efforts": ("none", "low", "medium", "high"),
        "image_urls": False,
        "files": False,
    },
    "openrouter": {
        **_FOLLOWER,
        "efforts": ("none", "minimal", "low", "medium", "high", "xhigh"),
    },
    "other": {
        "system_messages": "hoist",
        "ids": "verbatim",
        "no_effort": "omit",
    },
}

_HOSTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), dialect)
    for pattern, dialect in (
        (r"(^|\.)(openai\.com|chatgpt\.com)$", "openai"),
        (r"(^|\.)azure\.(com|us|cn)$|\.azure-api\.net$", "azure"),
        (r"(^|\.)anthropic\.com$", "anthropic"),
        (r"^generativelanguage\.googleapis\.com$", "gemini"),
        (r"(^|\.)deepseek\.com$", "deepseek"),
        (r"^dashscope.*\.aliyuncs\.com$|(^|\.)dashscope\.cn$", "qwen"),
        (r"(^|\.)(bigmodel\.cn|z\.ai)$", "glm"),
        (r"(^|\.)(moonshot\.(ai|cn)|kimi\.com)$", "kimi"),
        (r"(^|\.)minimaxi?\.(io|com)$", "minimax"),
        (r"(^|\.)xiaomimimo\.com$", "mimo"),
        (r"(^|\.)mistral\.ai$", "mistral"),
        (r"(^|\.)openrouter\.ai$", "openrouter"),
        (r"(^|\.)ollama(\.com)?$", "ollama"),
    )
)
_PORTS = {11434: "ollama"}
_MODELS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?:^|[/.:_-]){pattern}", re.IGNORECASE), dialect)
    for pattern, dialect in (
        # First: names of two families, such as deepseek-r1-distill-qwen-32b.
        (r"deepseek", "deepseek"),
        (r"claude", "anthropic"),
        (r"gemini", "gemini"),
        (r"(?:qwen|qwq)", "qwen"),
        (r"(?:chat)?glm-?\d", "glm"),
        (r"(?:kimi|moonshot)", "kimi"),
        (r"minimax", "minimax"),
        (r"mimo-", "mimo"),
        (r"(?:mi[sx]tral|ministral|magistral|codestral|devstral|pixtral)", "mistral"),
    )
)


KEPT = 256
"""How many names of models, which clients choose, are remembered with their dialect."""


@lru_cache(KEPT)
def detected(protocol: str, base_url: str, model: str) -> str:
    """The dialect of the server at *base_url* that serves upstream *model*."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    for pattern, dialect in _HOSTS:
        if pattern.search(host):
            return dialect
    if parts.port in _PORTS:
        return _PORTS[parts.port]
    for pattern, dialect in _MODELS:
        if pattern.search(model):
            return dialect
    return PROTOCOLS[protocol].vendor_dialect if protocol in PROTOCOLS else "other"


def options(dialect: str, overrides: Mapping[str, Any]) -> Options:
    """
    The settings of a row, with an account's own in their place.

    Args:
        overrides: keys of ``Options`` that the account's config sets.
    """
    values = {**ROWS[dialect], **overrides}
    if "chat_reasoning" in overrides and "thinking_back" not in overrides:
        values["thinking_back"] = overrides["chat_reasoning"]
    if "efforts" in overrides and "no_effort" not in overrides:
        values["no_effort"] = "nearest"
    return Options(**values)
