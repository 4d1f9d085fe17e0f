"""
One list of models for both kinds of client.

OpenAI and Anthropic clients read ``data``; Codex reads ``models``, its catalogue, of
which every entry must be complete. A model that Codex knows by itself is left out
there: an entry would replace its own, better instructions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from gateway.accounts.model_index import serves
from gateway.config.schema import Account

_GLOB = re.compile(r"[*?\[]")
_CODEX_KNOWS = re.compile(r"gpt-(5\.5|5\.6|6)")
_CODEX_KEYS = (
    "slug",
    "display_name",
    "supported_reasoning_levels",
    "shell_type",
    "visibility",
    "supported_in_api",
    "priority",
    "base_instructions",
    "support_verbosity",
    "truncation_policy",
    "experimental_supported_tools",
)
_INSTRUCTIONS = (
    "You are a coding agent. You work in the user's folder with the tools that you "
    "are given, and say briefly what you did."
)

Listed = tuple[Account, list[dict[str, Any]]]


def read_list(data: bytes) -> list[dict[str, Any]]:
    """The entries of an upstream's own list, in either form; [] for anything else."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return []
    if not isinstance(document, dict):
        return []
    found: list[dict[str, Any]] = []
    for key in ("data", "models"):
        entries = document.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(_id(entry), str):
                found.append(entry)
    return found


def _id(entry: dict[str, Any]) -> Any:
    return entry.get("id") or entry.get("slug")


def catalogue(listed: Iterable[Listed]) -> dict[str, Any]:
    """
    The body of ``GET /v1/models``.

    Args:
        listed: every account with the entries of its own list.
    """
    data: dict[str, dict[str, Any]] = {}
    models: dict[str, dict[str, Any]] = {}
    for account, entries in listed:
        for name in _named(account):
            data.setdefault(name, entry_of(name, account.name))
        for entry in entries:
            name = _id(entry)
            if not serves(account, name):
                continue
            data.setdefault(name, entry_of(name, account.name) | _plain(entry))
            if all(key in entry for key in _CODEX_KEYS):
                models.setdefault(name, entry)
    for name in data:
        if not _CODEX_KNOWS.match(name):
            models.setdefault(name, _codex_entry(name))
    ids = list(data)
    return {
        "object": "list",
        "data": list(data.values()),
        "models": list(models.values()),
        "has_more": False,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


def _named(account: Account) -> list[str]:
    """The models that the config itself names."""
    exact = [name for name in account.models if not _GLOB.search(name)]
    return [*exact, *account.rename]


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """What an upstream's entry says beyond ours, in either vendor's form."""
    keys = ("created", "created_at", "display_name", "owned_by")
    return {key: entry[key] for key in keys if key in entry}


def entry_of(name: str, owner: str) -> dict[str, Any]:
    """One entry of ``data``, for OpenAI's and Anthropic's readers at once."""
    return {
        "id": name,
        "object": "model",
        "type": "model",
        "created": 0,
        "created_at": "1970-01-01T00:00:00Z",
        "display_name": name,
        "owned_by": owner,
    }


def _codex_entry(name: str) -> dict[str, Any]:
    return {
        "slug": name,
        "display_name": name,
        "supported_reasoning_levels": [],
        "shell_type": "unified_exec",
        "visibility": "list",
        "supported_in_api": True,
        "priority": 100,
        "base_instructions": _INSTRUCTIONS,
        "support_verbosity": False,
        "truncation_policy": {"mode": "tokens", "limit": 10000},
        "experimental_supported_tools": [],
    }
