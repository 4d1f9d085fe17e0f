"""
Chat messages ⇄ neutral items.

Written, a run of assistant items with calls is one message, and every tool message
follows it directly; images that tools gave back come in a user message behind them.
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.chat.content import (
    is_blank,
    only_text,
    read_content,
    write_content,
)
from gateway.protocols.json_reader import Node, Unsupported, dumped, refuse
from gateway.protocols.model import (
    File,
    Image,
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
from gateway.protocols.opaque import Collected
from gateway.protocols.options import Options
from gateway.protocols.responses.content import marked_error
from gateway.protocols.tool_carrier import wrap
from gateway.protocols.toolset import call_name

_ROLES = ("user", "assistant", "system", "developer", "tool", "function")


def read_messages(request: Request, node: Node) -> None:
    """
    ``messages``.

    Raises:
        ClientError: a message of the wrong shape.
        Unsupported: a part that cannot be carried, or is unknown.
    """
    legacy: dict[str, str] = {}  # function name → id of its latest call
    for message in node.nodes("messages"):
        role = message.one_of("role", *_ROLES)
        if not role:
            refuse(message.at("role"), "is missing")
        if role == "assistant":
            _read_assistant(request, message, legacy)
        elif role == "tool":
            parts = read_content(message)
            call_id = message.need_text("tool_call_id")
            request.items.append(ToolResult(call_id, parts, path=message.path))
        elif role == "function":
            name = message.need_text("name")
            result = ToolResult(legacy.get(name, name), read_content(message))
            result.path = message.path
            request.items.append(result)
        else:
            parts = read_content(message)
            said = Message(role, parts, path=message.path)  # type: ignore[arg-type]
            request.items.append(said)


def _read_assistant(request: Request, node: Node, legacy: dict[str, str]) -> None:
    if node.has("audio"):
        raise Unsupported(node.at("audio"))
    for key in ("reasoning_content", "reasoning"):
        thought = node.get(key)
        if isinstance(thought, str) and thought:
            request.items.append(Reasoning([thought], path=node.at(key)))
            break
    parts = read_content(node)
    refusal = node.text("refusal")
    if refusal:
        parts.append(Refusal(refusal, node.at("refusal")))
    calls = [_read_call(call) for call in node.nodes("tool_calls")]
    function = node.maybe("function_call")
    if function is not None:
        calls.append(_read_legacy_call(function, len(request.items), legacy))
    if any(not isinstance(part, Text) or part.text for part in parts):
        request.items.append(Message("assistant", parts, path=node.path))
    elif not calls:
        request.items.append(Message("assistant", [], path=node.path))
    request.items += calls


def _read_call(node: Node) -> ToolCall:
    call_id = node.need_text("id")
    if node.text("type") == "custom":
        source = node.need("custom")
        text, name = source.text("input"), source.need_text("name")
        return ToolCall(call_id, name, text, "custom", path=node.path)
    source = node.need("function")
    name = source.need_text("name")
    return ToolCall(call_id, name, _read_arguments(source), path=node.path)


def _read_arguments(node: Node) -> str:
    value = node.get("arguments")
    # Some servers' own clients send the object instead of its text.
    return dumped(value) if isinstance(value, dict) else node.text("arguments")


def _read_legacy_call(node: Node, position: int, legacy: dict[str, str]) -> ToolCall:
    name = node.need_text("name")
    legacy[name] = f"call_{position}"
    return ToolCall(legacy[name], name, _read_arguments(node), path=node.path)


# ---------------------------------------------------------------- writing


class ChatTurns:
    """The messages of a Chat body while they are written."""

    def __init__(self, request: Request, options: Options, names: Tools) -> None:
        self.messages: list[dict[str, Any]] = []
        self._request = request
        self._options = options
        self._names = names
        self._run: list[Message | ToolCall] = []  # assistant items not yet written
        self._thoughts: list[str] = []
        self._thinks_back = options.thinking_back or options.chat_reasoning
        self._own = Collected()  # what the server wants back with this turn
        self._shown: list[dict[str, Any]] = []  # images of tools, not yet written

    def add(self, item: Item) -> None:
        """
        Write one item.

        Raises:
            Unsupported: a part that Chat does not take there.
        """
        if isinstance(item, Reasoning):
            self._end_results()
            self._think(item)
        elif isinstance(item, ToolCall):
            self._end_results()
            self._drop_mark(item.cache)
            self._run.append(item)
        elif isinstance(item, ToolResult):
            self._end_run()
            self._result(item)
        elif item.role == "assistant":
            self._end_results()
            self._run.append(item)
        else:
            self.finish()
            self._say(item)

    def finish(self) -> None:
        """Write what is still held."""
        self._end_run()
        self._end_results()

    def _say(self, message: Message) -> None:
        role: str = message.role
        if role == "user":
            content = write_content(message.parts, self._request, self._options)
            self.messages.append({"role": role, "content": content})
            return
        for part in message.parts:
            self._drop_mark(getattr(part, "cache", None))
        text = only_text(message.parts, message.path, "\n\n")
        role = self._options.chat_system_role
        if text.strip():
            self.messages.append({"role": role, "content": text})

    def _think(self, item: Reasoning) -> None:
        if item.opaque is not None:
            self._own.add(item.opaque.fields)
            return
        if self._thinks_back and item.texts:
            self._thoughts += item.texts
        else:
            self._request.drop(item.path)

    def _drop_mark(self, cache: str | None) -> None:
        if cache is not None:
            self._request.drop(self._request.path("cache"))

    def _end_run(self) -> None:
        """Write the run: its texts before the calls, the last one with them."""
        run = [item for item in self._run if not _says_nothing(item)]
        self._run = []
        calls = [item for item in run if isinstance(item, ToolCall)]
        said = [item for item in run if isinstance(item, Message)]
        first = run.index(calls[0]) if calls else len(run)
        alone = said if not calls else said[: max(0, first - 1)]
        thoughts: list[str] = []
        if calls:  # whose message is the one that servers want it on
            thoughts, self._thoughts = self._thoughts, []
        for message in alone:
            self.messages.append(self._assistant([message]))
        if calls:
            self._thoughts = thoughts
            last = self._assistant(said[len(alone) :])
            if self._thinks_back:
                last.setdefault("reasoning_content", "")
            last["tool_calls"] = [self._call(call) for call in calls]
            self.messages.append(last)
        elif self._thoughts:
            text, self._thoughts = "\n\n".join(self._thoughts), []
            if self.messages and self.messages[-1]["role"] == "assistant":
                self.messages[-1].setdefault("reasoning_content", text)
        if self.messages and self.messages[-1]["role"] == "assistant":
            self.messages[-1] |= self._own.taken()

    def _assistant(self, said: list[Message]) -> dict[str, Any]:
        texts: list[str] = []
        refusals: list[str] = []
        for message in said:
            if message.phase:
                self._request.drop(f"{message.path}.phase")
            for part in message.parts:
                self._drop_mark(getattr(part, "cache", None))
            spoken: list[Part] = [
                part for part in message.parts if not isinstance(part, Refusal)
            ]
            texts.append(only_text(spoken, message.path))
            refusals += [p.text for p in message.parts if isinstance(p, Refusal)]
        text = "\n\n".join(text for text in texts if text)
        form: dict[str, Any] = {"role": "assistant", "content": text or None}
        if refusals:
            form["refusal"] = "".join(refusals)
        if self._thoughts:
            form["reasoning_content"] = "\n\n".join(self._thoughts)
            self._thoughts = []
        return form

    def _call(self, call: ToolCall) -> dict[str, Any]:
        return {
            "id": call.call_id,
            "type": "function",
            "function": {
                "name": call_name(call, self._names),
                "arguments": wrap(call.kind, call.arguments),
            },
            **call.own,
        }

    def _result(self, result: ToolResult) -> None:
        self._drop_mark(result.cache)
        parts = marked_error(result.parts) if result.is_error else result.parts
        texts: list[str] = []
        media: list[Part] = []
        for part in parts:
            if isinstance(part, (Text, Refusal)):
                self._drop_mark(getattr(part, "cache", None))
                texts.append(part.text)
            else:
                media.append(part)
        self.messages.append(
            {
                "role": "tool",
                "tool_call_id": result.call_id,
                "content": "\n".join(texts),
            }
        )
        for part in media:
            self._show(part, result.call_id)

    def _show(self, part: Part, call_id: str) -> None:
        word = {Image: "image", File: "file"}.get(type(part), "sound")
        note = f"[{word} returned by tool call {call_id}]"
        self._shown.append({"type": "text", "text": note})
        content = write_content([part], self._request, self._options)
        if isinstance(content, str):
            self._shown.append({"type": "text", "text": content})
        else:
            self._shown += content

    def _end_results(self) -> None:
        if self._shown:
            self.messages.append({"role": "user", "content": self._shown})
            self._shown = []


def _says_nothing(item: Message | ToolCall) -> bool:
    """Whether *item* is a turn of the assistant without a word: servers refuse it."""
    return isinstance(item, Message) and all(map(is_blank, item.parts))
