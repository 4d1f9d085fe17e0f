"""
A call's arguments while they arrive: JSON that is not whole yet.

``ObjectText`` keeps what a Messages client reads parseable at every moment: models of
other vendors write arguments that are no object, that break off, or that have raw
line ends inside a string. ``InputText`` takes the free text out of
``{"input": "…"}`` piece by piece.
"""

from __future__ import annotations

import json
import re

import orjson

from gateway.protocols.event_json import dump, joined, quote
from gateway.protocols.tool_carrier import RAW_KEY, unwrap_custom

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_SPACE = re.compile(r"[ \t\r\n]+")
MAX_WORD_CHARS = 4096  # of a number, which is held until its end is seen
_WORD = re.compile(r"[-+.0-9A-Za-z]+")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_PART_OF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")

# What may come next.
_BEGIN = "the object"
_KEY_OR_END = "its first key or its end"
_KEY = "a key"
_COLON = "a colon"
_VALUE = "a value"
_VALUE_OR_END = "the array's first value or its end"
_COMMA = "a comma or an end"
_DONE = "nothing"


def written(value: object) -> str:
    """
    A call's arguments as JSON text, in whatever form a server gives them: the text,
    the value itself, or nothing.
    """
    if isinstance(value, str):
        return value
    return "" if value is None else dump(value).decode()


def whole(text: str) -> bool:
    """
    Whether *text* is JSON up to its last character, or nothing at all.

    Raw line ends and lone backslashes inside a string are a model's bad spelling, not
    a sign that something is missing.
    """
    if not text.strip():
        return True
    try:
        json.loads(text, strict=False)
        return True
    except (ValueError, RecursionError):
        mended = ObjectText()
        mended.feed(text)
        return mended.whole


def object_text(text: str) -> str:
    """Arguments that have come whole, as the text of the object that they are."""
    reading = ObjectText()
    return reading.feed(text) + reading.close()


class ObjectText:
    """
    Pass a JSON object on as it arrives, and never anything else.

    ``feed`` gives what may be passed on: all of it up to the first character that
    cannot be part of an object. ``close`` gives the rest that makes it one; what the
    model wrote instead then is whole under ``__raw_arguments``.
    """

    __slots__ = (
        "_raw",
        "_held",
        "_next",
        "_stack",
        "_in_string",
        "_broken",
        "_passed",
        "_behind",
    )

    def __init__(self) -> None:
        self._raw: list[str] = []
        self._held = ""  # seen, but not whole: a number, a word, an escape
        self._next = _BEGIN
        self._stack: list[str] = []
        self._in_string = False
        self._broken = False
        self._passed = False
        self._behind = False  # more than space follows the object

    @property
    def whole(self) -> bool:
        """Whether an object has come, and nothing else."""
        return self._next is _DONE and not self._behind

    def feed(self, text: str) -> str:
        """Take more; what may be passed on now."""
        self._raw.append(text)
        if self._broken or self._next is _DONE:
            self._behind = self._behind or bool(text.strip())
            return ""
        if self._in_string and not self._held and _PLAIN.fullmatch(text):
            return text  # most pieces are more of a string
        text, self._held = self._held + text, ""
        at, out = 0, []
        while at < len(text):
            step = self._string if self._in_string else self._token
            end, piece = step(text, at)
            if end == at:  # not whole yet
                self._held = text[at:]
                break
            out.append(piece)
            at = end
            if self._broken or self._next is _DONE:
                self._behind = bool(text[at:].strip())
                break
        passed = "".join(out)
        self._passed = self._passed or bool(passed)
        return passed

    def close(self) -> str:
        """What is missing for an object, "" if nothing is (or nothing has come)."""
        if self._next is _DONE:
            return ""
        raw = joined(self._raw)
        if self._passed:
            return self._repaired(raw)
        return f"{{{_raw_member(raw)}}}" if raw.strip() else ""

    def _string(self, text: str, at: int) -> tuple[int, str]:
        """One step inside a string."""
        if plain := _PLAIN.match(text, at):
            return plain.end(), plain.group()
        char = text[at]
        if char == '"':
            self._in_string = False
            key = self._next in (_KEY, _KEY_OR_END)
            self._next = _COLON if key else _COMMA
            return at + 1, char
        if char != "\\":  # a raw control character, which JSON wants escaped
            return at + 1, json.dumps(char)[1:-1]
        if escape := _ESCAPE.match(text, at):
            return escape.end(), escape.group()
        if _PART_OF_ESCAPE.match(text, at):
            return at, ""
        return at + 1, "\\\\"  # a lone backslash, as in a Windows path

    def _token(self, text: str, at: int) -> tuple[int, str]:
        """One step outside of strings."""
        if space := _SPACE.match(text, at):
            return space.end(), "" if self._next is _BEGIN else space.group()
        char, expected = text[at], self._next
        if char == '"' and expected in (_KEY_OR_END, _KEY, _VALUE, _VALUE_OR_END):
            self._in_string = True
        elif char in "{[" and expected in (_BEGIN, _VALUE, _VALUE_OR_END):
            return self._open(char, at)
        elif char in "}]" and self._may_close(char):
            self._stack.pop()
            self._next = _COMMA if self._stack else _DONE
        elif char == ":" and expected is _COLON:
            self._next = _VALUE
        elif char == "," and expected is _COMMA:
            self._next = _KEY if self._stack[-1] == "{" else _VALUE
        elif expected in (_VALUE, _VALUE_OR_END):
            return self._word(text, at)
        else:
            return self._break(at)
        return at + 1, char

    def _open(self, char: str, at: int) -> tuple[int, str]:
        if self._next is _BEGIN and char == "[":
            return self._break(at)
        self._stack.append(char)
        self._next = _KEY_OR_END if char == "{" else _VALUE_OR_END
        return at + 1, char

    def _may_close(self, char: str) -> bool:
        return (
            bool(self._stack)
            and (self._stack[-1] == "{") == (char == "}")
            and self._next in (_COMMA, _KEY_OR_END, _VALUE_OR_END)
        )

    def _word(self, text: str, at: int) -> tuple[int, str]:
        """A number or a literal; it is judged when its end is seen."""
        word = _WORD.match(text, at)
        if word is None:
            return self._break(at)
        if word.end() == len(text):
            return self._break(at) if len(text) - at > MAX_WORD_CHARS else (at, "")
        try:
            orjson.loads(word.group())
        except orjson.JSONDecodeError:
            return self._break(at)
        self._next = _COMMA
        return word.end(), word.group()

    def _break(self, at: int) -> tuple[int, str]:
        self._broken = True
        return at + 1, ""

    def _repaired(self, raw: str) -> str:
        """Close what is open and add what the model wrote as a last member."""
        out, expected, depth = "", self._next, len(self._stack)
        if self._in_string:
            out = '"'
            expected = _COLON if expected in (_KEY, _KEY_OR_END) else _COMMA
        if expected is _COLON:
            out += ":null"
        elif expected is _VALUE:
            out += "null"
        elif expected is _KEY and depth > 1:
            out += '"":null'
        out += "".join("}" if char == "{" else "]" for char in self._stack[:0:-1])
        first = depth == 1 and expected in (_KEY, _KEY_OR_END)
        return f"{out}{'' if first else ','}{_raw_member(raw)}}}"


