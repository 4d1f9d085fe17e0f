"""
Messages request bodies ⇄ neutral requests: the parameters.

The conversation is in ``conversation``, its blocks in ``content``, the tools in
``tools``, the thinking in ``thinking``.
"""

from __future__ import annotations

import hashlib
from typing import Any

from gateway.protocols.efforts import messages_effort
from gateway.protocols.filler_turns import CONTINUE
from gateway.protocols.history import settled
from gateway.protocols.json_reader import Node, Unsupported, parsed, refuse
from gateway.protocols.messages.content import anywhere, read_mark, read_parts
from gateway.protocols.messages.conversation import MessagesTurns, read_messages
from gateway.protocols.messages.thinking import effort_of_budget, thinking_form
from gateway.protocols.messages.tools import (
    read_choice,
    read_tools,
    write_choice,
    write_tools,
)
from gateway.protocols.model import (
    Asked,
    Format,
    Request,
    Text,
    Thinking,
    Tools,
    Written,
)
from gateway.protocols.model_traits import (
    lowered,
    messages_takes_sampling,
    takes_prefill,
)
from gateway.protocols.options import Options
from gateway.protocols.schema import for_answer, is_strict
from gateway.protocols.toolset import align, think_unless_forced
from gateway.protocols.vendor_limits import limit

MARKS_MAX: int = limit("messages", "cache_marks")
USER_MAX: int = limit("messages", "user_id")
JSON_RULE = "Answer with one JSON object only."
BILLING = "x-anthropic-billing-header:"
"""How a system block begins that changes with every request and says nothing."""

_READ = frozenset(
    (
        "model",
        "messages",
        "system",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "thinking",
        "output_config",
        "tools",
        "tool_choice",
        "stream",
        "metadata",
        "service_tier",
        "cache_control",
    )
)
_TIERS_READ = {"auto": "auto", "standard_only": "default"}
_TIERS_WRITTEN = {
    "auto": "auto",
    "default": "standard_only",
    "priority": "auto",
    "fast": "auto",
    "flex": "standard_only",
    "scale": "standard_only",
}


def read_request(body: dict[str, Any]) -> Request:
    """
    Read a Messages body.

    Raises:
        ClientError: "invalid_request" for what has the wrong shape.
        Unsupported: what no other protocol can do.
    """
    node = Node(body)
    request = Request(node.text("model"))
    request.paths = {
        "items": "messages",
        "parallel": "tool_choice.disable_parallel_tool_use",
        "parameters": "input_schema",
        "stop": "stop_sequences",
        "user": "metadata.user_id",
        "cache": "messages[].content[].cache_control",
    }
    _read_system(request, node)
    read_tools(request, node)
    read_messages(request, node)
    read_choice(request, node)
    _read_limits(request, node)
    _read_thinking(request, node)
    _read_names(request, node)
    request.stream = node.flag("stream")
    for key, value in body.items():
        if key not in _READ and value is not None:
            request.drop(key)
    return request


def _read_system(request: Request, node: Node) -> None:
    for part in read_parts(request, node, "system"):
        if not isinstance(part, Text):
            raise Unsupported(getattr(part, "path", "") or "system")
        if part.text.startswith(BILLING):
            request.drop(part.path)
        elif part.text:
            request.instructions.append(part)


def _read_limits(request: Request, node: Node) -> None:
    request.max_tokens = node.whole("max_tokens")
    if request.max_tokens == 0:  # only warms the vendor's cache: no answer at all
        raise Unsupported("max_tokens")
    request.temperature = node.number("temperature")
    request.top_p = node.number("top_p")
    request.top_k = node.whole("top_k")
    request.stop = [text for text in node.texts("stop_sequences") if text]


