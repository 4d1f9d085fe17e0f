"""
The trial model: its requests and its answers, the same for every protocol.

Rule 1: it skips unknown items, parts and fields, as a real model does. A request that
        a real upstream refuses raises ``TrialRefusal``.
Rule 2: a token is a word, of the conversation or of the answer.

    no tool result yet, "call the tool" in the prompt ──▶ call the first tool
    a tool result came last ──▶ a sentence that quotes it
    else ──▶ "You said: …"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from gateway.trial.example import WORDS, example

MAX_QUOTE_CHARS = 20_000
"""The part of a longer prompt or tool result that an answer quotes."""

_PIECE = re.compile(r"\s*\S+")
_CALL = re.compile(r"call the tool(?:[\s`'\"]+([\w.-]+))?", re.IGNORECASE)
# A client's own note to the model beside the user's text: one tag around all of it.
_NOTE = re.compile(r"\s*<([A-Za-z_-]+)[^>]*>.*</\1>\s*", re.DOTALL)


class TrialRefusal(Exception):
    """The request is wrong; a real upstream answers it with *status*."""

    def __init__(self, message: str, param: str, code: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


class TrialTool(NamedTuple):
    """A tool that the client offered and runs itself."""

    kind: Literal["function", "custom"]
    name: str
    schema: object = None  # of a function's arguments
    namespace: str = ""


class TrialMessage(NamedTuple):
    """A message of the user, a tool or another speaker."""

    speaker: Literal["user", "tool", "other"]
    texts: list[str]


@dataclass(slots=True)
class TrialRequest:
    """
    One request.

    Attributes:
        choice: whether a tool may (auto), must not (none) or must be called.
        wanted: the name of the tool that must be called, or "".
        schema: the JSON schema that the answer must have; None for prose.
        max_words: the length at which the answer is cut; None for no limit.
    """

    model: str
    stream: bool = False
    messages: list[TrialMessage] = field(default_factory=list)
    tools: list[TrialTool] = field(default_factory=list)
    choice: Literal["auto", "none", "required"] = "auto"
    wanted: str = ""
    schema: object = None
    max_words: int | None = None

    @property
    def input_words(self) -> int:
        """The words of the whole conversation."""
        return sum(len(text.split()) for turn in self.messages for text in turn.texts)


class TrialCall(NamedTuple):
    """A tool call: *arguments* is JSON text, of a custom tool its free text."""

    tool: TrialTool
    arguments: str


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    """The answer of the trial account in words, and the tool call after them."""

    pieces: tuple[str, ...]
    call: TrialCall | None = None
    cut: bool = False  # by max_words

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def words(self) -> int:
        """The output tokens of the answer."""
        return len(self.pieces) + (len(self.call.arguments.split()) if self.call else 0)


class TrialWriter(Protocol):
    """An answer in the form of one protocol."""

    def stream(self, answer: TrialAnswer) -> Iterator[bytes]:
        """Every event of the answer, in order, framed."""
        ...

    def body(self, answer: TrialAnswer) -> dict[str, Any]:
        """The whole answer as one object."""
        ...


class TrialSide(Protocol):
    """The trial account's side of one protocol: a module."""

    name: str

    def read(self, body: dict[str, Any]) -> TrialRequest:
        """
        Read *body* as a request.

        Raises:
            TrialRefusal: as the real API would.
        """
        ...

    def writer(
        self, body: dict[str, Any], request: TrialRequest, now_unix: int, ident: str
    ) -> TrialWriter:
        """
        Args:
            now_unix: the answer's creation time, Unix seconds.
            ident: letters and digits, the stem of its ids.
        """
        ...

    def error_body(self, refused: TrialRefusal, request_id: str) -> dict[str, Any]:
        """The error of this protocol."""
        ...


def answer_to(request: TrialRequest) -> TrialAnswer:
    """The trial account's answer."""
    speaker, said = _last(request.messages)
    tool = None if speaker == "tool" else _tool(request, said)
    if tool is not None:
        call = TrialCall(tool, _arguments(tool))
        return TrialAnswer(_pieces(f"I call the tool {tool.name}."), call)
    if request.schema is not None:
        text = orjson.dumps(example(request.schema)).decode()
    elif speaker == "tool":
        text = f'The tool said: "{_quote(said)}"'
    else:
        text = f"You said: {_quote(said)}" if said.strip() else "You said nothing."
    pieces = _pieces(text)
    max_words = request.max_words
    if max_words is not None and len(pieces) > max_words:
        return TrialAnswer(pieces[:max_words], cut=True)
    return TrialAnswer(pieces)


def _last(messages: list[TrialMessage]) -> tuple[str, str]:
    """The last speaker, user or tool, and the text; a client's notes do not count."""
    for speaker, texts in reversed(messages):
        if speaker == "tool":
            return speaker, "\n".join(texts)
        own = [text for text in texts if not _NOTE.fullmatch(text)]
        if speaker == "user" and any(text.strip() for text in own):
            return speaker, "\n".join(own)
    return "user", ""


def _tool(request: TrialRequest, said: str) -> TrialTool | None:
    """The tool to call, if one is to be called."""
    if request.choice == "none":
        return None
    asked = _CALL.search(said)
    if not asked and request.choice == "auto":
        return None
    by_name = {tool.name: tool for tool in reversed(request.tools)}
    named = asked.group(1) if asked and asked.group(1) else ""
    first = request.tools[0] if request.tools else None
    return by_name.get(request.wanted) or by_name.get(named.rstrip(".")) or first


def _arguments(tool: TrialTool) -> str:
    if tool.kind == "custom":
        # In most languages that such a tool takes, a string literal is a program.
        return f'"{WORDS}"'
    value = example(tool.schema) if tool.schema else {}
    return orjson.dumps(value if isinstance(value, dict) else {}).decode()


def _quote(text: str) -> str:
    text = text.strip()
    if len(text) <= MAX_QUOTE_CHARS:
        return text
    more = len(text) - MAX_QUOTE_CHARS
    return f"{text[:MAX_QUOTE_CHARS].rstrip()} … ({more} more characters)"


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(_PIECE.findall(text))


# --- reading what the protocols have in common ------------------------------------


def texts(content: object) -> list[str]:
    """The texts of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return [content]
    found = []
    for part in content if isinstance(content, list) else ():
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
        if isinstance(text, str):
            found.append(text)
    return found


def tables(value: object, path: str) -> list[dict[str, Any]]:
    """
    *value* as a list of objects.

    Raises:
        TrialRefusal: it is something else; *path* names it.
    """
    if not isinstance(value, list):
        raise TrialRefusal(f"{path} must be a list", path, "invalid_type")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            path = f"{path}[{index}]"
            raise TrialRefusal(f"{path} must be an object", path, "invalid_type")
    return value


def limit(body: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """
    The most words that the answer may have: the first of *names* that *body* has.

    Raises:
        TrialRefusal: it is not a whole number from 0.
    """
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise TrialRefusal(
                f"{name} must be a whole number from 0", name, "invalid_type"
            )
        return value
    return None


def schema_of(form: object, *path: str) -> object:
    """The JSON schema that a response format asks for; None for prose."""
    if not isinstance(form, dict):
        return None
    if form.get("type") == "json_object":
        properties = {"message": {"type": "string"}}
        return {"type": "object", "properties": properties, "required": ["message"]}
    if form.get("type") != "json_schema":
        return None
    found: object = form
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None
