"""
One request, the same for every protocol: what converters read into and write from.

Rule 1: the skeleton is Responses' items and parts; what only another protocol can
        say is in side fields (signature, redacted, is_error, cache).
Rule 2: every part and item knows its ``path`` in the client's body, so that a
        refusal can name it.
Rule 3: nothing here knows a wire form; ``*/request.py`` do.

    client's body ──read_request──▶ Request ──write_request──▶ Written(body, …)
                                                                  │
                         Tools + Asked: what the way back needs ◀─┘
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gateway.protocols.legal_names import NAME_MAX, safe_name, short_hash
from gateway.protocols.opaque import Opaque

CacheTtl = Literal["5m", "1h"]
Kind = Literal[
    "function",
    "custom",
    "local_shell",
    "shell",
    "apply_patch",
    "tool_search",
    "web_search",
    "hosted",
]
CALLABLE: frozenset[str] = frozenset(
    ("function", "custom", "local_shell", "shell", "apply_patch", "tool_search")
)
"""The kinds that the client itself runs; each can be carried by a function."""

TAG_THINKING = "gw1.anthropic.thinking."
"""``encrypted_content`` of a reasoning item: the tag, then the signature."""
TAG_REDACTED = "gw1.anthropic.redacted."
"""``encrypted_content`` of a reasoning item: the tag, then the redacted data."""
TAG_OPENAI = "gw1.openai.rs."
"""``signature`` of a thinking block: the tag, then base64url of a JSON object
``{"id", "encrypted_content"}``."""
TAG_COMPACT = "gw1.compact."
"""``encrypted_content`` of a compaction item: the tag, then base64url of text."""


# ---------------------------------------------------------------- parts


@dataclass(slots=True)
class Text:
    """Plain text of any role."""

    text: str
    cache: CacheTtl | None = None
    path: str = ""


@dataclass(slots=True)
class Refusal:
    """What the assistant said instead of an answer."""

    text: str
    path: str = ""


@dataclass(slots=True)
class Image:
    """An image: base64 *data* with its *media_type*, or a *url*."""

    url: str = ""
    media_type: str = ""
    data: str = ""
    detail: str = ""
    cache: CacheTtl | None = None
    path: str = ""


@dataclass(slots=True)
class File:
    """A document: base64 *data* with its *media_type*, a *url*, or plain *text*."""

    name: str = ""
    url: str = ""
    media_type: str = ""
    data: str = ""
    text: str | None = None
    cache: CacheTtl | None = None
    path: str = ""


@dataclass(slots=True)
class Audio:
    """Sound that the user sent; only Chat has a form for it."""

    data: str
    format: str
    path: str = ""


Part = Text | Refusal | Image | File | Audio


# ---------------------------------------------------------------- items

Role = Literal["user", "assistant", "system", "developer"]


@dataclass(slots=True)
class Message:
    """What one side said. ``phase`` is Responses' own (commentary, final_answer)."""

    role: Role
    parts: list[Part]
    phase: str = ""
    path: str = ""


@dataclass(slots=True)
class Reasoning:
    """
    What the assistant thought, and the proof that it did.

    ``texts``: one entry per summary part. Exactly one of these proves it to an
    upstream, or none: ``signature`` (Anthropic, over ``texts[0]``), ``redacted``
    (Anthropic's unreadable data), ``blob`` with ``id`` (OpenAI), ``opaque`` (what the
    servers of Chat want back).
    """

    texts: list[str] = field(default_factory=list)
    signature: str = ""
    redacted: str = ""
    blob: str = ""
    id: str = ""
    opaque: Opaque | None = None
    path: str = ""


@dataclass(slots=True)
class ToolCall:
    """
    A call in the history.

    ``arguments`` is the JSON text as the client sent it ("" = none); for kind
    "custom" it is the free text itself, for the shell kinds, "apply_patch" and
    "tool_search" the JSON text of the action's fields. ``own``: the members of the
    call that its maker wants back, where the account is the maker (``Opaque``).
    """

    call_id: str
    name: str
    arguments: str
    kind: Kind = "function"
    namespace: str = ""
    cache: CacheTtl | None = None
    path: str = ""
    own: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ToolResult:
    """What the client's tool gave back for the call *call_id*."""

    call_id: str
    parts: list[Part]
    is_error: bool = False
    kind: Kind = "function"
    cache: CacheTtl | None = None
    path: str = ""


Item = Message | Reasoning | ToolCall | ToolResult


# ---------------------------------------------------------------- settings


@dataclass(slots=True)
class Tool:
    """
    A declared tool.

    ``parameters``: JSON schema, None when the client gave none. ``strict``: None
    when the client did not say. ``format``: of a custom tool, as Responses writes
    it. ``settings``: of a web search ``allowed_domains``, ``blocked_domains``,
    ``user_location``, ``max_uses``; of a hosted tool everything.
    """

    kind: Kind
    name: str
    namespace: str = ""
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    cache: CacheTtl | None = None
    path: str = ""


class ToolName(NamedTuple):
    """A tool as the client names it."""

    kind: Kind
    name: str
    namespace: str = ""