def _read_thinking(request: Request, node: Node) -> None:
    config = node.maybe("output_config")
    effort = config.text("effort") if config is not None else ""
    request.paths["effort"] = "output_config.effort" if effort else "thinking"
    form = config.maybe("format") if config is not None else None
    if form is not None:
        _read_format(request, form)
    thinking = node.maybe("thinking")
    if thinking is None:
        request.thinking = Thinking(effort) if effort else None
        return
    kind = thinking.one_of("type", "adaptive", "enabled", "disabled", "between_tools")
    if kind == "disabled":
        request.thinking = Thinking("none")
        return
    if not kind:
        refuse(thinking.at("type"), "is missing")
    if not effort:
        budget = thinking.whole("budget_tokens") if kind == "enabled" else None
        effort = effort_of_budget(budget)
    hidden = thinking.text("display") == "omitted"
    request.thinking = Thinking(effort, "" if hidden else "auto", kept=True)


def _read_format(request: Request, form: Node) -> None:
    if form.text("type") != "json_schema":
        raise Unsupported(form.path)
    schema = form.need("schema").value
    request.format = Format(
        "json_schema", "output", schema, is_strict(schema), path=form.path
    )


def _read_names(request: Request, node: Node) -> None:
    tier = node.text("service_tier")
    request.service_tier = _TIERS_READ.get(tier, "")
    if tier and not request.service_tier:
        request.drop("service_tier")
    request.cache_all = read_mark(node)
    metadata = node.maybe("metadata")
    if metadata is None:
        return
    request.user = metadata.text("user_id")
    known = parsed(request.user) if request.user.startswith("{") else None
    if isinstance(known, dict):  # Claude Code packs user and session together
        owner = known.get("account_uuid") or known.get("device_id")
        session = known.get("session_id")
        if isinstance(owner, str):
            request.user = owner
        if isinstance(session, str):
            request.cache_key = session
    for key in metadata.value:
        if key != "user_id" and metadata.has(key):
            request.drop(metadata.at(key))


def asked(body: dict[str, Any], request: Request, model: str) -> Asked:
    """What the way back to a Messages client needs."""
    thinking = body.get("thinking") or {}
    on = thinking.get("type") not in (None, "disabled")
    return Asked(
        model,
        stream=bool(request.stream),
        thinking=on,
        thinking_hidden=on and thinking.get("display") == "omitted",
    )


# ---------------------------------------------------------------- writing


def write_request(request: Request, options: Options) -> Written:
    """
    Write a Messages body; blank stop sequences are left for the gateway to cut.

    Raises:
        ClientError, Unsupported: what cannot be said in Messages.
    """
    align(request)
    think_unless_forced(request, options)
    names = Tools()
    most = _max_tokens(request, options)
    body: dict[str, Any] = {"model": request.model, "max_tokens": most}
    if request.stream:
        body["stream"] = True
    tools = write_tools(request, options, names)
    _write_conversation(body, request, options, names)
    if tools:
        body["tools"] = tools
    choice = write_choice(request, names, tools=bool(tools))
    if choice:
        body["tool_choice"] = choice
    thinks = _write_thinking(body, request, options)
    _write_sampling(body, request, options, thinks)
    _end_with_user(body["messages"], request, options, thinks)
    cut = _write_stop(body, request)
    _write_names(body, request)
    _write_marks(body, request, options)
    return Written(body, tuple(request.dropped), names, cut)


def _write_conversation(
    body: dict[str, Any], request: Request, options: Options, names: Tools
) -> None:
    turns = MessagesTurns(request, options, names)
    turns.system += [
        {"type": "text", "text": text.text}
        for text in request.instructions
        if text.text.strip()
    ]
    for item in settled(request.items, options):
        turns.add(item)
    turns.finish()
    if not turns.messages:
        refuse(request.path("items"), "holds nothing for the model")
    if request.format is not None and request.format.type == "json_object":
        turns.system.append({"type": "text", "text": JSON_RULE})
    if turns.system:
        body["system"] = turns.system
    body["messages"] = turns.messages


def _end_with_user(
    messages: list[dict[str, Any]], request: Request, options: Options, thinks: bool
) -> None:
    """Let the user speak last where the model does not go on with the assistant."""
    last = messages[-1]
    spoken = last["role"] == "assistant" and last["content"][-1]["type"] != "tool_use"
    if spoken and not takes_prefill(request.model, options, thinks=thinks):
        words = {"type": "text", "text": CONTINUE}
        messages.append({"role": "user", "content": [words]})


