"""
What the vendors refuse does not leave the gateway: a test a row, in each direction.

``CASES`` has, for each row of ``refusals``, a client's request that would be refused if
its words were only put in the other protocol's places, and what becomes of it. ``BAD``
has the upstream's body that the vendor refuses, so that the strict servers are tested.
"""

from __future__ import annotations

import base64
import copy
from typing import Any, NamedTuple

import pytest

from gateway.errors import ClientError
from gateway.protocols import dialects
from gateway.protocols.request_converter import Converted, convert_request
from gateway.protocols.vendor_limits import REFUSALS, limit
from tests.kit import strict

Body = dict[str, Any]
USER = {"role": "user", "content": "x"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(30)).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(30)).decode()
GOOD = {"type": "object", "properties": {"a": {"type": "string"}}}
HUGE = 8001
WIDE = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + HUGE.to_bytes(4) + (9).to_bytes(4) + bytes(9)
).decode()


def chat(**fields: Any) -> Body:
    return {"model": "m", "messages": [USER], **fields}


def responses(**fields: Any) -> Body:
    return {"model": "m", "input": [{"type": "message", **USER}], **fields}


def messages(**fields: Any) -> Body:
    return {"model": "m", "max_tokens": 50, "messages": [USER], **fields}


def chat_tool(schema: Any, name: str = "f", **fields: Any) -> Body:
    function = {"name": name, "parameters": schema, **fields}
    return {"type": "function", "function": function}


def flat_tool(schema: Any, name: str = "f", **fields: Any) -> Body:
    return {"type": "function", "name": name, "parameters": schema, **fields}


def claude_tool(schema: Any, name: str = "f", **fields: Any) -> Body:
    return {"name": name, "input_schema": schema, **fields}


def chat_form(schema: Any, name: str = "out", **fields: Any) -> Body:
    form = {"name": name, "schema": schema, **fields}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def flat_form(schema: Any, name: str = "out", **fields: Any) -> Body:
    form = {"type": "json_schema", "name": name, "schema": schema, **fields}
    return {"text": {"format": form}}


def claude_form(schema: Any) -> Body:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


def chat_parts(*parts: Body) -> Body:
    return chat(messages=[{"role": "user", "content": list(parts)}])


def flat_parts(*parts: Body) -> Body:
    return responses(input=[{"role": "user", "content": list(parts)}])


def claude_parts(*parts: Body) -> Body:
    return messages(messages=[{"role": "user", "content": list(parts)}])


def chat_image(kind: str, data: str, detail: str = "auto") -> Body:
    url = {"url": f"data:{kind};base64,{data}", "detail": detail}
    return {"type": "image_url", "image_url": url}


def flat_image(kind: str, data: str, detail: str = "auto") -> Body:
    url = f"data:{kind};base64,{data}"
    return {"type": "input_image", "image_url": url, "detail": detail}


def claude_image(kind: str, data: str) -> Body:
    source = {"type": "base64", "media_type": kind, "data": data}
    return {"type": "image", "source": source}


def claude_file(kind: str, data: str) -> Body:
    source = {"type": "base64", "media_type": kind, "data": data}
    return {"type": "document", "source": source}


def chat_file(kind: str, data: str) -> Body:
    url = f"data:{kind};base64,{data}"
    return {"type": "file", "file": {"filename": "a", "file_data": url}}


def flat_file(kind: str, data: str) -> Body:
    url = f"data:{kind};base64,{data}"
    return {"type": "input_file", "filename": "a", "file_data": url}


def chat_calls(call_id: str) -> Body:
    call = {"id": call_id, "type": "function"}
    call["function"] = {"name": "f", "arguments": "{}"}  # type: ignore[assignment]
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call_id, "content": "y"}
    return chat(messages=[USER, said, result])


def claude_calls(call_id: str) -> Body:
    use = {"type": "tool_use", "id": call_id, "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": call_id, "content": "y"}
    said = {"role": "assistant", "content": [use]}
    return messages(messages=[USER, said, {"role": "user", "content": [result]}])


def flat_calls(call_id: str) -> Body:
    call = {"type": "function_call", "call_id": call_id, "name": "f"}
    return responses(
        input=[
            USER,
            {**call, "arguments": "{}"},
            {"type": "function_call_output", "call_id": call_id, "output": "y"},
        ]
    )