@dataclass(slots=True)
class ToolChoice:
    """
    ``mode``: "" = not said. ``tool``: the forced one, for mode "tool".
    ``allowed``: only these may be called (mode "auto" or "required").
    """

    mode: Literal["", "auto", "none", "required", "tool"] = ""
    tool: ToolName | None = None
    allowed: list[ToolName] | None = None
    path: str = "tool_choice"


@dataclass(slots=True)
class Thinking:
    """
    How much to think.

    ``effort``: none minimal low medium high xhigh max, "" = not said.
    ``summary``: what Responses' ``reasoning.summary`` says, "" = not wanted.
    ``kept``: whether the client keeps the proof of reasoning for its next turn.
    """

    effort: str = ""
    summary: str = ""
    kept: bool = False


@dataclass(slots=True)
class Format:
    """The form the answer must have."""

    type: Literal["json_object", "json_schema"]
    name: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str = ""
    path: str = ""


@dataclass(slots=True)
class Request:
    """One request, out of any protocol; None, "" and [] mean: not said."""

    model: str = ""
    instructions: list[Text] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    choice: ToolChoice = field(default_factory=ToolChoice)
    parallel: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = field(default_factory=list)
    thinking: Thinking | None = None
    format: Format | None = None
    verbosity: str = ""
    stream: bool | None = None
    user: str = ""  # a stable, opaque name of the end user
    cache_key: str = ""  # prompt_cache_key
    cache_all: CacheTtl | None = None  # mark the end of the prompt
    service_tier: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)  # field → path in the body
    dropped: list[str] = field(default_factory=list)

    def path(self, name: str) -> str:
        """Where the client's body says the field *name*."""
        return self.paths.get(name, name)

    def drop(self, path: str) -> None:
        """Note that what the client said at *path* is left out."""
        if path and path not in self.dropped:
            self.dropped.append(path)


# ---------------------------------------------------------------- the way back


@dataclass(slots=True)
class Tools:
    """
    The reversible names of one request's tools.

    ``write_request`` fills it by ``wire_name``; the stream writers ask ``resolve``
    what a call that the upstream names really is. A call whose kind is "custom"
    and that the upstream made as a function carries ``{"input": text}``; the other
    kinds carry the fields of their action (``local_shell``: ``command workdir
    timeout_ms env``; ``shell``: ``commands timeout_ms max_output_length``;
    ``apply_patch``: ``operation``; ``tool_search``: its arguments).
    """

    by_wire: dict[str, ToolName] = field(default_factory=dict)
    by_tool: dict[ToolName, str] = field(default_factory=dict)
    native: set[str] = field(default_factory=set)  # wire names not wrapped

    def wire_name(self, tool: ToolName) -> str:
        """The name that the upstream knows *tool* by; the same at every call."""
        known = self.by_tool.get(tool)
        if known is not None:
            return known
        full = f"{tool.namespace}__{tool.name}" if tool.namespace else tool.name
        name = safe_name(full)
        if name in self.by_wire:  # another kind or spelling has taken it
            name = f"{name[: NAME_MAX - 9]}_{short_hash(repr(tuple(tool)))}"
        self.by_tool[tool] = name
        self.by_wire[name] = tool
        return name

    def resolve(self, wire_name: str) -> ToolName:
        """The client's tool behind *wire_name*; an unknown one is a function."""
        return self.by_wire.get(wire_name) or ToolName("function", wire_name)

    def wrapped(self, wire_name: str) -> bool:
        """Whether a call of *wire_name* is a function that carries another kind."""
        tool = self.by_wire.get(wire_name)
        return (
            tool is not None
            and tool.kind in CALLABLE
            and tool.kind != "function"
            and wire_name not in self.native
        )


@dataclass(slots=True)
class Asked:
    """
    What the client asked for, as far as the answer's form depends on it.

    Attributes:
        model: the name that the client used; answers bear it.
        stream: whether the client wants events.
        include_usage: Chat: whether the usage chunk goes to the client.
        thinking: whether reasoning is shown (Messages: thinking is on; Responses
            and Chat clients: always, they ignore what they do not want).
        thinking_hidden: Messages: ``display: "omitted"``, signature without text.
        encrypted_reasoning: Responses: ``encrypted_content`` is to be included.
        web_search: whether the client declared a web search tool.
        cut: stop sequences that the upstream does not know: the gateway ends the
            text before the first of them and says so.
        stop: every stop sequence that the client gave.
        input_tokens: estimate of the prompt, for ``message_start``.
        compaction: "" or what the answer must be wrapped as: "trigger" (one
            ``compaction`` item of a normal response) or "endpoint" (the body of
            ``/v1/responses/compact``).
        echo: Responses: the fields of the request that the ``response`` object
            repeats, as the client sent them; absent ones are not in it.
    """

    model: str
    stream: bool = False
    include_usage: bool = False
    thinking: bool = True
    thinking_hidden: bool = False
    encrypted_reasoning: bool = False
    web_search: bool = False
    cut: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    input_tokens: int = 1
    compaction: Literal["", "trigger", "endpoint"] = ""
    echo: dict[str, Any] = field(default_factory=dict)


class Written(NamedTuple):
    """
    A request in one protocol's form.

    ``dropped``: paths of the client's body that have no counterpart and do not
    change the answer's meaning. ``cut``: see ``Asked.cut``.
    """

    body: dict[str, Any]
    dropped: tuple[str, ...]
    tools: Tools
    cut: tuple[str, ...] = ()
