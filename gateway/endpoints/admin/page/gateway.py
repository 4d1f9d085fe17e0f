"""The view Gateway: its processes, its config, and what a reload has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.endpoints.admin.page.text import number

ENGINES = {
    "none": "none: this host serves alone",
    "up": "connected",
    "lost": "lost: this host goes on with its share",
}
NAMED = ("account", "user")
MAX_SHOWN_CHARS = 200  # of a value in a table of changes

Document = Mapping[str, Any]
Values = dict[str, Any]


def gateway_values(
    status: Document, config: Document, outcome: Values | None = None
) -> Values:
    """
    The values of ``gateway.html``.

    Args:
        config: masked, as the API answers it.
        outcome: what ``reloaded_values`` or ``rejected_values`` gives, after a reload.
    """
    return {
        "facts": facts_of(status),
        "processes": sorted(status["processes"], key=lambda one: one["uptime_s"]),
        "sections": sections_of(config),
        "outcome": outcome,
    }


def facts_of(status: Document) -> list[Values]:
    """What serves here."""
    workers = number(status["workers"])
    nodes = status["nodes"]
    facts: list[tuple[str, Any, bool]] = [
        ("Version", status["version"], False),
        ("Main process", str(status["pid"]), False),
        ("Started", status["started_at"], True),
        ("Workers that serve", workers, False),
        ("Engine", ENGINES.get(status["engine"], status["engine"]), False),
        ("Processes of all hosts", number(nodes) if nodes > 1 else "", False),
        ("State", "draining: it takes nothing new" * status["draining"], False),
    ]
    return [{"name": n, "value": v, "time": t} for n, v, t in facts if v]


# --- the config -----------------------------------------------------------------------


def sections_of(config: Document) -> list[Values]:
    """The tables of the config file, one for each user and account."""
    found = []
    for name, value in config.items():
        if name in NAMED:
            for one in value:
                keys = {key: item for key, item in one.items() if key != "name"}
                title = f"[[{name}]] {one['name']}"
                found.append({"title": title, "rows": list(_keys(keys, ""))})
        elif isinstance(value, Mapping):
            found.append({"title": f"[{name}]", "rows": list(_keys(value, ""))})
    return [one for one in found if one["rows"]]


def _keys(table: Document, path: str) -> Iterator[Values]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{path}{key}.")
        elif value is not None and value != {} and value != []:
            yield {"name": f"{path}{key}", "value": toml_text(value)}


def toml_text(value: Any) -> str:
    """*value* as the config file would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, Sequence):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key} = {toml_text(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return str(value)


# --- a reload -------------------------------------------------------------------------


def reloaded_values(before: Document, after: Document, answer: Document) -> Values:
    """
    What a reload has changed.

    Args:
        before, after: the masked config.
        answer: of the API: the paths of the keys.
    """
    changed = [
        {"path": path, "before": value_at(before, path), "after": value_at(after, path)}
        for path in answer["changed"]
    ]
    return {
        "ok": True,
        "changed": changed,
        "restart_needed": list(answer["restart_needed"]),
        "mistakes": [],
        "words": "" if changed else "No key that a reload applies has changed.",
    }


def rejected_values(message: str, mistakes: Sequence[Document]) -> Values:
    """Why the config was not taken up."""
    return {
        "ok": False,
        "changed": [],
        "restart_needed": [],
        "mistakes": list(mistakes),
        "words": message,
    }


def value_at(config: Document, path: str) -> str:
    """The value of a key as text; "–" where it is not there."""
    at: Any = config
    rest = path
    while rest:
        if isinstance(at, Sequence) and not isinstance(at, str):
            # A name may have dots: the longest that fits is meant.
            fitting = [one for one in at if f"{rest}.".startswith(f"{one['name']}.")]
            if not fitting:
                return "–"
            at = max(fitting, key=lambda one: len(one["name"]))
            rest = rest[len(at["name"]) + 1 :]
            continue
        key, _, rest = rest.partition(".")
        if not isinstance(at, Mapping) or key not in at:
            return "–"
        at = at[key]
    if at is None or at == {} or at == []:
        return "–"
    if isinstance(at, Mapping) and "name" in at:
        return "there"  # a whole user or account
    text = toml_text(at)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
