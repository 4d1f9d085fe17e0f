"""Responses input items ⇄ neutral items."""

from __future__ import annotations

import hashlib
from typing import Any

from gateway.protocols import opaque
from gateway.protocols.compaction import SUMMARY_MARK, compacted_text
from gateway.protocols.json_reader import Node, Unsupported, dumped, refuse
from gateway.protocols.model import (
    TAG_REDACTED,
    TAG_THINKING,
    Audio,
    CacheTtl,
    Item,
    Kind,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Tools,
)
from gateway.protocols.options import Options
from gateway.protocols.responses.content import (
    marked_error,
    plain_text,
    read_content,
    read_image,
    write_parts,
)
from gateway.protocols.responses.tools import read_tools
from gateway.protocols.tool_carrier import local_shell_fields
from gateway.protocols.toolset import call_name

AGENT_MARK = "[Message from agent {}]"
COMPACTIONS = ("compaction", "compaction_summary", "context_compaction")

_CALLS: dict[str, Kind] = {
    "function_call": "function",
    "custom_tool_call": "custom",
    "local_shell_call": "local_shell",
    "shell_call": "shell",
    "apply_patch_call": "apply_patch",
    "tool_search_call": "tool_search",
}
_RESULTS: dict[str, Kind] = {
    "function_call_output": "function",
    "custom_tool_call_output": "custom",
    "local_shell_call_output": "local_shell",
    "shell_call_output": "shell",
    "apply_patch_call_output": "apply_patch",
    "tool_search_output": "tool_search",
}
# Traces of a vendor's own tools: the text of the answer holds their results.
_TRACES = frozenset(
    (
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "program",
        "program_output",
        "compaction_trigger",
        "ghost_snapshot",
    )
)


def read_input(request: Request, node: Node) -> None:
    """
    ``input``: a string or a list of items.

    Raises:
        ClientError: an item of the wrong shape.
        Unsupported: an item without which the request means something else.
    """
    value = node.get("input")
    if isinstance(value, str):
        request.items.append(Message("user", [Text(value, path="input")], path="input"))
        return
    for item in node.nodes("input"):
        _read_item(request, item)


def _read_item(request: Request, node: Node) -> None:
    kind = node.text("type")
    if kind == "message" or (not kind and node.has("role")):
        request.items.append(_read_message(request, node))
    elif kind == "reasoning":
        request.items.append(_read_reasoning(node))
    elif kind in _CALLS:
        _read_call(request, node, _CALLS[kind])
    elif kind in _RESULTS:
        _read_result(request, node, _RESULTS[kind])
    elif kind in COMPACTIONS:
        _read_compaction(request, node)
    elif kind == "additional_tools":
        read_tools(request, node)
    elif kind == "configuration_update":
        _read_update(request, node)
    elif kind in _TRACES:
        request.drop(node.path)
    elif not kind:
        refuse(node.at("type"), "is missing")
    elif kind == "item_reference":
        raise Unsupported(node.path)
    else:
        _read_words(request, node)


def _read_compaction(request: Request, node: Node) -> None:
    blob = node.text("encrypted_content")
    if not blob:  # a compaction whose summary is elsewhere
        request.drop(node.path)
        return
    text = compacted_text(blob)
    if text is None:
        raise Unsupported(node.path)
    note = Text(SUMMARY_MARK + text, path=node.path)
    request.items.append(Message("user", [note], path=node.path))


def _read_update(request: Request, node: Node) -> None:
    """The effort of all turns from here: the answer has the last one."""
    reasoning = node.maybe("reasoning")
    effort = reasoning.text("effort") if reasoning is not None else ""
    if effort:
        request.thinking = Thinking(effort)
    else:
        request.drop(node.path)


