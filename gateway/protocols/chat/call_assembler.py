"""
The calls of a Chat answer, put together from their fragments.

Rule 1: a call begins with a name, and only there.
Rule 2: ``index`` says which call a fragment belongs to; without it the id does; without
        both it is the last one.
Rule 3: a name that comes again for the same call begins another one if the arguments so
        far are whole; else it is repeated, or more of the name.
Rule 4: a call is opened with its first arguments, or when the next one begins, or at
        the end. Until then its id and the rest of its name may come.

Source: the OpenAI API reference; fragments of Gemini's OpenAI endpoint (whole calls,
all at index 0, ids empty or equal), vLLM, llama.cpp, Ollama (arguments as an object),
and of servers that make a new id for every fragment.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from gateway.errors import UpstreamError
from gateway.protocols.call_arguments import whole, written
from gateway.protocols.delta_template import Growth
from gateway.protocols.event_json import string
from gateway.protocols.events import (
    ArgsDelta,
    CallOpen,
    Event,
    Fail,
    ItemClose,
    Private,
)
from gateway.protocols.json_access import sub
from gateway.protocols.model import Kind
from gateway.protocols.opaque import CALL_MEMBERS, members

_NOTHING = ("", "{}", "null")  # arguments that say nothing


class _PartialCall:
    """One call while its fragments come."""

    __slots__ = ("key", "id", "name", "kind", "own", "pieces", "opened", "closed")

    def __init__(self, key: int) -> None:
        self.key = key
        self.id = ""
        self.name = ""
        self.kind: Kind = "function"
        self.own: dict[str, Any] = {}  # what the server wants back, not emitted yet
        self.pieces: list[str] = []
        self.opened = False
        self.closed = False

    @property
    def text(self) -> str:
        """The arguments so far."""
        return "".join(self.pieces)

    @property
    def whole(self) -> bool:
        """Whether there are arguments, and nothing can follow them."""
        text = self.text
        return bool(text.strip()) and whole(text)


class CallAssembler:
    """
    Args:
        new_key: gives a key that no other part of the answer has.
        declared: the names of the request's tools.
    """

    def __init__(
        self, new_key: Callable[[], int], declared: Container[str] = ()
    ) -> None:
        self._new_key = new_key
        self._declared = declared
        self._calls: list[_PartialCall] = []
        self._by_index: dict[int, _PartialCall] = {}

    @property
    def named(self) -> bool:
        """Whether any call has begun."""
        return any(call.name for call in self._calls)

    def take(self, fragment: dict[str, Any]) -> list[Event]:
        """The events of one fragment."""
        body = sub(fragment, "function") or sub(fragment, "custom")
        name, text = string(body, "name"), _arguments(body)
        out: list[Event] = []
        call = self._call_of(fragment, name, text, out)
        if call is None or call.closed:
            return out
        call.id = call.id or string(fragment, "id")
        if name and name != call.name and not call.opened:
            call.name += name
        if fragment.get("type") == "custom":
            call.kind = "custom"
        call.own |= members(fragment, CALL_MEMBERS)
        if text:
            call.pieces.append(text)
        if call.opened:
            self._emit_own(call, out)
            if text:
                out.append(ArgsDelta(call.key, text))
        elif text and call.name:
            self._open(call, out)
        return out

    def growth(self, fragments: Any, key: int) -> Growth | None:
        """See ``GrowthReader``; of the call *key*."""
        if not (isinstance(fragments, list) and len(fragments) == 1):
            return None
        fragment = fragments[0] if isinstance(fragments[0], dict) else {}
        body = sub(fragment, "function") or sub(fragment, "custom")
        text = body.get("arguments", body.get("input"))
        index = _index(fragment)
        call = None if index is None else self._by_index.get(index)
        if call is None or call.key != key or call.closed or not call.opened:
            return None
        if body.get("name") or members(fragment, CALL_MEMBERS) or call.own:
            return None
        return Growth(text, call.pieces.append) if isinstance(text, str) else None

    def close(self, *, cut: bool) -> list[Event]:
        """
        The answer is at its end; *cut*: by a limit or a filter.

        Arguments that belong to no call would be lost: that is a failure.
        """
        out: list[Event] = []
        for call in self._calls:
            if call.name and not call.opened:
                self._open(call, out)
            if not (call.opened or cut or call.text.strip() in _NOTHING):
                detail = "arguments without the name of a tool"
                return [*out, Fail(UpstreamError("upstream_malformed", detail=detail))]
            if call.opened and not call.closed:
                call.closed = True
                broken = cut and not call.whole
                out.append(ItemClose(call.key, "incomplete" if broken else "completed"))
        return out

    # ------------------------------------------------------------ which call

    def _call_of(
        self, fragment: dict[str, Any], name: str, text: str, out: list[Event]
    ) -> _PartialCall | None:
        """The call that *fragment* belongs to; None for the rest of nothing."""
        index, call_id = _index(fragment), string(fragment, "id")
        call = self._meant(index, call_id, name)
        if call is None:
            if not name and (index is None or not (call_id or text)):
                return None
        elif not name or not call.name:
            return call
        elif _repeats(call, call_id, name, text):
            return None
        elif not self._begins(call, index, call_id, name, text):
            return call
        call = self._new_call(out)
        if index is not None:
            self._by_index[index] = call
        return call

    def _meant(self, index: int | None, call_id: str, name: str) -> _PartialCall | None:
        """The call that index, id or place point at; None for a new one."""
        if index is not None and index in self._by_index:
            return self._by_index[index]
        if index is None or not name:
            same = [call for call in self._calls if call_id and call.id == call_id]
            if same:
                return same[-1]
        if name and (index is not None or call_id):
            return None
        if index is not None and call_id:
            return None  # its name may follow
        last = self._calls[-1] if self._calls else None
        return None if index is not None and last and last.whole else last

    def _begins(
        self, call: _PartialCall, index: int | None, call_id: str, name: str, text: str
    ) -> bool:
        """Whether a fragment for *call* that has this *name* begins another call."""
        if call.whole:
            return True
        if call.pieces:
            return name != call.name
        other = bool(call_id and call.id and call_id != call.id)
        if name == call.name:
            return other and index is None
        if other or (call.name in self._declared and name in self._declared):
            return True
        return call.name + name not in self._declared and bool(call_id or text)

    def _new_call(self, out: list[Event]) -> _PartialCall:
        """A call whose arguments are whole ends when the next one begins."""
        for known in self._calls:
            if known.name and not known.opened:
                self._open(known, out)
            if known.opened and not known.closed and known.whole:
                known.closed = True
                out.append(ItemClose(known.key))
        call = _PartialCall(self._new_key())
        self._calls.append(call)
        return call

    def _emit_own(self, call: _PartialCall, out: list[Event]) -> None:
        if call.own:
            own, call.own = call.own, {}
            out.append(Private(self._new_key(), call.key, own))

    def _open(self, call: _PartialCall, out: list[Event]) -> None:
        call.opened = True
        self._emit_own(call, out)
        out.append(CallOpen(call.key, call.id, call.name, call.kind))
        if call.pieces:
            out.append(ArgsDelta(call.key, call.text))


def _repeats(call: _PartialCall, call_id: str, name: str, text: str) -> bool:
    """Whether a fragment only says again what is known of a whole *call*."""
    if name != call.name or not call.whole:
        return False
    if call_id and call.id and call_id != call.id:
        return False
    return not text or (bool(call_id) and text == call.text)


def _index(fragment: dict[str, Any]) -> int | None:
    index = fragment.get("index")
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    return index if type(index) is int else None


def _arguments(body: dict[str, Any]) -> str:
    """The piece of arguments; some servers give the object instead of its text."""
    value = body.get("arguments")
    if value is None:
        value = body.get("input")
    return written(value)