def marked(*ttls: str) -> Body:
    parts = []
    for ttl in ttls:
        mark = {"mode": "explicit", **({"ttl": ttl} if ttl else {})}
        part = {"type": "input_text", "text": "x", "prompt_cache_breakpoint": mark}
        parts.append(part)
    return flat_parts(*parts)


UNION = {"type": "object", "oneOf": [{**GOOD, "required": ["a"]}, {"type": "object"}]}
ARRAY = {"type": "object", "properties": {"l": {"type": "array"}}}
OPTIONAL = {**GOOD, "additionalProperties": False}
BOUND = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
KEYS = {"type": "object", "properties": {"$filter": {}, "a": {}}}
CIRCLE = {
    "type": "object",
    "properties": {"next": {"$ref": "#/$defs/n"}},
    "$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
}
LONG = "d" * 1500
OPENAI_TOOLS = [
    ("tool_name", claude_tool(GOOD, "a.b"), "gpt-5.5", ()),
    ("tool_description", claude_tool(GOOD, description=LONG), "gpt-4o", ()),
    ("tool_schema_object", claude_tool({"properties": {}}), "gpt-5.5", ()),
    ("tool_schema_properties", claude_tool({"type": "object"}), "gpt-5.5", ()),
    ("tool_schema_items", claude_tool(ARRAY), "gpt-5.5", ()),
    (
        "tool_schema_union",
        claude_tool(UNION),
        "gpt-5.5",
        ("tools[0].input_schema.oneOf",),
    ),
    ("tool_strict", claude_tool(OPTIONAL, strict=True), "gpt-5.5", ("tools[].strict",)),
]


class Case(NamedTuple):
    """*refused*: the path of our own 400; *dropped*: what is named as left out."""

    target: str
    name: str
    source: str
    body: Body
    dropped: tuple[str, ...] = ()
    refused: str = ""
    model: str = "gpt-5.5"


def openai(target: str) -> list[Case]:
    """What both of OpenAI's protocols refuse, from a client of Messages."""
    rows = [
        Case(target, name, "messages", messages(tools=[tool]), dropped, model=model)
        for name, tool, model, dropped in OPENAI_TOOLS
    ]
    tools = [claude_tool(GOOD, f"f{n}") for n in range(129)]
    most = limit(target, "image_bytes")
    return rows + [
        Case(target, "tools", "messages", messages(tools=tools), refused="tools"),
        Case(target, "format_strict", "messages", messages(**claude_form(OPTIONAL))),
        Case(
            target,
            "image_type",
            "messages",
            claude_parts(claude_image("image/bmp", "Qk0=")),
            refused="messages[0].content[0]",
        ),
        Case(
            target,
            "image_bytes",
            "messages",
            claude_parts(claude_image("image/png", PNG + "A" * most)),
            refused="messages[0].content[0]",
        ),
        Case(
            target,
            "file_bytes",
            "messages",
            claude_parts(claude_file("application/pdf", "A" * (most + 4))),
            refused="messages[0].content[0]",
        ),
    ]


CHAT = [
    *openai("chat"),
    Case("chat", "format_name", "responses", responses(**flat_form(GOOD, "a b"))),
    Case(
        "chat",
        "image_detail",
        "responses",
        flat_parts(flat_image("image/png", PNG, "original")),
    ),
    Case(
        "chat",
        "file_type",
        "responses",
        flat_parts(flat_file("application/msword", "AAAA")),
        refused="input[0].content[0]",
    ),
    Case("chat", "stop", "messages", messages(stop_sequences=list("abcde")), model="m"),
    Case("chat", "stop_thinking", "messages", messages(stop_sequences=["a"])),
    Case("chat", "call_id", "messages", claude_calls("c" * 60)),
    Case("chat", "call_id", "responses", flat_calls("c" * 60)),
]
RESPONSES = [
    *openai("responses"),
    Case("responses", "format_name", "chat", chat(**chat_form(GOOD, "a b"))),
    Case(
        "responses",
        "image_detail",
        "chat",
        chat_parts(chat_image("image/png", PNG, "sharp")),
        ("messages[0].content[0].detail",),
    ),
    Case("responses", "max_output_tokens", "chat", chat(max_tokens=1)),
    Case("responses", "max_output_tokens", "messages", messages(max_tokens=1)),
    Case("responses", "call_id", "messages", claude_calls("c" * 90)),
    Case("responses", "call_id", "chat", chat_calls("c" * 90)),
]
EACH_TOOL = [
    ("tool_name", GOOD, {"name": "a.b"}, (), ""),
    ("tool_schema_object", {"properties": {}}, {}, (), ""),
    ("tool_schema_union", UNION, {}, ("oneOf",), ""),
    ("tool_schema_keys", KEYS, {}, ("properties.$filter",), ""),
    (
        "tool_schema_keys",
        {**KEYS, "required": ["$filter"]},
        {},
        (),
        "properties.$filter",
    ),
]
EACH_FORM = [
    ("format_open", GOOD, (), False),
    ("format_open", {**GOOD, "additionalProperties": True}, (), False),
    ("format_open", {"type": "object", "properties": {"o": GOOD}}, (), False),
    ("format_open", {"type": "object"}, (), True),
    (
        "format_open",
        {"type": "object", "additionalProperties": {"type": "string"}},
        (),
        True,
    ),
    ("format_keywords", BOUND, ("minimum",), False),
    ("format_keywords", {**GOOD, "properties": {"o": {"oneOf": [GOOD]}}}, (), False),
    ("format_recursive", CIRCLE, (), True),
]