def _read_words(request: Request, node: Node) -> None:
    """
    Read an item that no other protocol has as a user message with its text.

    The rest of it is dropped. One such item is ``agent_message``: the text of another
    agent of the client, with its author.
    """
    content = node.get("content")
    said: list[Part] = []
    if isinstance(content, str):
        said = [Text(content, path=node.at("content"))]
    elif isinstance(content, list):
        said = read_content(request, node, "content")
    if not any(not isinstance(part, Text) or part.text.strip() for part in said):
        request.drop(node.path)
        return
    author = node.get("author")
    if isinstance(author, str) and author:
        said = _marked(AGENT_MARK.format(author), said, node.path)
    request.items.append(Message("user", said, path=node.path))


def _marked(mark: str, parts: list[Part], path: str) -> list[Part]:
    """*parts* after a line that names their source."""
    if isinstance(parts[0], Text):
        first = Text(f"{mark}\n\n{parts[0].text}", parts[0].cache, parts[0].path)
        return [first, *parts[1:]]
    return [Text(mark, path=path), *parts]


def _read_message(request: Request, node: Node) -> Message:
    role = node.one_of("role", "user", "assistant", "system", "developer")
    if not role:
        refuse(node.at("role"), "is missing")
    parts = read_content(request, node, "content")
    phase = node.text("phase")
    return Message(role, parts, phase, node.path)  # type: ignore[arg-type]  # checked


def _read_reasoning(node: Node) -> Reasoning:
    texts = [part.text("text") for part in node.nodes("summary")]
    if not texts:
        texts = [part.text("text") for part in node.nodes("content")]
    item = Reasoning(texts, path=node.path)
    blob = node.text("encrypted_content")
    if blob.startswith(TAG_THINKING):
        item.signature = blob[len(TAG_THINKING) :]
    elif blob.startswith(TAG_REDACTED):
        item.redacted = blob[len(TAG_REDACTED) :]
    elif blob.startswith(opaque.TAG):
        item.opaque = opaque.unpacked(blob)
    else:
        item.blob, item.id = blob, node.text("id")
    return item


def _read_call(request: Request, node: Node, kind: Kind) -> None:
    call_id = node.text("call_id") or node.text("id")
    if not call_id:
        if kind == "tool_search":  # the vendor's own search has no call id
            request.drop(node.path)
            return
        refuse(node.at("call_id"), "must be a non-empty string")
    name: str = kind
    if kind in ("function", "custom"):
        name = node.need_text("name")
    arguments = _read_arguments(node, kind)
    call = ToolCall(call_id, name, arguments, kind, node.text("namespace"))
    call.path = node.path
    request.items.append(call)


def _read_arguments(node: Node, kind: Kind) -> str:
    if kind == "custom":
        return node.text("input")
    if kind == "local_shell":
        return dumped(local_shell_fields(node.need("action").value))
    if kind == "shell":
        action = node.need("action").value
        return dumped(
            {key: value for key, value in action.items() if value is not None}
        )
    if kind == "apply_patch":
        return dumped({"operation": node.need("operation").value})
    value = node.get("arguments")
    # Some clients, and every tool search, send the object itself.
    return dumped(value) if isinstance(value, dict) else node.text("arguments")


def _read_result(request: Request, node: Node, kind: Kind) -> None:
    call_id = node.text("call_id") or node.text("id")
    if not call_id:
        if kind == "tool_search":
            read_tools(request, node)
            request.drop(node.path)
            return
        refuse(node.at("call_id"), "must be a non-empty string")
    result = ToolResult(call_id, [], kind=kind, path=node.path)
    if kind == "shell":
        result.parts = [Text(_shell_text(node), path=node.path)]
    elif kind == "tool_search":
        read_tools(request, node)
        found = [tool.text("name") or tool.text("type") for tool in node.nodes("tools")]
        text = f"Tools loaded: {', '.join(found)}" if found else "No tools found"
        result.parts = [Text(text, path=node.path)]
    else:
        result.parts = _read_output(request, node)
        result.is_error = kind == "apply_patch" and node.text("status") == "failed"
    request.items.append(result)


def _read_output(request: Request, node: Node) -> list[Part]:
    value = node.get("output")
    if isinstance(value, dict):
        if value.get("type") == "computer_screenshot":
            shot = node.need("output")
            return [read_image(shot, shot.text("image_url"), "image_url")]
        return [Text(dumped(value), path=node.path)]
    return read_content(request, node, "output")


