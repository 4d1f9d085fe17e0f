"""Each kind of client is recognised by its headers."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.client.kinds import recognise


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
def test_a_kind_of_client_is_recognised(headers: dict[str, str], name: str) -> None:
    assert recognise(CIMultiDict(headers)).name == name