def _raw_member(raw: str) -> str:
    return f'"{RAW_KEY}":{quote(raw).decode()}'


_HEAD = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_HEAD_MAX = 64  # characters; a longer beginning is something else
_WHOLE_CHARACTERS = re.compile(
    r'(?>[^"\\]+|\\(?:["\\/bfnrt]|u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]'
    r"[0-9a-fA-F]{2}|(?![dD][89abAB])[0-9a-fA-F]{4})))*"
)
_PART_OF_PAIR = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}"
    r"|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?))?\Z"
)


class InputText:
    """
    Decode the text of ``{"input": "…"}`` as it arrives.

    Arguments of another form are held until ``close``.
    """

    __slots__ = ("_raw", "_held", "_state")

    def __init__(self) -> None:
        self._raw: list[str] = []
        self._held = ""
        self._state = "head"  # head, text, behind or other

    def feed(self, text: str) -> str:
        """Take more of the JSON text; return the free text in it."""
        self._raw.append(text)
        if self._state in ("behind", "other"):
            return ""
        self._held += text
        if self._state == "head":
            head = _HEAD.match(self._held)
            if head is None:
                if len(self._held) > _HEAD_MAX:
                    self._state = "other"
                return ""
            self._state, self._held = "text", self._held[head.end() :]
        return self._decode()

    def close(self) -> str:
        """What ``feed`` has not returned."""
        if self._state in ("text", "behind"):
            return ""
        return unwrap_custom(joined(self._raw))

    def _decode(self) -> str:
        out, text, at = [], self._held, 0
        size = len(text)
        while at < size:
            whole = _WHOLE_CHARACTERS.match(text, at)
            end = whole.end() if whole else at
            out.append(_unescaped(text[at:end]))
            at = end
            if text.startswith('"', at):
                self._state, at = "behind", size
            elif at == size or _PART_OF_PAIR.match(text, at):
                break
            else:
                # Half a surrogate pair, or a backslash that escapes nothing.
                half = _ESCAPE.match(text, at)
                out.append(_unescaped(half.group()) if half else "\\")
                at = half.end() if half else at + 1
        self._held = text[at:]
        return "".join(out)


def _unescaped(piece: str) -> str:
    if "\\" not in piece:
        return piece
    return str(json.loads(f'"{piece}"', strict=False))
