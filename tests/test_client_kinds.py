"""Each client is recognised, and gets the keepalive that it understands."""

from __future__ import annotations

import orjson
import pytest
from multidict import CIMultiDict

from gateway.client.kinds import QueueStatus, Wait, queue_comment, recognise
from gateway.protocols.sse import events, field, payload


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"User-Agent": "codex_exec/0.169.0 (Debian; x86_64)"}, "codex"),
        ({"User-Agent": "x", "originator": "codex_vscode"}, "codex"),
        ({"User-Agent": "claude-cli/2.1.330 (external, sdk-cli)"}, "claude-code"),
        ({"x-claude-code-session-id": "1"}, "claude-code"),
        ({"User-Agent": "OpenAI/Python 3.54.0"}, "openai-sdk"),
        ({"User-Agent": "AsyncOpenAI/Python 3.54.0"}, "openai-sdk"),
        ({"User-Agent": "OpenAI/JS 6.49.0"}, "openai-sdk"),
        ({"User-Agent": "Anthropic/Python 2.12.0"}, "anthropic-sdk"),
        ({"User-Agent": "AsyncAnthropic/Python 2.12.0"}, "anthropic-sdk"),
        ({"User-Agent": "ai/6.0.326 ai-sdk/openai/3.0.141"}, "ai-sdk"),
        ({"User-Agent": "opencode/1.18.33 ai-sdk/openai/2"}, "opencode"),
        ({"User-Agent": "curl/8"}, "other"),
        ({}, "other"),
    ],
)
def test_who_asks(headers: dict[str, str], name: str) -> None:
    assert name == recognise(CIMultiDict(headers)).name


def test_the_comment_tells_place_and_time() -> None:
    assert b": queued position=3 expected=12s\n\n" == queue_comment(Wait(3, 12.2, 1.0))
    assert b": queued position=1 expected=1s\n\n" == queue_comment(Wait(1, 0.1, 1.0))
    assert b": queued position=1\n\n" == queue_comment(Wait(1, None, 1.0))


def test_the_status_is_opened_once_and_never_closed() -> None:
    status = QueueStatus("fd277bc5-ff7e")
    frames = [status.frame(Wait(n, 5.0 * n, 10.0)) for n in (3, 2)]
    kinds = [[field(event, b"event").decode() for event in events(f)] for f in frames]

    assert [
        [
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
        ],
        ["response.reasoning_summary_text.delta"],
    ] == kinds
    told = orjson.loads(payload(frames[1]))["delta"]
    assert "**Waiting in queue (10 s, 1 ahead, about 10 s to go)**\n\n" == told
