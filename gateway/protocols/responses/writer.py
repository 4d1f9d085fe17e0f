"""
Writes the events of ``protocols.events`` as a Responses stream or body.

Rule 1: ``sequence_number`` counts every event from 0, without gaps.
Rule 2: ``output_item.done`` and the terminal hold whole items; Codex reads only
        these.
Rule 3: adjacent texts and refusals are parts of one message item, which closes
        when another item begins.

    created in_progress (added body done)* completed|incomplete

Source: the OpenAI API reference; Open Responses 2026-04-24, except its final
``[DONE]``: as at the vendor itself, nothing follows the terminal event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.protocols.codec import AnswerSettings
from gateway.protocols.compaction import compact_answer, compaction_item
from gateway.protocols.delta_template import Say
from gateway.protocols.event_json import dump, joined, quote
from gateway.protocols.events import (
    Annotation,
    ArgsDelta,
    CallOpen,
    Compaction,
    Delta,
    Event,
    Finish,
    ItemClose,
    ItemOpen,
    ReasoningDelta,
    RefusalDelta,
    SearchFound,
    SearchOpen,
    Signature,
    TextDelta,
)
from gateway.protocols.model import TAG_REDACTED, TAG_THINKING
from gateway.protocols.protocol import response_id_of
from gateway.protocols.responses.open_part import (
    ARGUMENT_KEYS,
    OpenMessage,
    OpenPart,
    reasoning_item,
    tool_call_item,
)
from gateway.protocols.responses.response import (
    base,
    citation,
    ended,
    message_item,
    part,
    search_item,
    usage_object,
)
from gateway.protocols.tool_carrier import RAW_KEY, as_object, call_item

_TAGS = {"signature": TAG_THINKING, "redacted": TAG_REDACTED, "blob": "", "opaque": ""}


def encrypted_of(proof: Signature) -> str:
    """The ``encrypted_content`` that brings the proof back on the next turn."""
    return _TAGS[proof.form] + proof.value


class ResponsesWriter:
    """One answer for a Responses client."""

    def __init__(self, settings: AnswerSettings) -> None:
        self.response_id = response_id_of(settings.request_id)
        self.terminal = b""
        self._settings = settings
        self._base = base(settings, self.response_id)
        self._ended: dict[str, Any] = {}
        self._number = -1
        self._output: list[dict[str, Any] | None] = []
        self._message: OpenMessage | None = None
        self._open: dict[int, OpenPart] = {}
        self._summary = ""

    def write(self, event: Event) -> bytes:
        """See ``AnswerWriter``."""
        write = _WRITE.get(type(event))
        if self._number >= 0:
            return write(self, event) if write else b""
        begun = self._event("response.created", response=self._base)
        begun += self._event("response.in_progress", response=self._base)
        return begun + write(self, event) if write else begun

    def repeats(self, event: Delta) -> Say | None:
        """See ``AnswerWriter``."""
        opened = self._open[event.key]
        if isinstance(event, ArgsDelta) and opened.kind not in ARGUMENT_KEYS:
            return None
        keep, form = opened.pieces.append, opened.form

        def say(strings: list[bytes], text: str) -> bytes:
            keep(text)
            first = self._number + 1
            self._number += len(strings)
            return b"".join([form % numbered for numbered in enumerate(strings, first)])

        return say

    def _event(self, name: str, /, **members: Any) -> bytes:
        self._number += 1
        data = {"type": name, "sequence_number": self._number, **members}
        return b"event: %b\ndata: %b\n\n" % (name.encode(), dump(data))

    # ------------------------------------------------------------ deltas

    def _delta(self, event: Delta) -> bytes:
        opened = self._open[event.key]
        opened.pieces.append(event.text)
        self._number += 1
        return opened.form % (self._number, quote(event.text)[1:-1])

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        opened = self._open[event.key]
        if opened.pieces:
            return self._delta(event)
        empty = {"type": "summary_text", "text": ""}
        begun = self._event(
            "response.reasoning_summary_part.added", **opened.where, part=empty
        )
        return begun + self._delta(event)

    def _args(self, event: ArgsDelta) -> bytes:
        opened = self._open[event.key]
        if opened.kind in ARGUMENT_KEYS:
            return self._delta(event)
        opened.pieces.append(event.text)  # a built-in tool's action is sent whole
        return b""

    def _signature(self, event: Signature) -> bytes:
        self._open[event.key].more = encrypted_of(event)
        return b""

    def _annotation(self, event: Annotation) -> bytes:
        opened = self._open[event.key]
        message, cited = opened.more, citation(event)
        cites = message.content[opened.where["content_index"]]["annotations"]
        cites.append(cited)
        return self._event(
            "response.output_text.annotation.added",
            **opened.where,
            annotation_index=len(cites) - 1,
            annotation=cited,
        )

    # ------------------------------------------------------------ openings

    def _new(self, kind: str, prefix: str, key: int) -> OpenPart:
        """A part with an output index of its own."""
        index = len(self._output)
        self._output.append(None)
        opened = OpenPart(kind, index, f"{prefix}_{self._settings.seed}{index:02x}")
        self._open[key] = opened
        return opened

    def _added(self, index: int, item: dict[str, Any]) -> bytes:
        return self._event("response.output_item.added", output_index=index, item=item)

    def _done(self, index: int, item: dict[str, Any]) -> bytes:
        self._output[index] = item
        return self._event("response.output_item.done", output_index=index, item=item)

    def _item(self, event: ItemOpen) -> bytes:
        if event.kind != "reasoning":
            return self._part(event)
        out = self._leave_message()
        opened = self._new("reasoning", "rs", event.key)
        opened.deltas("response.reasoning_summary_text.delta", summary_index=0)
        item = reasoning_item(opened, "in_progress")
        return out + self._added(opened.index, item)

    def _part(self, event: ItemOpen) -> bytes:
        """A text or a refusal: a part of the open message, or of a new one."""
        out, message = b"", self._message
        if message is None:
            index = len(self._output)
            self._output.append(None)
            message = OpenMessage(index, f"msg_{self._settings.seed}{index:02x}")
            self._message = message
            out = self._added(index, message_item(message.id, "in_progress", []))
        opened = OpenPart(event.kind, message.index, message.id)
        self._open[event.key] = opened
        opened.more = message
        name = "output_text" if event.kind == "text" else "refusal"
        opened.deltas(f"response.{name}.delta", content_index=len(message.content))
        empty = part(event.kind, "", [])
        message.content.append(empty)
        message.open_parts += 1
        return out + self._event(
            "response.content_part.added", **opened.where, part=empty
        )

    def _call(self, event: CallOpen) -> bytes:
        out = self._leave_message()
        if event.kind not in ARGUMENT_KEYS:
            opened = OpenPart(event.kind, -1, "")
            opened.more = event
            self._open[event.key] = opened
            return out
        return out + self._open_call(event)

    def _open_call(self, event: CallOpen) -> bytes:
        custom = event.kind == "custom"
        opened = self._new(event.kind, "ctc" if custom else "fc", event.key)
        opened.more = event
        name = "custom_tool_call_input" if custom else "function_call_arguments"
        opened.deltas(f"response.{name}.delta")
        return self._added(opened.index, tool_call_item(opened, "in_progress", ""))

    def _search(self, event: SearchOpen) -> bytes:
        out = self._leave_message()
        opened = self._new("search", "ws", event.key)
        item = search_item(opened.id, "in_progress", None)
        out += self._added(opened.index, item)
        for state in ("in_progress", "searching"):
            out += self._event(f"response.web_search_call.{state}", **opened.where)
        return out

    # ------------------------------------------------------------ closings

    def _close(self, event: ItemClose) -> bytes:
        opened = self._open.pop(event.key)
        if opened.kind in ("text", "refusal"):
            return self._close_part(opened, event.status)
        if opened.kind == "reasoning":
            return self._close_reasoning(opened, event.status)
        return self._close_call(event, opened)

    def _close_part(self, opened: OpenPart, status: str) -> bytes:
        message: OpenMessage = opened.more
        at, text = opened.where["content_index"], joined(opened.pieces)
        annotations = message.content[at].get("annotations", [])
        whole = message.content[at] = part(opened.kind, text, annotations)
        if opened.kind == "text":
            out = self._event(
                "response.output_text.done", **opened.where, text=text, logprobs=[]
            )
        else:
            out = self._event("response.refusal.done", **opened.where, refusal=text)
        out += self._event("response.content_part.done", **opened.where, part=whole)
        message.open_parts -= 1
        message.status = status
        if message.left and not message.open_parts:
            out += self._close_message(message)
        return out

    def _leave_message(self) -> bytes:
        """Another item begins: the open message is complete."""
        message, self._message = self._message, None
        if message is None:
            return b""
        message.left = True
        return b"" if message.open_parts else self._close_message(message)

    def _close_message(self, message: OpenMessage) -> bytes:
        item = message_item(message.id, message.status, message.content)
        return self._done(message.index, item)

    def _close_reasoning(self, opened: OpenPart, status: str) -> bytes:
        out = b""
        if opened.pieces:
            text = joined(opened.pieces)
            out = self._event(
                "response.reasoning_summary_text.done", **opened.where, text=text
            )
            whole = {"type": "summary_text", "text": text}
            out += self._event(
                "response.reasoning_summary_part.done", **opened.where, part=whole
            )
        return out + self._done(opened.index, reasoning_item(opened, status))

    def _close_call(self, event: ItemClose, opened: OpenPart) -> bytes:
        if opened.kind not in ARGUMENT_KEYS:
            return self._close_built_in(event, opened)
        out, field = b"", ARGUMENT_KEYS[opened.kind]
        if event.status == "completed":
            if not opened.pieces and field == "arguments":
                self._open[event.key] = opened
                out = self._delta(ArgsDelta(event.key, "{}"))
                del self._open[event.key]
            text = joined(opened.pieces)
            if field == "arguments":
                out += self._event(
                    "response.function_call_arguments.done",
                    **opened.where,
                    arguments=text,
                    name=opened.more.name,
                )
            else:
                out += self._event(
                    "response.custom_tool_call_input.done", **opened.where, input=text
                )
        item = tool_call_item(opened, event.status, joined(opened.pieces))
        return out + self._done(opened.index, item)

    def _close_built_in(self, event: ItemClose, opened: OpenPart) -> bytes:
        """
        Close a call of a tool that is built into Responses.

        Arguments that are not an action remain a function call. The client answers
        it with an error that the model can read.
        """
        call: CallOpen = opened.more
        text = joined(opened.pieces)
        if event.status == "incomplete" or RAW_KEY in as_object(text):
            out = self._open_call(call._replace(kind="function"))
            if text:
                out += self._delta(ArgsDelta(event.key, text))
            return out + self._close(event)
        index = len(self._output)
        self._output.append(None)
        id = f"{call.kind[:2]}c_{self._settings.seed}{index:02x}"
        item = {"id": id, **call_item(call.tool, call.call_id, text)}
        out = self._added(index, {**item, "status": "in_progress"})
        return out + self._done(index, {**item, "status": "completed"})

    def _found(self, event: SearchFound) -> bytes:
        opened = self._open.pop(event.key)
        out = self._event("response.web_search_call.completed", **opened.where)
        item = search_item(opened.id, event.status, event)
        return out + self._done(opened.index, item)

    def _compaction(self, event: Compaction) -> bytes:
        self._summary = event.text
        index = len(self._output)
        self._output.append(None)
        item = compaction_item(event.text, f"cmp_{self._settings.seed}{index:02x}")
        return self._added(index, item) + self._done(index, item)

    # ------------------------------------------------------------ the end

    def _finish(self, event: Finish) -> bytes:
        out = self._leave_message()
        now = int(self._settings.now())
        self._ended = ended(self._base, event, self._output, now)
        name = f"response.{self._ended['status']}"
        self.terminal = self._event(name, response=self._ended)
        return out

    def body(self, events: list[Event]) -> dict[str, Any]:
        """See ``AnswerWriter``."""
        for event in events:
            self.write(event)
        if self._settings.asked.compaction != "endpoint":
            return self._ended
        finish = events[-1]
        return compact_answer(
            self._settings.client_body,
            self._summary,
            response_id=self.response_id,
            item_id=f"cmp_{self._settings.seed}00",
            created_at=self._settings.created_at,
            usage=usage_object(finish.usage) if isinstance(finish, Finish) else None,
        )


_WRITE: dict[type, Callable[[ResponsesWriter, Any], bytes]] = {
    TextDelta: ResponsesWriter._delta,
    RefusalDelta: ResponsesWriter._delta,
    ReasoningDelta: ResponsesWriter._reasoning,
    ArgsDelta: ResponsesWriter._args,
    ItemOpen: ResponsesWriter._item,
    CallOpen: ResponsesWriter._call,
    SearchOpen: ResponsesWriter._search,
    Signature: ResponsesWriter._signature,
    Annotation: ResponsesWriter._annotation,
    SearchFound: ResponsesWriter._found,
    ItemClose: ResponsesWriter._close,
    Compaction: ResponsesWriter._compaction,
    Finish: ResponsesWriter._finish,
}
