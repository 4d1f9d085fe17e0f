"""
What was asked of the trial account, and what it says; the same for every protocol.

Rule 1: nothing that a real model would read over breaks it: unknown items, parts and
        fields are passed by. What a real upstream refuses is refused (``Refused``).
Rule 2: tokens are words: of the conversation that came in, of what went out.

    no tool result yet, "call the tool" in the prompt ──▶ call the first tool
    a tool result came last ──▶ a sentence that quotes it
    else ──▶ "You said: …"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from gateway.trial.example import WORDS, example

MAX_QUOTE_CHARS = 20_000
"""Of a longer prompt or tool result only so much is said again."""

_PIECE = re.compile(r"\s*\S+")
_CALL = re.compile(r"call the tool(?:[\s`'\"]+([\w.-]+))?", re.IGNORECASE)
# What a client tells the model besides the user's words: one tag around everything.
_NOTE = re.compile(r"\s*<([A-Za-z_-]+)[^>]*>.*</\1>\s*", re.DOTALL)


class Refused(Exception):
    """The request is wrong: what a real upstream answers with *status*."""

    def __init__(self, message: str, param: str, code: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


class Tool(NamedTuple):
    """A tool that the client offered and runs itself."""

    kind: Literal["function", "custom"]
    name: str
    schema: object = None  # of a function's arguments
    namespace: str = ""


class Turn(NamedTuple):
    """One thing that was said: by the user, by a tool, or by anybody else."""

    speaker: Literal["user", "tool", "other"]
    texts: list[str]


@dataclass(slots=True)
class Question:
    """
    One request, read.

    Attributes:
        choice: whether a tool may (auto), must not (none) or must be called.
        wanted: the name of the tool that must be called, or "".
        schema: the JSON schema that the answer must have; None for prose.
        max_words: where the answer is cut; None for nowhere.
    """

    model: str
    stream: bool = False
    turns: list[Turn] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    choice: Literal["auto", "none", "required"] = "auto"
    wanted: str = ""
    schema: object = None
    max_words: int | None = None

    @property
    def input_words(self) -> int:
        """The words of the whole conversation."""
        return sum(len(text.split()) for turn in self.turns for text in turn.texts)


class Call(NamedTuple):
    """A tool call: *arguments* is JSON text, of a custom tool its free text."""

    tool: Tool
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the trial account says, word by word, and the tool that it calls then."""

    pieces: tuple[str, ...]
    call: Call | None = None
    cut: bool = False  # by max_words

    @property
    def text(self) -> str:
        """All that is said."""
        return "".join(self.pieces)

    @property
    def words(self) -> int:
        """What the answer costs."""
        return len(self.pieces) + (len(self.call.arguments.split()) if self.call else 0)


def reply_to(question: Question) -> Reply:
    """What the trial account answers."""
    speaker, said = _last(question.turns)
    tool = None if speaker == "tool" else _tool(question, said)
    if tool is not None:
        call = Call(tool, _arguments(tool))
        return Reply(_pieces(f"I call the tool {tool.name}."), call)
    if question.schema is not None:
        text = orjson.dumps(example(question.schema)).decode()
    elif speaker == "tool":
        text = f'The tool said: "{_quote(said)}"'
    else:
        text = f"You said: {_quote(said)}" if said.strip() else "You said nothing."
    pieces = _pieces(text)
    most = question.max_words
    if most is not None and len(pieces) > most:
        return Reply(pieces[:most], cut=True)
    return Reply(pieces)


def _last(turns: list[Turn]) -> tuple[str, str]:
    """Who spoke last, user or tool, and the words; a client's notes are not theirs."""
    for speaker, texts in reversed(turns):
        if speaker == "tool":
            return speaker, "\n".join(texts)
        own = [text for text in texts if not _NOTE.fullmatch(text)]
        if speaker == "user" and any(text.strip() for text in own):
            return speaker, "\n".join(own)
    return "user", ""


def _tool(question: Question, said: str) -> Tool | None:
    """The tool to call, if one is to be called."""
    if question.choice == "none":
        return None
    asked = _CALL.search(said)
    if not asked and question.choice == "auto":
        return None
    by_name = {tool.name: tool for tool in reversed(question.tools)}
    named = asked.group(1) if asked and asked.group(1) else ""
    first = question.tools[0] if question.tools else None
    return by_name.get(question.wanted) or by_name.get(named.rstrip(".")) or first


def _arguments(tool: Tool) -> str:
    if tool.kind == "custom":
        # A string literal is a program in most languages that such a tool may take.
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
        Refused: when it is something else; *path* is named.
    """
    if not isinstance(value, list):
        raise Refused(f"{path} must be a list", path, "invalid_type")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            path = f"{path}[{index}]"
            raise Refused(f"{path} must be an object", path, "invalid_type")
    return value


def limit(body: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """
    The first of *names* that *body* says: how many words the answer may have.

    Raises:
        Refused: when it is not a whole number from 0.
    """
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise Refused(f"{name} must be a whole number from 0", name, "invalid_type")
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
