"""
What each dialect's server would refuse, mended: a row a rule, its source beside it.

The strict servers of ``tests.kit.strict`` judge the bodies of a whole turn of Codex.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.errors import ClientError
from gateway.protocols import dialects
from gateway.protocols.options import Options
from gateway.protocols.request_converter import Converted, convert_request
from tests.kit import strict

Body = dict[str, Any]
SCHEMA: Body = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "path": {"type": ["string", "null"], "format": "uri"},
        "mode": {"const": "r"},
        "depth": {"type": "integer", "exclusiveMinimum": 0},
        "what": {"type": "string", "anyOf": [{"minLength": 1}, {"enum": ["a"]}]},
        "any": {"description": "anything"},
        "node": {"$ref": "#/$defs/node"},
        "list": {"type": "array"},
    },
    "required": ["path", "gone"],
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"$ref": "#/$defs/node"}},
        }
    },
}
CODEX: Body = {
    "model": "m",
    "instructions": "Be brief.",
    "prompt_cache_key": "conversation",
    "service_tier": "auto",
    "safety_identifier": "someone",
    "text": {"verbosity": "low"},
    "reasoning": {"effort": "xhigh", "summary": "auto"},
    "max_output_tokens": 4000,
    "parallel_tool_calls": True,
    "stream": True,
    "tools": [{"type": "function", "name": "read", "parameters": SCHEMA}],
    "input": [
        {"type": "message", "role": "developer", "content": "You are Codex."},
        {"type": "message", "role": "user", "content": "Look."},
        {"type": "message", "role": "user", "content": "Please."},
        {"type": "message", "role": "assistant", "content": "I look."},
        {
            "type": "function_call",
            "call_id": "functions.read:0",
            "name": "read",
            "arguments": "{}",
        },
        {
            "type": "function_call_output",
            "call_id": "functions.read:0",
            "output": "seen",
        },
        {"type": "message", "role": "developer", "content": "The mode is: plan."},
        {"type": "message", "role": "user", "content": "And now?"},
    ],
}
CHAT_SERVERS = [name for name in dialects.DIALECTS if name != "anthropic"]


def to_chat(dialect: str, body: Body, **overrides: Any) -> Converted:
    options = dialects.options(dialect, overrides)
    names = {"model": "m", "upstream_model": "m"}
    return convert_request("responses", "chat", body, options=options, **names)


@pytest.mark.parametrize("dialect", CHAT_SERVERS)
def test_a_turn_of_codex_is_taken_by_every_server(dialect: str) -> None:
    before = copy.deepcopy(CODEX)
    converted = to_chat(dialect, CODEX)

    assert "" == strict.refusal("chat", dialect, converted.body)
    assert before == CODEX
    said = str(converted.body["messages"])
    assert "You are Codex." in said and "The mode is: plan." in said and "seen" in said


@pytest.mark.parametrize("dialect", list(strict.DIALECTS))
def test_each_servers_own_refusals_are_met_without_its_row(dialect: str) -> None:
    """The strict server is strict: OpenAI's own row does not do for it."""
    form = {"type": "json_schema", "name": "o", "schema": {"type": "object"}}
    body = {**CODEX, "text": {"format": form}}
    written = to_chat("openai", body, efforts=("xhigh",)).body

    assert strict.refusal("chat", dialect, written)
    assert "" == strict.refusal("chat", "openai", written)


def roles(body: Body) -> list[str]:
    return [message["role"] for message in body["messages"]]


def talk(*turns: tuple[str, str]) -> Body:
    items = [
        {"type": "message", "role": role, "content": content} for role, content in turns
    ]
    return {"model": "m", "input": items}


def test_roles_alternate_for_mistral() -> None:
    """ "Unexpected role 'user' after role 'tool'" (Mistral)."""
    body = to_chat("mistral", CODEX).body

    assert ["system", "user", "assistant", "tool", "assistant", "user"] == roles(body)
    assert "Done." == body["messages"][4]["content"]
    assert "Look.\n\nPlease." == body["messages"][1]["content"]
    assert body["messages"][2]["content"] and body["messages"][2]["tool_calls"]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("assistant", "a"), ("user", "b")], ["user", "assistant", "user"]),
        (
            [("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")],
            ["user", "assistant", "user"],
        ),
    ],
)
def test_roles_alternate_where_an_account_says_so(
    turns: list[tuple[str, str]], expected: list[str]
) -> None:
    assert expected == roles(to_chat("other", talk(*turns), roles="alternate").body)


