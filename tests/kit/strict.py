"""
What a vendor's own server refuses of a request, in the vendor's words.

Rule 1: one check for each row of ``gateway.protocols.vendor_limits``, by its name;
        the limits are the rows' own.
Rule 2: what the servers of other vendors refuse besides stands in ``DIALECTS``.
Rule 3: a check sees the upstream's body alone; it shares no code with the conversion.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

from gateway.protocols.vendor_limits import REFUSALS

Body = dict[str, Any]
Check = Callable[[Body, Any], bool]
"""Takes a body and the row's limit; says whether the body is refused."""


def refusal(protocol: str, dialect: str, body: Body) -> str:
    """The vendor's words about *body*, "" if it takes it."""
    for (spoken, name), row in REFUSALS.items():
        if spoken != protocol or name in OTHERS.get(dialect, ()):
            continue
        if CHECKS[spoken, name](body, row.limit):
            return f"{name}: {row.source}"
    for words, refuses in DIALECTS.get(dialect, {}).items():
        if refuses(body):
            return words
    return ""


# ---------------------------------------------------------------- parts of bodies


def contents(body: Body) -> Iterator[Body]:
    """Every part of every message, those inside tool results too."""
    for turn in body.get("messages", body.get("input", ())):
        for key in ("content", "output"):
            yield from _parts(turn.get(key))
    yield from _parts(body.get("system"))


def _parts(content: Any) -> Iterator[Body]:
    for part in content if isinstance(content, list) else ():
        yield part
        yield from _parts(part.get("content"))


def functions(body: Body) -> list[Body]:
    found = [tool for tool in body.get("tools", ()) if tool.get("type") == "function"]
    return [tool.get("function", tool) for tool in found]


def nodes(schema: Any) -> Iterator[Body]:
    """Every object inside *schema*, but for values that are data."""
    if isinstance(schema, list):
        for one in schema:
            yield from nodes(one)
    elif isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            if key in ("properties", "$defs"):
                for one in value.values():
                    yield from nodes(one)
            elif key not in ("enum", "const", "default", "required"):
                yield from nodes(value)


def schemas(body: Body) -> list[Body]:
    return [tool.get("parameters", {}) for tool in functions(body)]


def inputs(body: Body) -> list[Body]:
    return [
        tool["input_schema"]
        for tool in body.get("tools", ())
        if "name" in tool and "input_schema" in tool
    ]


def named_format(body: Body) -> Body:
    """OpenAI's forced schema: name, schema, strict."""
    chat = body.get("response_format", {}).get("json_schema")
    form: Body = chat or body.get("text", {}).get("format", {})
    return form if "schema" in form else {}


def data_urls(body: Body, key: str) -> list[str]:
    found = []
    for part in contents(body):
        value = part.get(key)
        if isinstance(value, dict):
            value = value.get("url") or value.get("file_data")
        if isinstance(value, str) and value.startswith("data:"):
            found.append(value)
    return found


def sources(body: Body, kind: str) -> list[Body]:
    return [
        part["source"]
        for part in contents(body)
        if part.get("type") == kind and part["source"]["type"] == "base64"
    ]


def loose(schema: Body) -> bool:
    """Whether OpenAI's strict mode refuses *schema*."""
    return any(
        node.get("additionalProperties") is not False
        or set(node.get("required", ())) != set(node.get("properties", {}))
        for node in nodes(schema)
        if node.get("type") == "object"
    )


def marks(body: Body) -> list[Body]:
    holders = [*body.get("tools", ()), *contents({"system": body.get("system")})]
    holders += contents({"messages": body["messages"]})
    holders.append(body)
    return [one["cache_control"] for one in holders if "cache_control" in one]


def call_ids(body: Body) -> Iterator[str]:
    for turn in body.get("messages", body.get("input", ())):
        yield from (call["id"] for call in turn.get("tool_calls", ()))
        yield from (turn[key] for key in ("call_id", "tool_call_id") if key in turn)
        for part in _parts(turn.get("content")):
            yield from (part[k] for k in ("id", "tool_use_id") if k in part)


def short_descriptions(body: Body) -> bool:
    return re.search(r"gpt-[34]|o\d", body["model"]) is not None