def anthropic() -> list[Case]:
    rows = []
    for name, schema, fields, dropped, refused in EACH_TOOL:
        for source, tool, body, path in (
            ("chat", chat_tool, chat, "tools[0].function.parameters."),
            ("responses", flat_tool, responses, "tools[0].parameters."),
        ):
            given = body(tools=[tool(schema, **fields)])
            paths = tuple(path + one for one in dropped)
            wrong = path + refused if refused else ""
            rows.append(Case("messages", name, source, given, paths, wrong))
    for name, schema, dropped, refused in EACH_FORM:
        for source, form, body, path in (
            ("chat", chat_form, chat, "response_format"),
            ("responses", flat_form, responses, "text.format"),
        ):
            given = body(**form(schema))
            paths = tuple(f"{path}.{one}" for one in dropped)
            wrong = path if refused else ""
            rows.append(Case("messages", name, source, given, paths, wrong))
    return rows


def media() -> list[Case]:
    """Images and documents that Anthropic refuses, out of both other protocols."""
    rows = []
    images = (
        ("image_type", "image/bmp", "Qk0=", True),
        ("image_type_true", "image/png", JPEG, False),
        (
            "image_bytes",
            "image/png",
            PNG + "A" * limit("messages", "image_bytes"),
            True,
        ),
        ("image_pixels", "image/png", WIDE, True),
    )
    for name, kind, data, refused in images:
        for source, body, path in (
            ("chat", chat_parts(chat_image(kind, data)), "messages[0].content[0]"),
            ("responses", flat_parts(flat_image(kind, data)), "input[0].content[0]"),
        ):
            wrong = path if refused else ""
            rows.append(Case("messages", name, source, body, refused=wrong))
    files = (
        ("document_type", "application/msword", "AAAA"),
        (
            "file_bytes",
            "application/pdf",
            "A" * (limit("messages", "file_bytes") + 4),
        ),
    )
    for name, kind, data in files:
        for source, body, path in (
            ("chat", chat_parts(chat_file(kind, data)), "messages[0].content[0]"),
            ("responses", flat_parts(flat_file(kind, data)), "input[0].content[0]"),
        ):
            rows.append(Case("messages", name, source, body, refused=path))
    return rows


