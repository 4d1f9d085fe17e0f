"""
Responses request bodies ⇄ neutral requests: the parameters.

The conversation is in ``items``, its parts in ``content``, the tools in ``tools``.
"""

from __future__ import annotations

import hashlib
from typing import Any

from gateway.errors import ClientError
from gateway.protocols.efforts import openai_effort
from gateway.protocols.filler_turns import CONTINUE
from gateway.protocols.history import settled
from gateway.protocols.json_reader import Node, Unsupported, refuse, strings
from gateway.protocols.legal_names import safe_name
from gateway.protocols.model import (
    Asked,
    Format,
    Request,
    Text,
    Thinking,
    Tools,
    Written,
)
from gateway.protocols.model_traits import lowered, openai_takes_sampling
from gateway.protocols.options import Options
from gateway.protocols.responses.items import read_input, unmark, write_input
from gateway.protocols.responses.tools import (
    read_choice,
    read_tools,
    write_choice,
    write_tools,
)
from gateway.protocols.system_messages import hoist
from gateway.protocols.toolset import align
from gateway.protocols.vendor_limits import limit

ENCRYPTED = "reasoning.encrypted_content"
USER_MAX = 128
OUTPUT_MIN: int = limit("responses", "max_output_tokens")

ECHOED = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)
"""The request's fields that a ``response`` object repeats."""

_READ = frozenset(
    (
        "model",
        "input",
        "instructions",
        "max_output_tokens",
        "temperature",
        "top_p",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "reasoning",
        "text",
        "stream",
        "safety_identifier",
        "prompt_cache_key",
        "service_tier",
        "metadata",
        "include",
        "max_tool_calls",
        "user",
        "previous_response_id",
        "background",
        "conversation",
        "prompt",
    )
)
_DEFAULTS: dict[str, Any] = {"truncation": "disabled", "top_logprobs": 0}
_REFUSED = ("background", "conversation", "prompt")


def read_request(body: dict[str, Any]) -> Request:
    """
    Read a Responses body.

    Raises:
        ClientError: "invalid_request" for what has the wrong shape,
            "previous_response_not_found" when ``previous_response_id`` is still
            there: the relay replaces the id of a turn that it has stored.
        Unsupported: what no other protocol can do.
    """
    node = Node(body)
    _refuse_state(node)
    request = Request(node.text("model"))
    request.paths = {
        "items": "input",
        "parallel": "parallel_tool_calls",
        "cache": "input[].content[].prompt_cache_breakpoint",
    }
    if node.has("instructions"):
        instructions = node.text("instructions")
        if instructions:
            request.instructions.append(Text(instructions, path="instructions"))
    read_tools(request, node)
    read_input(request, node)
    request.choice = read_choice(node)
    request.parallel = node.flag("parallel_tool_calls")
    _read_limits(request, node)
    _read_thinking(request, node)
    _read_text(request, node)
    _read_names(request, node)
    request.stream = node.flag("stream")
    node.texts("include")
    for key, value in body.items():
        if key not in _READ and value is not None and value != _DEFAULTS.get(key):
            request.drop(key)
    return request


def with_earlier(body: dict[str, Any], earlier: list[Any]) -> dict[str, Any]:
    """
    A body with the turns before in ``input``, without ``previous_response_id``.

    Args:
        earlier: the input and output items of the turns before, oldest first.
    """
    value = body.get("input")
    if isinstance(value, str):
        value = [{"type": "message", "role": "user", "content": value}]
    whole = {**body, "input": [*earlier, *(value if isinstance(value, list) else ())]}
    whole.pop("previous_response_id", None)
    return whole


def _refuse_state(node: Node) -> None:
    """Refuse fields that need the vendor's own store of conversations."""
    for key in _REFUSED:
        if node.has(key) and node.get(key) is not False:
            raise Unsupported(key)
    known = node.text("previous_response_id")
    if known:
        raise ClientError(
            "previous_response_not_found",
            f"Previous response with id '{known}' not found",
            param="previous_response_id",
        )


def _read_limits(request: Request, node: Node) -> None:
    request.max_tokens = node.whole("max_output_tokens")
    request.paths["max_tokens"] = "max_output_tokens"
    request.temperature = node.number("temperature")
    request.top_p = node.number("top_p")
    calls = node.whole("max_tool_calls")
    searches = [tool for tool in request.tools if tool.kind == "web_search"]
    if calls is None:
        return
    if not searches:
        request.drop("max_tool_calls")
    for tool in searches:
        tool.settings["max_uses"] = calls


def _read_thinking(request: Request, node: Node) -> None:
    reasoning = node.maybe("reasoning")
    updated = request.thinking.effort if request.thinking is not None else ""
    request.paths["effort"] = "reasoning.effort"
    if reasoning is None:
        return
    summary = reasoning.text("summary") or reasoning.text("generate_summary")
    effort = updated or reasoning.text("effort")
    request.thinking = Thinking(effort, summary, kept=True)
    request.paths["thinking"] = "reasoning"
    for key in reasoning.value:
        if key not in ("effort", "summary", "generate_summary") and reasoning.has(key):
            request.drop(reasoning.at(key))


def _read_text(request: Request, node: Node) -> None:
    text = node.maybe("text")
    if text is None:
        return
    request.verbosity = text.text("verbosity")
    request.paths["verbosity"] = "text.verbosity"
    form = text.maybe("format")
    if form is not None:
        request.format = _read_format(form)