def true_type(source: Body) -> str:
    begin = base64.b64decode(source["data"][:16] + "==")
    known = {b"\x89PN": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF": "image/gif"}
    return known.get(begin[:3], source["media_type"])


def png_side(source: Body) -> int:
    begin = base64.b64decode(source["data"][:48])
    if not begin.startswith(b"\x89PNG"):
        return 0
    return max(int.from_bytes(begin[at : at + 4], "big") for at in (16, 20))


def recursive(schema: Any, inside: tuple[str, ...] = (), root: Any = None) -> bool:
    root = schema if root is None else root
    for node in nodes({k: v for k, v in schema.items() if k != "$defs"}):
        name = str(node.get("$ref", "")).removeprefix("#/$defs/")
        if name in inside:
            return True
        if name and recursive(root["$defs"][name], (*inside, name), root):
            return True
    return False


def answer_schema(body: Body) -> Body:
    form: Body = body.get("output_config", {}).get("format", {})
    found: Body = form.get("schema", {})
    return found


def ends_with(body: Body) -> str:
    last = body["messages"][-1]
    kinds = [part["type"] for part in _parts(last["content"])]
    return "" if kinds and kinds[-1] == "tool_use" else str(last["role"])


def _matches(pattern: str, *values: str) -> bool:
    return all(re.fullmatch(pattern, value) for value in values)


# ---------------------------------------------------------------- the checks

_OPENAI: dict[str, Check] = {
    "tool_name": lambda b, v: not _matches(v, *(f["name"] for f in functions(b))),
    "tools": lambda b, v: len(b.get("tools", ())) > v,
    "tool_description": lambda b, v: short_descriptions(b)
    and any(len(f.get("description", "")) > v for f in functions(b)),
    "tool_schema_object": lambda b, v: any(s.get("type") != v for s in schemas(b)),
    "tool_schema_properties": lambda b, v: any(
        "properties" not in s for s in schemas(b)
    ),
    "tool_schema_items": lambda b, v: any(
        node.get("type") == "array" and "items" not in node
        for schema in schemas(b)
        for node in nodes(schema)
    ),
    "tool_schema_union": lambda b, v: any(set(v) & s.keys() for s in schemas(b)),
    "tool_strict": lambda b, v: any(
        f.get("strict") and loose(f["parameters"]) for f in functions(b)
    ),
    "format_name": lambda b, v: bool(named_format(b))
    and not _matches(v, named_format(b)["name"]),
    "format_strict": lambda b, v: bool(named_format(b).get("strict"))
    and loose(named_format(b)["schema"]),
    "image_type": lambda b, v: any(
        url.split(";")[0].removeprefix("data:") not in v
        for url in data_urls(b, "image_url")
    ),
    "image_bytes": lambda b, v: any(len(u) > v + 99 for u in data_urls(b, "image_url")),
    "file_bytes": lambda b, v: any(
        len(u) > v + 99 for key in ("file", "file_data") for u in data_urls(b, key)
    ),
}
_CHAT: dict[str, Check] = {
    "image_detail": lambda b, v: any(
        part["image_url"].get("detail", "auto") not in v
        for part in contents(b)
        if part.get("type") == "image_url"
    ),
    "file_type": lambda b, v: any(
        not url.startswith(f"data:{v};") for url in data_urls(b, "file")
    ),
    "stop": lambda b, v: len(b.get("stop", ())) > v,
    "stop_thinking": lambda b, v: "stop" in b
    and re.search(r"(^|/)(o\d|gpt-[5-9])", b["model"]) is not None,
    "call_id": lambda b, v: any(len(call_id) > v for call_id in call_ids(b)),
}
_RESPONSES: dict[str, Check] = {
    "image_detail": lambda b, v: any(
        part.get("detail", "auto") not in v
        for part in contents(b)
        if part.get("type") == "input_image"
    ),
    "max_output_tokens": lambda b, v: b.get("max_output_tokens", v) < v,
    "call_id": lambda b, v: any(len(call_id) > v for call_id in call_ids(b)),
}
_ANTHROPIC: dict[str, Check] = {
    "text_blank": lambda b, v: any(
        not part["text"].strip() for part in contents(b) if part.get("type") == "text"
    ),
    "turn_empty": lambda b, v: any(not turn["content"] for turn in b["messages"]),
    "tool_name": lambda b, v: not _matches(v, *(t["name"] for t in b.get("tools", ()))),
    "tool_twice": lambda b, v: len(b.get("tools", ()))
    != len({tool["name"] for tool in b.get("tools", ())}),
    "tool_schema_object": lambda b, v: any(s.get("type") != v for s in inputs(b)),
    "tool_schema_union": lambda b, v: any(set(v) & s.keys() for s in inputs(b)),
    "tool_schema_keys": lambda b, v: not _matches(
        v, *(key for s in inputs(b) for key in s.get("properties", {}))
    ),
    "format_open": lambda b, v: any(
        node.get("type") == "object" and node.get("additionalProperties") is not False
        for node in nodes(answer_schema(b))
    ),
    "format_keywords": lambda b, v: any(
        v & node.keys() for node in nodes(answer_schema(b))
    ),
    "format_recursive": lambda b, v: recursive(answer_schema(b)),
    "image_type": lambda b, v: any(
        source["media_type"] not in v for source in sources(b, "image")
    ),
    "image_type_true": lambda b, v: any(
        source["media_type"] != true_type(source) for source in sources(b, "image")
    ),
    "image_bytes": lambda b, v: any(
        len(source["data"]) > v for source in sources(b, "image")
    ),
    "image_pixels": lambda b, v: any(
        png_side(source) > v for source in sources(b, "image")
    ),
    "document_type": lambda b, v: any(
        source["media_type"] not in v for source in sources(b, "document")
    ),
    "file_bytes": lambda b, v: any(
        len(source["data"]) > v for source in sources(b, "document")
    ),
    "call_id": lambda b, v: not _matches(v, *call_ids(b)),
    "temperature": lambda b, v: b.get("temperature", 0) > v,
    "stop_blank": lambda b, v: any(not s.strip() for s in b.get("stop_sequences", ())),
    "user_id": lambda b, v: len(b.get("metadata", {}).get("user_id", "")) > v,
    "cache_marks": lambda b, v: len(marks(b)) > v,
    "cache_order": lambda b, v: "sh"
    in "".join("h" if mark.get("ttl") == "1h" else "s" for mark in marks(b)),
    "thinking_forced": lambda b, v: b.get("thinking", {}).get("type")
    in ("enabled", "adaptive")
    and b.get("tool_choice", {}).get("type") in ("any", "tool"),
    "ends_with_assistant": lambda b, v: "claude-3" not in b["model"]
    and ends_with(b) == "assistant",
    "begins_with_assistant": lambda b, v: b["messages"][0]["role"] != "user",
}
CHECKS: dict[tuple[str, str], Check] = {
    (protocol, name): check
    for protocol, rows in (
        ("chat", {**_OPENAI, **_CHAT}),
        ("responses", {**_OPENAI, **_RESPONSES}),
        ("messages", _ANTHROPIC),
    )
    for name, check in rows.items()
}

# ---------------------------------------------------------------- other servers

OTHERS: dict[str, frozenset[str]] = {
    "kimi": frozenset(("tool_schema_items", "tool_schema_union")),
    "gemini": frozenset(("tool_schema_items",)),
}
"""Rows that do not hold for a dialect's server."""


def _roles(body: Body) -> list[str]:
    return [turn["role"] for turn in body["messages"]]


def _late_system(body: Body) -> bool:
    return "system" in _roles(body)[1:] or "developer" in _roles(body)


def _unknown(*fields: str) -> Callable[[Body], bool]:
    return lambda body: any(field in body for field in fields)


def _effort(*words: str) -> Callable[[Body], bool]:
    return lambda body: body.get("reasoning_effort", words[0]) not in words


def _has_url(body: Body) -> bool:
    return any(
        not part["image_url"]["url"].startswith("data:")
        for part in contents(body)
        if part.get("type") == "image_url"
    )


def _unsigned(body: Body) -> bool:
    steps = [turn["tool_calls"] for turn in body["messages"] if "tool_calls" in turn]
    return any("thought_signature" not in str(calls[0]) for calls in steps)


def _thinks_forced(body: Body) -> bool:
    off = (
        "disabled" in str(body.get("thinking")) or body.get("enable_thinking") is False
    )
    return not off and body.get("tool_choice", "auto") not in ("auto", "none")


_GEMINI_KNOWN = frozenset(
    "type format title description nullable enum items minItems maxItems properties "
    "required minProperties maxProperties minLength maxLength pattern anyOf "
    "propertyOrdering minimum maximum".split()
)
_OPENAI_ONLY = ("prompt_cache_key", "service_tier", "verbosity", "safety_identifier")

DIALECTS: dict[str, dict[str, Callable[[Body], bool]]] = {
    "qwen": {
        "System message must be at the beginning.": _late_system,
        "does not support being set to required or object in thinking": _thinks_forced,
    },
    "vllm": {
        "System message must be at the beginning.": _late_system,
        "Input should be 'none', 'low', 'medium' or 'high'": _effort(
            "none", "low", "medium", "high"
        ),
    },
    "ollama": {
        "invalid reasoning value": _effort("none", "low", "medium", "high"),
        "invalid image input": _has_url,
    },
    "mistral": {
        "Extra inputs are not permitted": lambda body: _unknown(
            *_OPENAI_ONLY, "stream_options", "max_completion_tokens", "user"
        )(body)
        or any("reasoning_content" in turn for turn in body["messages"]),
        "Tool call id has to be a-z, A-Z, 0-9, with a length of 9": lambda body: not (
            _matches(r"[A-Za-z0-9]{9}", *call_ids(body))
        ),
        "Unexpected role 'user' after role 'tool'": lambda body: ("tool", "user")
        in zip(_roles(body), _roles(body)[1:]),
        "Expected last role User or Tool": lambda body: _roles(body)[-1] == "assistant"
        and not body["messages"][-1].get("prefix"),
    },
    "gemini": {
        "Function call is missing a thought_signature": _unsigned,
        "Invalid JSON payload received. Unknown name": _unknown(*_OPENAI_ONLY, "user"),
        "Unknown name at 'tools[0].function_declarations[0]'": lambda body: any(
            node.keys() - _GEMINI_KNOWN for s in schemas(body) for node in nodes(s)
        ),
    },
    "kimi": {
        "not a valid moonshot flavored json schema": lambda body: any(
            "anyOf" in node and "type" in node or not {"anyOf", "type"} & node.keys()
            for schema in schemas(body)
            for node in nodes(schema)
        ),
        "tool_choice is incompatible with thinking enabled": _thinks_forced,
    },
    "deepseek": {
        "Thinking mode does not support this tool_choice": _thinks_forced,
        "This response_format type is unavailable now": lambda body: "schema"
        in str(body.get("response_format")),
    },
}