ASSISTANT = {"role": "assistant", "content": "So "}
BLANK = {"role": "user", "content": " \n"}
FORCED = {"type": "function", "name": "f"}
MESSAGES = [
    *anthropic(),
    *media(),
    Case("messages", "text_blank", "chat", chat(messages=[BLANK, USER])),
    Case(
        "messages",
        "text_blank",
        "chat",
        chat_parts({"type": "text", "text": ""}, {"type": "text", "text": "x"}),
    ),
    Case(
        "messages",
        "text_blank",
        "chat",
        chat(messages=[{"role": "system", "content": " "}, USER]),
    ),
    Case("messages", "text_blank", "responses", responses(instructions="\n")),
    Case(
        "messages",
        "text_blank",
        "responses",
        responses(input=[USER, {**ASSISTANT, "content": " "}, USER]),
    ),
    Case("messages", "turn_empty", "chat", chat(messages=[USER, ASSISTANT, BLANK])),
    Case(
        "messages", "turn_empty", "responses", responses(input=[USER, ASSISTANT, BLANK])
    ),
    Case(
        "messages",
        "tool_twice",
        "chat",
        chat(tools=[chat_tool(GOOD)] * 2),
        ("tools[1].function",),
    ),
    Case("messages", "tool_twice", "responses", responses(tools=[flat_tool(GOOD)] * 2)),
    Case("messages", "call_id", "chat", chat_calls("functions.read:0")),
    Case("messages", "call_id", "responses", flat_calls("functions.read:0")),
    Case(
        "messages",
        "temperature",
        "chat",
        chat(temperature=1.7),
        model="claude-3-5-sonnet",
    ),
    Case("messages", "stop_blank", "chat", chat(stop=["\n\n", "a"])),
    Case("messages", "user_id", "chat", chat(user="u" * 300)),
    Case("messages", "user_id", "responses", responses(safety_identifier="u" * 300)),
    Case(
        "messages",
        "cache_marks",
        "responses",
        marked("", "", "", "", ""),
        ("input[].content[].prompt_cache_breakpoint",),
    ),
    Case("messages", "cache_order", "responses", marked("", "1h")),
    Case(
        "messages",
        "thinking_forced",
        "responses",
        responses(
            reasoning={"effort": "high"}, tools=[flat_tool(GOOD)], tool_choice=FORCED
        ),
        ("thinking",),
        model="claude-opus-4-7",
    ),
    Case(
        "messages",
        "ends_with_assistant",
        "chat",
        chat(messages=[USER, ASSISTANT]),
        model="claude-opus-4-6",
    ),
    Case(
        "messages",
        "ends_with_assistant",
        "responses",
        responses(input=[USER, ASSISTANT]),
    ),
    Case("messages", "begins_with_assistant", "chat", chat(messages=[ASSISTANT, USER])),
]
CASES = [*CHAT, *RESPONSES, *MESSAGES]


def convert(case: Case) -> Converted:
    dialect = "anthropic" if case.target == "messages" else "openai"
    return convert_request(
        case.source,
        case.target,
        copy.deepcopy(case.body),
        model=case.model,
        upstream_model=case.model,
        options=dialects.options(dialect, {}),
    )


def test_every_row_has_a_check_and_a_case() -> None:
    assert REFUSALS.keys() == strict.CHECKS.keys()
    assert REFUSALS.keys() == {(case.target, case.name) for case in CASES}


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.source}-{case.target}-{case.name}"
)
def test_what_a_vendor_refuses_does_not_reach_it(case: Case) -> None:
    if case.refused:
        with pytest.raises(ClientError) as caught:
            convert(case)
        assert (400, case.refused) == (caught.value.status, caught.value.param)
        assert f"'{case.refused}'" in caught.value.message
        return
    before = copy.deepcopy(case.body)
    converted = convert(case)

    assert "" == strict.refusal(case.target, "", converted.body)
    assert set(case.dropped) == set(converted.dropped)
    assert before == case.body


# ---------------------------------------------------------------- the strict servers