def _max_tokens(request: Request, options: Options) -> int:
    wanted = request.max_tokens
    if wanted is None:
        wanted = options.default_max_tokens
    return lowered(wanted, request.model, options)


def _write_thinking(body: dict[str, Any], request: Request, options: Options) -> bool:
    """Write thinking, effort and the answer's form; say whether it thinks."""
    config: dict[str, Any] = {}
    if request.format is not None and request.format.type == "json_schema":
        if not options.json_schema:
            raise Unsupported(request.format.path)
        schema = _answer_schema(request, request.format, options)
        config["format"] = {"type": "json_schema", "schema": schema}
    thinking = request.thinking
    form: dict[str, Any] = {}
    if thinking is not None and thinking.effort:
        form = thinking_form(thinking, body, request, options)
        if form.get("type") == "adaptive":
            config["effort"] = messages_effort(request.model, thinking.effort, options)
    if form:
        body["thinking"] = form
    if config:
        body["output_config"] = config
    return bool(form) and form["type"] != "disabled"


def _answer_schema(
    request: Request, form: Format, options: Options
) -> dict[str, Any] | None:
    """
    Raises:
        Unsupported: the server cannot force such a schema.
    """
    if form.schema is None or options.schema_kind("anthropic") != "anthropic":
        return form.schema
    try:
        return for_answer(form.schema, lambda key: request.drop(f"{form.path}.{key}"))
    except Unsupported:
        raise Unsupported(form.path) from None


def _write_sampling(
    body: dict[str, Any], request: Request, options: Options, thinks: bool
) -> None:
    takes = messages_takes_sampling(request.model, options) and not thinks
    temperature = request.temperature
    for key, value in (
        ("temperature", None if temperature is None else min(1, temperature)),
        ("top_p", request.top_p),
        ("top_k", request.top_k),
    ):
        if value is None:
            continue
        # The newest models that sample take one of the two, not both.
        if takes and not (key == "top_p" and "temperature" in body):
            body[key] = value
        else:
            request.drop(key)


def _write_stop(body: dict[str, Any], request: Request) -> tuple[str, ...]:
    known = [text for text in request.stop if text.strip()]
    if known:
        body["stop_sequences"] = known
    return tuple(text for text in request.stop if not text.strip())


def _write_names(body: dict[str, Any], request: Request) -> None:
    user = request.user
    if len(user) > USER_MAX:
        user = hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()
    if user:
        body["metadata"] = {"user_id": user}
    tier = _TIERS_WRITTEN.get(request.service_tier)
    if tier is not None:
        body["service_tier"] = tier
    elif request.service_tier:
        request.drop("service_tier")
    for name in ("metadata", "cache_key", "verbosity"):
        if getattr(request, name):
            request.drop(request.path(name))


def _write_marks(body: dict[str, Any], request: Request, options: Options) -> None:
    """Keep the last cache marks that fit; mark the end where that pays."""
    marked = [block for block in _blocks(body) if "cache_control" in block]
    wanted = options.cache == "always" or (
        options.cache == "auto" and bool(request.cache_key) and not marked
    )
    room = MARKS_MAX
    if options.cache != "never" and (wanted or request.cache_all):
        body["cache_control"] = {"type": "ephemeral"}
        if request.cache_all == "1h":
            body["cache_control"]["ttl"] = "1h"
        room -= 1
    for block in marked[: max(0, len(marked) - room)]:
        del block["cache_control"]
        request.drop(anywhere(request.path("cache")))
    _order_marks(marked[max(0, len(marked) - room) :], body.get("cache_control"))


def _order_marks(blocks: list[dict[str, Any]], last: dict[str, Any] | None) -> None:
    """Behind a mark of 5 minutes none may last an hour."""
    marks = [block["cache_control"] for block in blocks]
    short = False
    for mark in [*marks, last] if last else marks:
        if short:
            mark.pop("ttl", None)
        short = "ttl" not in mark


def _blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything that may bear a mark, in the order of the prompt."""
    blocks: list[dict[str, Any]] = [*body.get("tools", ()), *body.get("system", ())]
    for message in body["messages"]:
        blocks += message["content"]
    return blocks
