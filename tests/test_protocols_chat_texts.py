"""
Where Chat servers put the words of an answer.

Sources: the API references of OpenAI, DeepSeek (``reasoning_content``), OpenRouter
(``reasoning``) and Mistral (parts of thinking within ``content``); chunks of
Perplexity, which repeat the whole message beside each delta.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocols_answers import (
    chunk,
    converted,
    relayed,
    said,
    said_whole,
    sse,
    translation,
)

Body = dict[str, Any]
MISTRAL = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]
TEXT = {"type": "text", "text": "Hi"}
BOTH = ["reasoning: Hm.", "text: Hi"]
SHAPES: list[Any] = [
    pytest.param([{"content": "H"}, {"content": "i"}], ["text: Hi"], id="openai"),
    pytest.param(
        [{"reasoning_content": "Hm."}, {"content": "Hi"}], BOTH, id="deepseek"
    ),
    pytest.param([{"reasoning": "Hm."}, {"content": "Hi"}], BOTH, id="openrouter"),
    pytest.param(
        [{"reasoning": "Hm.", "reasoning_content": "Hm."}, {"content": "Hi"}],
        BOTH,
        id="one-thought-under-two-names",
    ),
    pytest.param([{"content": MISTRAL}, {"content": "Hi"}], BOTH, id="mistral"),
    pytest.param([{"content": [*MISTRAL, TEXT]}], BOTH, id="mistral-in-one"),
    pytest.param(
        [{"content": [{"type": "thinking", "thinking": "Hm."}, TEXT]}],
        BOTH,
        id="thinking-as-text",
    ),
    pytest.param([{"content": [TEXT]}], ["text: Hi"], id="parts"),
    pytest.param([{"content": [None, 5, {"type": "x"}, TEXT]}], ["text: Hi"], id="odd"),
]


def merged(deltas: list[Body]) -> Body:
    """The message that *deltas* make."""
    message: Body = {"role": "assistant"}
    for delta in deltas:
        for key, value in delta.items():
            known = message.get(key)
            parts = [known, value]
            if isinstance(known, list) or known is not None and isinstance(value, list):
                parts = [
                    [{"type": "text", "text": part}] if isinstance(part, str) else part
                    for part in parts
                ]
            message[key] = value if known is None else parts[0] + parts[1]
    return message


@pytest.mark.parametrize("target", ["responses", "messages"])
@pytest.mark.parametrize("deltas, expected", SHAPES)
def test_words_are_found_wherever_they_stand(
    deltas: list[Body], expected: list[str], target: str
) -> None:
    """Streamed and whole are one."""
    request = converted(thinking=True)
    chunks = [chunk(**delta) for delta in deltas]
    stream = sse(*chunks, chunk("stop"), "[DONE]")
    out, _ = relayed(translation("chat", target, request), stream)
    whole = {
        **chunk(),
        "choices": [{"index": 0, "message": merged(deltas), "finish_reason": "stop"}],
    }
    body, _ = translation("chat", target, request).body(whole)

    assert expected == said(target, out)["said"]
    assert expected == said_whole(target, body)["said"]


def beside(message: Body, **choice: Any) -> Body:
    found = chunk(choice.pop("finish", None), **choice)
    [one] = found["choices"]
    if not choice:
        del one["delta"]
    one["message"] = message
    return found


@pytest.mark.parametrize(
    "chunks",
    [
        [beside({"role": "assistant", "content": "Hi"}, finish="stop")],
        [
            beside({"content": "H"}, content="H"),
            beside({"content": "Hi"}, content="i"),
            beside({"content": "Hi"}, finish="stop", content=""),
        ],
    ],
    ids=["in-place-of-a-delta", "beside-deltas"],
)
@pytest.mark.parametrize("target", ["responses", "messages"])
def test_a_message_within_a_stream_is_written_once(
    chunks: list[Body], target: str
) -> None:
    out, ending = relayed(translation("chat", target), sse(*chunks, "[DONE]"))

    assert ["text: Hi"] == said(target, out)["said"]
    assert "ok" == ending.outcome
