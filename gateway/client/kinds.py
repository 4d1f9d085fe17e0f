"""
Which kind of client asks, and what it understands while it waits.

One row a kind: how it is recognised, and whether SSE comments alone keep it alive. The
facts behind a row were observed with the real client; the tests prove each row against
it where it can run. What each kind gets is in ``keepalives``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple


class ClientHeaders(NamedTuple):
    """
    What kinds of clients are distinguished by.

    Attributes:
        agent: ``User-Agent`` in lower case.
        originator: the header that Codex names itself in.
        session: whether there is Claude Code's session header.
    """

    agent: str
    originator: str
    session: bool


class ClientKind(NamedTuple):
    """
    Attributes:
        name: as in the log: codex, claude-code, opencode, ...
        matches: recognises the kind.
        shows_status: draws the queue status of ``QueueStatus``.
        data_event_s: its idle timer counts data events only; one is due when none
            went out for so many seconds. 0: comments are enough.
        final_code: the only code in a stream after which it does not ask again; an
            HTTP status has no such meaning for it. "": it goes by ``x-should-retry``.
        reads_failed: over a websocket it shows the words of ``response.failed``; those
            of an error frame it hides behind its own.
        reads_metadata: it takes ``response.metadata`` for headers of an answer.
    """

    name: str
    matches: Callable[[ClientHeaders], bool]
    shows_status: bool = False
    data_event_s: float = 0.0
    final_code: str = ""
    reads_failed: bool = False
    reads_metadata: bool = False


def _agent(*starts: str) -> Callable[[ClientHeaders], bool]:
    return lambda headers: headers.agent.startswith(starts)


def _is_codex(headers: ClientHeaders) -> bool:
    return headers.agent.startswith("codex") or headers.originator.startswith("codex")


def _is_claude_code(headers: ClientHeaders) -> bool:
    return headers.agent.startswith("claude-cli/") or headers.session


def _is_ai_sdk(headers: ClientHeaders) -> bool:
    return "ai-sdk/" in headers.agent


KINDS: tuple[ClientKind, ...] = (
    ClientKind(
        "codex",
        _is_codex,
        shows_status=True,
        data_event_s=120.0,
        final_code="invalid_prompt",
        reads_failed=True,
        reads_metadata=True,
    ),
    ClientKind("claude-code", _is_claude_code),
    ClientKind("opencode", _agent("opencode/")),
    ClientKind("ai-sdk", _is_ai_sdk),
    ClientKind("openai-sdk", _agent("openai/", "asyncopenai/")),
    ClientKind("anthropic-sdk", _agent("anthropic/", "asyncanthropic/")),
)
OTHER = ClientKind("other", lambda headers: True)


def recognise(headers: Mapping[str, str]) -> ClientKind:
    """The first row that matches the request with *headers*."""
    get = headers.get
    return _kind_of(
        get("User-Agent", ""),
        get("originator", ""),
        "x-claude-code-session-id" in headers,
    )


@lru_cache(maxsize=128)
def _kind_of(agent: str, originator: str, session: bool) -> ClientKind:
    headers = ClientHeaders(agent.lower(), originator, session)
    return next((kind for kind in KINDS if kind.matches(headers)), OTHER)
