"""
Chat Completions request bodies ⇄ neutral requests: the parameters.

The conversation is in ``turns``, its parts in ``content``, the tools in ``tools``.
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.chat.conversation import ChatTurns, read_messages
from gateway.protocols.chat.gemini_signatures import signed
from gateway.protocols.chat.responses_shape import is_responses, nested
from gateway.protocols.chat.roles import arranged
from gateway.protocols.chat.tools import (
    read_choice,
    read_tools,
    write_choice,
    write_tools,
)
from gateway.protocols.efforts import chat_effort
from gateway.protocols.history import settled
from gateway.protocols.json_reader import Node, Unsupported, refuse, strings
from gateway.protocols.legal_names import safe_name
from gateway.protocols.model import Asked, Format, Request, Thinking, Tools, Written
from gateway.protocols.model_traits import (
    fills_signatures,
    lowered,
    openai_takes_sampling,
    takes_stop,
)
from gateway.protocols.options import Options
from gateway.protocols.responses import request as responses
from gateway.protocols.system_messages import hoist
from gateway.protocols.toolset import align, think_unless_forced
from gateway.protocols.vendor_limits import limit

STOP_MAX: int = limit("chat", "stop")

_READ = frozenset(
    (
        "model",
        "messages",
        "tools",
        "functions",
        "tool_choice",
        "function_call",
        "web_search_options",
        "parallel_tool_calls",
        "max_completion_tokens",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "n",
        "modalities",
        "audio",
        "reasoning_effort",
        "response_format",
        "verbosity",
        "stream",
        "stream_options",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "service_tier",
        "metadata",
    )
)
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "store": (False,),
}


def read_request(body: dict[str, Any]) -> Request:
    """
    Read a Chat body.

    Raises:
        ClientError: "invalid_request" for what has the wrong shape.
        Unsupported: what no other protocol can do.
    """
    if is_responses(body):
        return responses.read_request(body)
    node = Node(nested(body))
    _refuse_forms(node)
    request = Request(node.text("model"))
    request.paths = {
        "items": "messages",
        "parallel": "parallel_tool_calls",
        "thinking": "reasoning_effort",
        "effort": "reasoning_effort",
        "cache_key": "prompt_cache_key",
        "cache": "messages[].content[].prompt_cache_breakpoint",
    }
    read_tools(request, node)
    read_messages(request, node)
    request.choice = read_choice(node)
    request.parallel = node.flag("parallel_tool_calls")
    _read_limits(request, node)
    request.format = _read_format(node)
    effort = node.text("reasoning_effort")
    request.thinking = Thinking(effort) if effort else None
    request.verbosity = node.text("verbosity")
    _read_names(request, node)
    request.stream = node.flag("stream")
    for key, value in body.items():
        known = key in _READ or value in _DEFAULTS.get(key, ())
        if not known and value is not None:
            request.drop(key)
    return request


def _refuse_forms(node: Node) -> None:
    if node.whole("n") not in (None, 1):
        raise Unsupported("n")
    if any(form != "text" for form in node.texts("modalities")):
        raise Unsupported("modalities")
    if node.has("audio"):
        raise Unsupported("audio")


def _read_limits(request: Request, node: Node) -> None:
    newer, older = node.whole("max_completion_tokens"), node.whole("max_tokens")
    request.max_tokens = older if newer is None else newer
    request.temperature = node.number("temperature")
    request.top_p = node.number("top_p")
    top_k = node.get("top_k")
    request.top_k = node.whole("top_k") if top_k != -1 else None  # -1: no limit
    stop = node.get("stop")
    stops = [stop] if isinstance(stop, str) else node.texts("stop")
    request.stop = [text for text in stops if text]


def _read_format(node: Node) -> Format | None:
    form = node.maybe("response_format")
    if form is None:
        return None
    kind = form.one_of("type", "text", "json_object", "json_schema")
    if kind == "json_object":
        return Format("json_object", path=form.path)
    if kind != "json_schema":
        return None
    named = form.need("json_schema")
    schema = named.maybe("schema")
    return Format(
        "json_schema",
        named.text("name"),
        schema.value if schema is not None else {},
        named.flag("strict"),
        named.text("description"),
        form.path,
    )


def _read_names(request: Request, node: Node) -> None:
    request.user = node.text("safety_identifier") or node.text("user")
    if node.has("safety_identifier") and node.has("user"):
        request.drop("user")
    request.cache_key = node.text("prompt_cache_key")
    request.service_tier = node.text("service_tier")
    if node.has("metadata"):
        request.metadata = strings(node.need("metadata").value)
        if not request.metadata:
            request.drop("metadata")
    options = node.maybe("stream_options")
    if options is not None:
        options.flag("include_usage")
        for key in options.value:
            if key != "include_usage" and options.has(key):
                request.drop(options.at(key))


def asked(body: dict[str, Any], request: Request, model: str) -> Asked:
    """What the way back to a Chat client needs."""
    options = body.get("stream_options") or {}
    return Asked(
        model,
        stream=bool(request.stream),
        include_usage=options.get("include_usage") is True,
    )


# ---------------------------------------------------------------- writing


def write_request(request: Request, options: Options) -> Written:
    """
    Write a Chat body; stop sequences beyond four are left for the gateway to cut.

    Raises:
        ClientError, Unsupported: what cannot be said in Chat.
    """
    align(request)
    think_unless_forced(request, options)
    if options.system_messages == "hoist":
        hoist(request)
    names = Tools()
    body: dict[str, Any] = {"model": request.model}
    if request.stream:
        body["stream"] = True
        if options.stream_options:
            body["stream_options"] = {"include_usage": True}
    tools = write_tools(request, options, names)
    body["messages"] = _write_messages(request, options, names)
    if tools:
        body["tools"] = tools
        choice = write_choice(request, names)
        if choice is not None:
            body["tool_choice"] = choice
        if request.parallel is not None and options.parallel_tool_calls:
            body["parallel_tool_calls"] = request.parallel
        elif request.parallel is False:
            request.drop(request.path("parallel"))
    if request.max_tokens is not None:
        limit = lowered(request.max_tokens, request.model, options)
        body[options.chat_max_tokens_field] = limit
    _write_sampling(body, request, options)
    known = request.stop[:STOP_MAX] if takes_stop(request.model) else []
    cut = tuple(request.stop[len(known) :])
    if known:
        body["stop"] = known
    if request.format is not None:
        body["response_format"] = _write_format(request.format, options)
    _write_names(body, request, options)
    return Written(body, tuple(request.dropped), names, cut)


def _write_messages(
    request: Request, options: Options, names: Tools
) -> list[dict[str, Any]]:
    turns = ChatTurns(request, options, names)
    for item in settled(request.items, options):
        turns.add(item)
    turns.finish()
    if not turns.messages:
        refuse(request.path("items"), "holds nothing for the model")
    messages = turns.messages
    if request.instructions:
        if any(text.cache for text in request.instructions):
            request.drop("system[].cache_control")
    text = "\n\n".join(t.text for t in request.instructions if t.text.strip())
    if text:
        messages = [{"role": options.chat_system_role, "content": text}, *messages]
    messages = arranged(messages, options)
    fills = fills_signatures(request.model, options)
    return signed(messages) if fills else messages


def _write_sampling(body: dict[str, Any], request: Request, options: Options) -> None:
    effort = _write_thinking(body, request, options)
    takes = openai_takes_sampling(request.model, effort, options)
    for key, value in (("temperature", request.temperature), ("top_p", request.top_p)):
        if value is not None and takes:
            body[key] = value
        elif value is not None:
            request.drop(key)
    if request.top_k is not None:
        request.drop("top_k")


def _write_thinking(body: dict[str, Any], request: Request, options: Options) -> str:
    """Ask for the thinking that the client wants; the effort that was asked for."""
    wanted = request.thinking.effort if request.thinking is not None else ""
    if not wanted:
        return ""
    way, effort = options.chat_thinking, ""
    if options.thinking == "none" or way == "effort":
        effort = chat_effort(request.model, wanted, options)
    elif way == "enable":
        body["enable_thinking"] = wanted != "none"
    else:
        body["thinking"] = {"type": "disabled" if wanted == "none" else "enabled"}
        if wanted != "none" and options.efforts:
            effort = chat_effort(request.model, wanted, options)
    if effort:
        body["reasoning_effort"] = effort
    elif options.thinking == "none" or way == "effort":
        request.drop(request.path("effort"))
    return effort


def _write_format(form: Format, options: Options) -> dict[str, Any]:
    if form.type == "json_object":
        return {"type": "json_object"}
    if not options.json_schema:
        raise Unsupported(form.path)
    schema: dict[str, Any] = {"name": safe_name(form.name or "output")}
    if form.description:
        schema["description"] = form.description
    schema["schema"] = form.schema
    if form.strict is not None and options.strict:
        schema["strict"] = form.strict
    return {"type": "json_schema", "json_schema": schema}


def _write_names(body: dict[str, Any], request: Request, options: Options) -> None:
    field = options.chat_user
    if field == "auto":
        field = "safety_identifier" if options.chat_extras else "user"
    if request.user and field == "none":
        request.drop(request.path("user"))
    elif request.user:
        short = field == "safety_identifier"
        body[field] = responses.short_user(request.user) if short else request.user
    for name, key in (
        ("cache_key", "prompt_cache_key"),
        ("service_tier", "service_tier"),
        ("verbosity", "verbosity"),
    ):
        value = getattr(request, name)
        if value and options.chat_extras:
            body[key] = value
        elif value:
            request.drop(request.path(name))
    if request.metadata:
        request.drop("metadata")
