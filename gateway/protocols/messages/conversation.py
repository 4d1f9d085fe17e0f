"""Messages turns ⇄ neutral items."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from gateway.protocols import opaque
from gateway.protocols.call_ids import wide
from gateway.protocols.filler_turns import EMPTY, OPENING
from gateway.protocols.json_reader import Node, Unsupported, dumped, parsed, refuse
from gateway.protocols.messages.content import (
    read_mark,
    read_part,
    read_parts,
    write_blocks,
    write_mark,
)
from gateway.protocols.model import (
    TAG_OPENAI,
    Item,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolCall,
    ToolResult,
    Tools,
)
from gateway.protocols.model_traits import takes_system_turns
from gateway.protocols.options import Options
from gateway.protocols.tool_carrier import as_arguments, as_object, wrap
from gateway.protocols.toolset import call_name

_SERVER_BLOCKS = ("server_tool_use", "mcp_tool_use", "mcp_tool_result")


def read_messages(request: Request, node: Node) -> None:
    """
    ``messages``.

    Raises:
        ClientError: a turn or block of the wrong shape or on the wrong side.
        Unsupported: a block that cannot be carried, or is unknown.
    """
    for turn in node.nodes("messages"):
        role = turn.one_of("role", "user", "assistant", "system")
        if not role:
            refuse(turn.at("role"), "is missing")
        _read_turn(request, turn, role)


def _read_turn(request: Request, turn: Node, role: str) -> None:
    value = turn.get("content")
    open_message: Message | None = None

    def say(parts: list[Part], path: str) -> None:
        nonlocal open_message
        if open_message is None:
            open_message = Message(role, [], path=path)  # type: ignore[arg-type]
            request.items.append(open_message)
        open_message.parts += parts

    if isinstance(value, str):
        say([Text(value, path=turn.at("content"))], turn.path)
        return
    for block in turn.nodes("content"):
        kind = block.text("type")
        item = _read_item(request, block, kind, role)
        if item is not None:
            open_message = None
            request.items.append(item)
        elif kind in _SERVER_BLOCKS or _server_result(kind):
            request.drop(block.path)
        elif kind == "compaction":
            say([Text(block.text("content"), read_mark(block), block.path)], turn.path)
        elif kind not in ("thinking", "redacted_thinking"):
            say(read_part(request, block), turn.path)


def _server_result(kind: str) -> bool:
    """Whether *kind* is what one of the vendor's own tools gave back."""
    return kind.endswith("_tool_result") and kind != "tool_result"


def _read_item(request: Request, node: Node, kind: str, role: str) -> Item | None:
    """The item that a block is by itself; None for parts and what is left out."""
    sides = {"tool_result": "user", "tool_use": "assistant"}
    if kind in sides and role != sides[kind]:
        refuse(node.path, f"must stand in a turn of the {sides[kind]}")
    if kind == "tool_use":
        value = node.get("input")
        arguments = as_arguments(value) if isinstance(value, dict) else dumped(value)
        call_id = wide(node.need_text("id"))
        call = ToolCall(call_id, node.need_text("name"), arguments)
        if value is None:
            call.arguments = ""
        call.cache, call.path = read_mark(node), node.path
        return call
    if kind == "tool_result":
        parts = read_parts(request, node, "content")
        result = ToolResult(wide(node.need_text("tool_use_id")), parts)
        result.is_error = bool(node.flag("is_error"))
        result.cache, result.path = read_mark(node), node.path
        return result
    if kind == "thinking":
        return _read_thinking(node)
    if kind == "redacted_thinking":
        return Reasoning(redacted=node.text("data"), path=node.path)
    return None


def _read_thinking(node: Node) -> Reasoning:
    text = node.text("thinking")
    item = Reasoning([text] if text else [], path=node.path)
    signature = node.text("signature")
    ours = openai_proof(signature)
    if ours is not None:
        item.id, item.blob = ours
    elif signature.startswith(opaque.TAG):
        item.opaque = opaque.unpacked(signature)
    else:
        item.signature = signature
    return item


def openai_proof(signature: str) -> tuple[str, str] | None:
    """Id and ``encrypted_content`` in a signature of ours; None for another."""
    if not signature.startswith(TAG_OPENAI):
        return None
    packed = signature[len(TAG_OPENAI) :]
    try:
        text = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
    value = parsed(text)
    if not isinstance(value, dict):
        return None
    known, blob = value.get("id"), value.get("encrypted_content")
    if isinstance(known, str) and isinstance(blob, str):
        return known, blob
    return None