def _shell_text(node: Node) -> str:
    """The outputs of a shell call's commands as one text."""
    if isinstance(node.get("output"), str):
        return node.text("output")
    lines: list[str] = []
    for output in node.nodes("output"):
        said = (output.text("stdout"), output.text("stderr"))
        lines += [text.rstrip("\n") for text in said if text]
        outcome = output.maybe("outcome")
        if outcome is not None and outcome.text("type") == "timeout":
            lines.append("[timed out]")
        elif outcome is not None and outcome.get("exit_code"):
            lines.append(f"[exit code {outcome.get('exit_code')}]")
    return "\n".join(lines)


# ---------------------------------------------------------------- writing


def write_input(
    request: Request, items: list[Item], options: Options, names: Tools
) -> list[dict[str, Any]]:
    """
    Neutral *items*, calls and results paired, as input items.

    Raises:
        Unsupported: a part that Responses does not take.
    """
    done: list[dict[str, Any]] = []
    for item in items:
        match item:
            case Message(role="assistant"):
                done += _write_assistant(item, request)
            case Message():
                parts = write_parts(item.parts, request, options)
                if not parts:
                    continue
                done.append({"type": "message", "role": item.role, "content": parts})
            case Reasoning():
                if item.blob:
                    done.append(_write_reasoning(item))
                else:
                    request.drop(item.path)
            case ToolCall():
                _drop_mark(request, item.cache)
                done.append(_write_call(item, names))
            case ToolResult():
                done.append(_write_result(item, request, options))
    return done


def unmark(request: Request) -> None:
    """Remove the cache marks of all parts, for servers that refuse them."""
    for item in request.items:
        for part in item.parts if isinstance(item, (Message, ToolResult)) else ():
            if not isinstance(part, (Refusal, Audio)) and part.cache is not None:
                part.cache = None
                request.drop(request.path("cache"))


def _drop_mark(request: Request, cache: CacheTtl | None) -> None:
    if cache is not None:
        request.drop(request.path("cache"))


def _write_assistant(message: Message, request: Request) -> list[dict[str, Any]]:
    """One item per part: the plain text of an assistant needs no id."""
    done: list[dict[str, Any]] = []
    for part in message.parts:
        item: dict[str, Any] = {"type": "message", "role": "assistant"}
        match part:
            case Text():
                _drop_mark(request, part.cache)
                item["content"] = part.text
            case Refusal():  # has only the long form, which needs an id
                known = hashlib.sha256(part.text.encode("utf-8", "replace"))
                item["id"] = f"msg_{known.hexdigest()[:32]}"
                item["status"] = "completed"
                item["content"] = [{"type": "refusal", "refusal": part.text}]
            case _:
                raise Unsupported(part.path or message.path)
        if message.phase:
            item["phase"] = message.phase
        done.append(item)
    return done


def _write_reasoning(item: Reasoning) -> dict[str, Any]:
    texts = [{"type": "summary_text", "text": text} for text in item.texts if text]
    form: dict[str, Any] = {"type": "reasoning", "summary": texts}
    if item.id:
        form["id"] = item.id
    return {**form, "encrypted_content": item.blob}


def _write_call(call: ToolCall, names: Tools) -> dict[str, Any]:
    body = {"call_id": call.call_id, "name": call_name(call, names)}
    if call.kind == "custom":
        return {"type": "custom_tool_call", **body, "input": call.arguments}
    arguments = call.arguments if call.arguments.strip() else "{}"
    return {"type": "function_call", **body, "arguments": arguments}


def _write_result(
    result: ToolResult, request: Request, options: Options
) -> dict[str, Any]:
    _drop_mark(request, result.cache)
    parts = marked_error(result.parts) if result.is_error else result.parts
    text = plain_text(parts)
    custom = result.kind == "custom"
    return {
        "type": "custom_tool_call_output" if custom else "function_call_output",
        "call_id": result.call_id,
        "output": write_parts(parts, request, options) if text is None else text,
    }