OPEN = {**OPTIONAL, "required": []}
BIG = "A" * (limit("chat", "image_bytes") + 200)
BOTH_BAD: dict[str, tuple[Body, Body]] = {
    "tool_name": (
        chat(tools=[chat_tool(GOOD, "a.b")]),
        responses(tools=[flat_tool(GOOD, "a.b")]),
    ),
    "tools": (
        chat(tools=[chat_tool(GOOD)] * 129),
        responses(tools=[flat_tool(GOOD)] * 129),
    ),
    "tool_description": (
        chat(model="o3", tools=[chat_tool(GOOD, description=LONG)]),
        responses(model="o3", tools=[flat_tool(GOOD, description=LONG)]),
    ),
    "tool_schema_object": (
        chat(tools=[chat_tool({"properties": {}})]),
        responses(tools=[flat_tool({"properties": {}})]),
    ),
    "tool_schema_properties": (
        chat(tools=[chat_tool({"type": "object"})]),
        responses(tools=[flat_tool({"type": "object"})]),
    ),
    "tool_schema_items": (
        chat(tools=[chat_tool(ARRAY)]),
        responses(tools=[flat_tool(ARRAY)]),
    ),
    "tool_schema_union": (
        chat(tools=[chat_tool({**UNION, "properties": {}})]),
        responses(tools=[flat_tool({**UNION, "properties": {}})]),
    ),
    "tool_strict": (
        chat(tools=[chat_tool(OPEN, strict=True)]),
        responses(tools=[flat_tool(OPEN, strict=True)]),
    ),
    "format_name": (
        chat(**chat_form(GOOD, "a b")),
        responses(**flat_form(GOOD, "a b")),
    ),
    "format_strict": (
        chat(**chat_form(OPEN, strict=True)),
        responses(**flat_form(OPEN, strict=True)),
    ),
    "image_type": (
        chat_parts(chat_image("image/bmp", "Qk0=")),
        flat_parts(flat_image("image/bmp", "Qk0=")),
    ),
    "image_bytes": (
        chat_parts(chat_image("image/png", BIG)),
        flat_parts(flat_image("image/png", BIG)),
    ),
    "file_bytes": (
        chat_parts(chat_file("application/pdf", BIG)),
        flat_parts(flat_file("application/pdf", BIG)),
    ),
    "image_detail": (
        chat_parts(chat_image("image/png", PNG, "original")),
        flat_parts(flat_image("image/png", PNG, "sharp")),
    ),
    "call_id": (chat_calls("c" * 41), flat_calls("c" * 65)),
}
SEARCH = {"type": "any"}
MARK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
TEXT = {"type": "text", "text": "x"}
BAD: dict[tuple[str, str], Body] = {
    **{("chat", name): pair[0] for name, pair in BOTH_BAD.items()},
    **{("responses", name): pair[1] for name, pair in BOTH_BAD.items()},
    ("chat", "file_type"): chat_parts(chat_file("application/msword", "AAAA")),
    ("chat", "stop"): chat(stop=list("abcde")),
    ("chat", "stop_thinking"): chat(model="gpt-5.5", stop=["a"]),
    ("responses", "max_output_tokens"): responses(max_output_tokens=1),
    ("messages", "text_blank"): claude_parts({"type": "text", "text": " "}),
    ("messages", "turn_empty"): messages(messages=[{"role": "user", "content": []}]),
    ("messages", "tool_name"): messages(tools=[claude_tool(GOOD, "a.b")]),
    ("messages", "tool_twice"): messages(tools=[claude_tool(GOOD)] * 2),
    ("messages", "tool_schema_object"): messages(tools=[claude_tool({})]),
    ("messages", "tool_schema_union"): messages(tools=[claude_tool(UNION)]),
    ("messages", "tool_schema_keys"): messages(tools=[claude_tool(KEYS)]),
    ("messages", "format_open"): messages(**claude_form(GOOD)),
    ("messages", "format_keywords"): messages(
        **claude_form({**BOUND, "additionalProperties": False})
    ),
    ("messages", "format_recursive"): messages(
        **claude_form({**CIRCLE, "additionalProperties": False})
    ),
    ("messages", "image_type"): claude_parts(claude_image("image/bmp", "Qk0A")),
    ("messages", "image_type_true"): claude_parts(claude_image("image/png", JPEG)),
    ("messages", "image_bytes"): claude_parts(claude_image("image/png", PNG + BIG)),
    ("messages", "image_pixels"): claude_parts(claude_image("image/png", WIDE)),
    ("messages", "document_type"): claude_parts(claude_file("application/x", "AAAA")),
    ("messages", "file_bytes"): claude_parts(claude_file("application/pdf", BIG)),
    ("messages", "call_id"): claude_calls("functions.read:0"),
    ("messages", "temperature"): messages(temperature=1.7),
    ("messages", "stop_blank"): messages(stop_sequences=[" "]),
    ("messages", "user_id"): messages(metadata={"user_id": "u" * 300}),
    ("messages", "cache_marks"): claude_parts(*[{**TEXT, **MARK}] * 5),
    ("messages", "cache_order"): claude_parts({**TEXT, **MARK}, {**TEXT, **HOUR}),
    ("messages", "thinking_forced"): messages(
        thinking={"type": "adaptive"}, tool_choice=SEARCH
    ),
    ("messages", "ends_with_assistant"): messages(messages=[USER, ASSISTANT]),
    ("messages", "begins_with_assistant"): messages(messages=[ASSISTANT, USER]),
}


@pytest.mark.parametrize("key", list(REFUSALS), ids="-".join)
def test_the_strict_server_refuses_it(key: tuple[str, str]) -> None:
    protocol, name = key

    assert strict.refusal(protocol, "", BAD[key]).startswith(f"{name}: ")


@pytest.mark.parametrize(
    "body",
    [chat(tools=[chat_tool(GOOD)]), responses(tools=[flat_tool(GOOD)]), messages()],
    ids=["chat", "responses", "messages"],
)
def test_the_strict_server_takes_what_is_right(body: Body) -> None:
    protocol = "responses" if "input" in body else "chat"
    protocol = "messages" if "max_tokens" in body else protocol

    assert "" == strict.refusal(protocol, "", body)