@pytest.mark.parametrize(
    ("prefill", "last"),
    [
        ("keep", {"role": "assistant", "content": "So"}),
        ("prefix", {"role": "assistant", "content": "So", "prefix": True}),
        ("turn", {"role": "user", "content": "(Continue.)"}),
    ],
)
def test_a_conversation_that_ends_with_the_assistant(prefill: str, last: Body) -> None:
    """ "Expected last role User or Tool (or Assistant with prefix True)" (Mistral)."""
    body = to_chat("other", talk(("user", "x"), ("assistant", "So")), prefill=prefill)

    assert last == body.body["messages"][-1]


@pytest.mark.parametrize(
    ("ids", "given", "written"),
    [
        ("verbatim", "functions.read:0", "functions.read:0"),
        ("verbatim", "c" * 90, "c" * 90),
        ("short", "functions.read:0", "functions.read:0"),
        ("narrow", "functions.read:0", "functions_read_0"),
        ("nine", "abcdEF123", "abcdEF123"),
    ],
)
def test_call_ids_as_the_server_takes_them(ids: str, given: str, written: str) -> None:
    body = {**CODEX, "input": [dict(item) for item in CODEX["input"]]}
    for item in body["input"]:
        if "call_id" in item:
            item["call_id"] = given
    found = list(strict.call_ids(to_chat("other", body, ids=ids).body))

    assert [written, written] == found


@pytest.mark.parametrize(("ids", "longest"), [("nine", 9), ("short", 40)])
def test_ids_that_are_made_are_legal_and_the_same_each_turn(
    ids: str, longest: int
) -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    items: list[Body] = []
    for n in range(50):
        call_id = f"functions.{'x' * 50}:{n}"
        output = {"type": "function_call_output", "call_id": call_id, "output": ""}
        items += [{**call, "call_id": call_id}, output]
    body = {"model": "m", "input": items}
    first, second = (
        list(strict.call_ids(to_chat("other", body, ids=ids).body)) for _ in range(2)
    )

    assert first == second and 50 == len(set(first))
    assert all(len(call_id) <= longest for call_id in first)


@pytest.mark.parametrize(
    ("dialect", "part", "path"),
    [
        ("deepseek", {"type": "input_image", "image_url": "https://h/i.png"}, ""),
        ("ollama", {"type": "input_image", "image_url": "https://h/i.png"}, ""),
        ("kimi", {"type": "input_image", "image_url": "https://h/i.png"}, ""),
        (
            "vllm",
            {
                "type": "input_file",
                "filename": "a.pdf",
                "file_data": "data:application/pdf;base64,JVBERi0=",
            },
            "",
        ),
    ],
)
def test_what_a_server_cannot_see_is_refused(
    dialect: str, part: Body, path: str
) -> None:
    item = {"type": "message", "role": "user", "content": [part]}

    with pytest.raises(ClientError) as caught:
        to_chat(dialect, {"model": "m", "input": [item]})

    assert "input[0].content[0]" == caught.value.param


def test_a_text_file_is_no_document() -> None:
    part = {
        "type": "input_file",
        "filename": "a.txt",
        "file_data": "data:text/plain;base64,aGVsbG8=",
    }
    item = {"type": "message", "role": "user", "content": [part]}

    body = to_chat("vllm", {"model": "m", "input": [item]}).body
    assert "a.txt:\n\nhello" == body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("options", "field", "dropped"),
    [
        (Options(parallel_tool_calls=False), "parallel_tool_calls", True),
        (Options(chat_user="none"), "user", True),
        (Options(stream_options=False), "stream_options", False),
        (Options(strict=False), "strict", True),
    ],
)
def test_a_field_that_the_server_does_not_know_is_left_out(
    options: Options, field: str, dropped: bool
) -> None:
    tool = {**CODEX["tools"][0], "strict": True}
    body = {**CODEX, "parallel_tool_calls": False, "tools": [tool]}
    names = {"model": "m", "upstream_model": "m"}
    converted = convert_request("responses", "chat", body, options=options, **names)

    [written] = converted.body["tools"]
    assert field not in {*converted.body, *written["function"]}
    named = {"user": "safety_identifier", "strict": "tools[0].strict"}.get(field, field)
    assert dropped == (named in converted.dropped)


