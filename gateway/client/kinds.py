"""
Which client asks, and what it understands while it waits.

One row a client: how it is recognised, and whether SSE comments alone keep it alive.
The facts behind a row were observed with the real client; the tests prove each row
against it where it can run.

    comment   ": queued position=3 expected=12s": harmless everywhere
    status    Codex: a reasoning summary that its terminal shows live and that leaves
              nothing in its history, because no ``output_item.done`` follows
    data      Codex: an event that it ignores but that resets its idle timer (300 s),
              which comments do not
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import orjson

Headers = Mapping[str, str]


class Signs(NamedTuple):
    """
    What clients are told apart by.

    Attributes:
        agent: ``User-Agent`` in lower case.
        originator: the header that Codex names itself in.
        session: whether there is Claude Code's session header.
    """

    agent: str
    originator: str
    session: bool


class Client(NamedTuple):
    """
    One kind of client.

    Attributes:
        name: as in the log: codex, claude-code, opencode, ...
        knows: recognises the client.
        shows_status: draws the queue status of ``QueueStatus``.
        data_event_s: its idle timer counts data events only; one is due when none
            went out for so many seconds. 0: comments are enough.
    """

    name: str
    knows: Callable[[Signs], bool]
    shows_status: bool = False
    data_event_s: float = 0.0


def _agent(*starts: str) -> Callable[[Signs], bool]:
    return lambda signs: signs.agent.startswith(starts)


def _is_codex(signs: Signs) -> bool:
    return signs.agent.startswith("codex") or signs.originator.startswith("codex")


def _is_claude_code(signs: Signs) -> bool:
    return signs.agent.startswith("claude-cli/") or signs.session


def _is_ai_sdk(signs: Signs) -> bool:
    return "ai-sdk/" in signs.agent


CLIENTS: tuple[Client, ...] = (
    Client("codex", _is_codex, shows_status=True, data_event_s=120.0),
    Client("claude-code", _is_claude_code),
    Client("opencode", _agent("opencode/")),
    Client("ai-sdk", _is_ai_sdk),
    Client("openai-sdk", _agent("openai/", "asyncopenai/")),
    Client("anthropic-sdk", _agent("anthropic/", "asyncanthropic/")),
)
OTHER = Client("other", lambda signs: True)


def recognise(headers: Headers) -> Client:
    """The first row that knows the request with *headers*."""
    get = headers.get
    return _by_signs(
        get("User-Agent", ""),
        get("originator", ""),
        "x-claude-code-session-id" in headers,
    )


@lru_cache(maxsize=128)
def _by_signs(agent: str, originator: str, session: bool) -> Client:
    signs = Signs(agent.lower(), originator, session)
    return next((client for client in CLIENTS if client.knows(signs)), OTHER)


COMMENT = b": keepalive\n\n"
DATA_EVENT = b'event: keepalive\ndata: {"type":"keepalive"}\n\n'


class Wait(NamedTuple):
    """A place in the queue as the waiting client is told it."""

    position: int
    expected_s: float | None
    waited_s: float


def queue_comment(wait: Wait) -> bytes:
    """``: queued position=3 expected=12s``"""
    text = f": queued position={wait.position}"
    if wait.expected_s is not None:
        text += f" expected={max(1, round(wait.expected_s))}s"
    return text.encode() + b"\n\n"


class QueueStatus:
    """
    The live status line of Codex while its request waits.

    Each ``frame`` replaces the last one on the screen. The item is never closed, so
    Codex neither stores it nor sends it back.
    """

    __slots__ = ("_item", "_open")

    def __init__(self, request_id: str) -> None:
        self._item = "rs_queue_" + request_id.replace("-", "")
        self._open = False

    def frame(self, wait: Wait) -> bytes:
        """The events that show *wait*."""
        told = f"**Waiting in queue ({wait.waited_s:.0f} s, {wait.position - 1} ahead"
        if wait.expected_s is not None:
            told += f", about {max(1, round(wait.expected_s))} s to go"
        place = {"item_id": self._item, "output_index": 0, "summary_index": 0}
        delta = {
            "type": "response.reasoning_summary_text.delta",
            **place,
            "delta": told + ")**\n\n",
        }
        opened = b"" if self._open else self._opening(place)
        self._open = True
        return opened + _event(delta)

    def _opening(self, place: dict[str, object]) -> bytes:
        item = {"id": self._item, "type": "reasoning", "summary": []}
        part = {"type": "summary_text", "text": ""}
        return _event(
            {"type": "response.output_item.added", "output_index": 0, "item": item}
        ) + _event(
            {"type": "response.reasoning_summary_part.added", **place, "part": part}
        )


def _event(data: dict[str, object]) -> bytes:
    kind = str(data["type"]).encode()
    return b"event: " + kind + b"\ndata: " + orjson.dumps(data) + b"\n\n"