def _read_format(form: Node) -> Format | None:
    kind = form.one_of("type", "text", "json_object", "json_schema")
    if kind == "json_schema":
        return Format(
            "json_schema",
            form.text("name"),
            form.need("schema").value,
            form.flag("strict"),
            form.text("description"),
            form.path,
        )
    return Format("json_object", path=form.path) if kind == "json_object" else None


def _read_names(request: Request, node: Node) -> None:
    request.user = node.text("safety_identifier") or node.text("user")
    if node.has("safety_identifier") and node.has("user"):
        request.drop("user")
    request.paths["user"] = (
        "safety_identifier" if node.has("safety_identifier") else "user"
    )
    request.cache_key = node.text("prompt_cache_key")
    request.paths["cache_key"] = "prompt_cache_key"
    request.service_tier = node.text("service_tier")
    if node.has("metadata"):
        request.metadata = strings(node.need("metadata").value)
        if not request.metadata:
            request.drop("metadata")


def asked(body: dict[str, Any], request: Request, model: str) -> Asked:
    """What the conversion of the answer for a Responses client needs."""
    include = body.get("include") or []
    return Asked(
        model,
        stream=bool(request.stream),
        encrypted_reasoning=ENCRYPTED in include or body.get("store") is False,
        echo={key: body[key] for key in ECHOED if body.get(key) is not None},
    )


# ---------------------------------------------------------------- writing


def write_request(request: Request, options: Options) -> Written:
    """
    Write a Responses body; the gateway applies ``stop`` to the answer itself.

    Raises:
        ClientError, Unsupported: a field that Responses cannot express.
    """
    align(request)
    if options.system_messages == "hoist":
        hoist(request)
    names = Tools()
    body: dict[str, Any] = {"model": request.model}
    if request.stream:
        body["stream"] = True
    body["store"] = False
    tools = write_tools(request, options, names)
    if request.instructions:
        texts = [text.text for text in request.instructions]
        body["instructions"] = "\n\n".join(texts)
        if any(text.cache for text in request.instructions):
            request.drop("system[].cache_control")
    if tools:
        body["tools"] = tools
    _write_calling(body, request, options, names, tools=bool(tools))
    if not options.responses_cache_marks:
        unmark(request)
    items = settled(request.items, options)
    body["input"] = write_input(request, items, options, names)
    last = body["input"][-1] if body["input"] else {}
    if options.prefill == "turn" and last.get("role") == "assistant":
        body["input"].append({"type": "message", "role": "user", "content": CONTINUE})
    if not body["input"]:
        refuse(request.path("items"), "holds nothing for the model")
    _write_limits(body, request, options)
    _write_text(body, request, options)
    _write_names(body, request)
    return Written(body, tuple(request.dropped), names, tuple(request.stop))


def _write_calling(
    body: dict[str, Any],
    request: Request,
    options: Options,
    names: Tools,
    *,
    tools: bool,
) -> None:
    choice = write_choice(request, names)
    if request.choice.mode in ("required", "tool") and not tools:
        raise Unsupported(request.choice.path)
    if choice is not None and tools:
        body["tool_choice"] = choice
    if request.parallel is not None and tools and options.parallel_tool_calls:
        body["parallel_tool_calls"] = request.parallel
    elif request.parallel is False and tools:
        request.drop(request.path("parallel"))
    for tool in request.tools:
        if tool.kind == "web_search" and "max_uses" in tool.settings:
            body["max_tool_calls"] = tool.settings["max_uses"]


def _write_limits(body: dict[str, Any], request: Request, options: Options) -> None:
    if request.max_tokens is not None:
        body["max_output_tokens"] = max(
            OUTPUT_MIN, lowered(request.max_tokens, request.model, options)
        )
    effort = _write_thinking(body, request, options)
    takes = openai_takes_sampling(request.model, effort, options)
    for key, value in (
        ("temperature", request.temperature),
        ("top_p", request.top_p),
    ):
        if value is not None and takes:
            body[key] = value
        elif value is not None:
            request.drop(key)
    if request.top_k is not None:
        request.drop("top_k")


def _write_thinking(body: dict[str, Any], request: Request, options: Options) -> str:
    thinking = request.thinking
    if thinking is None:
        return ""
    effort = openai_effort(request.model, thinking.effort, options)
    if options.thinking == "none" or thinking.effort and not effort:
        request.drop(request.path("effort"))
        return ""
    reasoning: dict[str, Any] = {}
    if effort:
        reasoning["effort"] = effort
    if thinking.summary:
        reasoning["summary"] = thinking.summary
    if reasoning:
        body["reasoning"] = reasoning
    if thinking.kept and effort != "none":
        body["include"] = [ENCRYPTED]
    return effort


def _write_text(body: dict[str, Any], request: Request, options: Options) -> None:
    text: dict[str, Any] = {}
    form = request.format
    if form is not None:
        text["format"] = {"type": form.type}
    if form is not None and form.type == "json_schema":
        text["format"]["name"] = safe_name(form.name or "output")
        text["format"]["schema"] = form.schema
        if form.description:
            text["format"]["description"] = form.description
        if form.strict is not None and options.strict:
            text["format"]["strict"] = form.strict
    if request.verbosity:
        text["verbosity"] = request.verbosity
    if text:
        body["text"] = text


def _write_names(body: dict[str, Any], request: Request) -> None:
    if request.user:
        body["safety_identifier"] = short_user(request.user)
    if request.cache_key:
        body["prompt_cache_key"] = request.cache_key
    if request.service_tier:
        body["service_tier"] = request.service_tier
    if request.metadata:
        body["metadata"] = request.metadata


def short_user(user: str) -> str:
    """A user's name as OpenAI takes it: a long one is hashed."""
    if len(user) <= USER_MAX:
        return user
    return hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()