def test_a_circle_of_references_ends_and_a_bomb_is_refused() -> None:
    """Each definition names the next one ten times: ten to the ninth schemas."""
    defs: Body = {
        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 10} for n in range(9)
    }
    defs["d9"] = {"type": "string"}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/d0"}},
        "$defs": defs,
    }
    tool = {"type": "function", "name": "f", "parameters": schema}

    with pytest.raises(ClientError) as caught:
        to_chat("gemini", {**CODEX, "tools": [tool]})

    assert (400, "tools[0].parameters") == (caught.value.status, caught.value.param)
    assert "" == strict.refusal("chat", "gemini", to_chat("gemini", CODEX).body)


@pytest.mark.parametrize("depth", [90, 5000])
def test_a_deep_schema_is_written_or_refused(depth: int) -> None:
    schema: Body = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"type": "function", "name": "f", "parameters": schema}
    body = {**CODEX, "tools": [tool]}

    if depth < 100:
        to_chat("openai", body)
        return
    with pytest.raises(ClientError):
        to_chat("openai", body)


CHOICES = ["required", {"type": "function", "name": "read"}]


@pytest.mark.parametrize("choice", CHOICES, ids=["any", "one"])
@pytest.mark.parametrize("effort", ["high", "none", ""])
@pytest.mark.parametrize("dialect", ["deepseek", "kimi", "qwen"])
def test_a_forced_call_is_asked_without_thinking(
    dialect: str, effort: str, choice: Any
) -> None:
    """They think unless the request forbids it; then they refuse all but "auto"."""
    body = {**CODEX, "tool_choice": choice, "reasoning": {"effort": effort}}
    converted = to_chat(dialect, body)

    assert "" == strict.refusal("chat", dialect, converted.body)
    assert "auto" != converted.body["tool_choice"]
    assert (effort == "high") == ("reasoning.effort" in converted.dropped)
    thinks = to_chat(dialect, body, thinks_when_forced=True).body
    assert (effort != "none") == bool(strict.refusal("chat", dialect, thinks))


def test_a_forced_call_on_a_messages_server_is_asked_without_thinking() -> None:
    """ "deepseek-reasoner does not support this tool_choice" (DeepSeek)."""
    body = {**CODEX, "tool_choice": "required"}
    names = {"model": "m", "upstream_model": "m"}
    options = dialects.options("deepseek", {})
    converted = convert_request("responses", "messages", body, options=options, **names)

    assert {"type": "disabled"} == converted.body["thinking"]
    assert {"type": "any"} == {"type": converted.body["tool_choice"]["type"]}


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("kimi-k2.6", False),
        ("moonshotai/kimi-k2.5", False),
        ("kimi-for-coding", False),
        ("k3-256k", False),
        ("kimi-k2-0905-preview", True),
        ("moonshot-v1-8k", True),
        ("deepseek-k3000", True),
    ],
)
def test_a_model_of_fixed_sampling_is_sent_none(model: str, sent: bool) -> None:
    """ "invalid temperature: only 1 is allowed for this model" (Moonshot)."""
    body = {**CODEX, "temperature": 0.2, "top_p": 0.9}
    options = dialects.options("kimi", {})
    names = {"model": "m", "upstream_model": model}
    converted = convert_request("responses", "chat", body, options=options, **names)

    for field in ("temperature", "top_p"):
        assert sent == (field in converted.body)
        assert sent != (field in converted.dropped)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("user", "a"), ("assistant", ""), ("user", "b")], ["a", "b"]),
        ([("user", "a"), ("assistant", " \n"), ("user", "b")], ["a", "b"]),
        ([("user", " "), ("user", "b")], ["(The message is empty.)", "b"]),
        ([("user", "a"), ("developer", "\n"), ("user", "b")], ["a", "b"]),
    ],
)
@pytest.mark.parametrize("dialect", ["openai", "kimi"])
def test_no_turn_is_blank(
    dialect: str, turns: list[tuple[str, str]], expected: list[str]
) -> None:
    """ "message at position 1 with role 'assistant' must not be empty" (Moonshot)."""
    body = {**talk(*turns), "instructions": " "}
    written = to_chat(dialect, body).body

    assert expected == [message["content"] for message in written["messages"]]


def test_blank_texts_beside_others_are_left_out() -> None:
    """Gemini refuses a part without text."""
    parts = [{"type": "input_text", "text": text} for text in ("\n", "a", "", "b")]
    item = {"type": "message", "role": "user", "content": parts}

    [message] = to_chat("gemini", {"model": "m", "input": [item]}).body["messages"]
    assert ["a", "b"] == [part["text"] for part in message["content"]]