def openai_signature(item_id: str, encrypted_content: str) -> str:
    """The way back of ``openai_proof``."""
    text = dumped({"id": item_id, "encrypted_content": encrypted_content})
    packed = base64.urlsafe_b64encode(text.encode()).decode()
    return TAG_OPENAI + packed.rstrip("=")


# ---------------------------------------------------------------- writing


class MessagesTurns:
    """
    The turns of a Messages body while they are written.

    ``system`` grows by what must stand before the conversation; neighbours of one
    role are one turn; the first turn is the user's.
    """

    def __init__(self, request: Request, options: Options, names: Tools) -> None:
        self.system: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self._request = request
        self._options = options
        self._names = names
        self._thinking_back = options.thinking_back
        self._system_turns = takes_system_turns(request.model, options)

    def add(self, item: Item) -> None:
        """
        Write one item.

        Raises:
            Unsupported: a part that Messages does not take there.
        """
        match item:
            case Message(role="assistant"):
                self._only_text(item)
                self._say("assistant", self._blocks(item.parts))
            case Message(role="user"):
                blocks = self._blocks(item.parts)
                if not blocks and self.messages:
                    blocks = [{"type": "text", "text": EMPTY}]
                self._say("user", blocks)
            case Message():
                self._only_text(item)
                self._direct(self._blocks(item.parts))
            case Reasoning():
                self._think(item)
            case ToolCall():
                self._call(item)
            case ToolResult():
                self._result(item)

    def finish(self) -> None:
        """Bring the ends of the conversation into the form that Messages wants."""
        if not self.messages:
            return
        if self.messages[0]["role"] != "user":
            opening = {"type": "text", "text": OPENING}
            self.messages.insert(0, {"role": "user", "content": [opening]})
        last = self.messages[-1]
        if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
            block = last["content"][-1]  # trailing blanks of a prefill are refused
            block["text"] = block["text"].rstrip()

    def _blocks(self, parts: list[Part]) -> list[dict[str, Any]]:
        return write_blocks(parts, self._request, self._options)

    def _only_text(self, message: Message) -> None:
        if message.phase:
            self._request.drop(f"{message.path}.phase")
        for part in message.parts:
            if not isinstance(part, (Text, Refusal)):
                raise Unsupported(part.path or message.path)

    def _say(self, role: str, blocks: list[dict[str, Any]]) -> None:
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": role, "content": blocks})

    def _direct(self, blocks: list[dict[str, Any]]) -> None:
        """A system or developer message: in its place if it may stand there."""
        after_user = bool(self.messages) and self.messages[-1]["role"] != "assistant"
        if after_user and self._system_turns:
            self._say("system", blocks)
        else:
            self.system += blocks

    def _think(self, item: Reasoning) -> None:
        if item.signature:
            text = "\n\n".join(item.texts)
            block = {"type": "thinking", "thinking": text, "signature": item.signature}
        elif item.redacted:
            block = {"type": "redacted_thinking", "data": item.redacted}
        elif self._thinking_back and any(item.texts):
            text = "\n\n".join(item.texts)
            block = {"type": "thinking", "thinking": text, "signature": ""}
        else:
            self._request.drop(item.path)
            return
        self._say("assistant", [block])

    def _call(self, call: ToolCall) -> None:
        block: dict[str, Any] = {
            "type": "tool_use",
            "id": call.call_id,
            "name": call_name(call, self._names),
            "input": as_object(wrap(call.kind, call.arguments)),
        }
        self._say("assistant", [write_mark(block, call.cache)])

    def _result(self, result: ToolResult) -> None:
        block: dict[str, Any] = {
            "type": "tool_result",
            "tool_use_id": result.call_id,
        }
        content = self._blocks(result.parts)
        cache = result.cache
        for part in content:  # one mark at the result's end says the same
            if part.pop("cache_control", None) is not None:
                cache = cache or getattr(result.parts[-1], "cache", None) or "5m"
        if len(content) == 1 and content[0].keys() == {"type", "text"}:
            block["content"] = content[0]["text"]
        else:
            block["content"] = content or ""
        if result.is_error:
            block["is_error"] = True
        self._say("user", [write_mark(block, cache)])
