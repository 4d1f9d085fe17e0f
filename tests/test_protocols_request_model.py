"""Names, ids and carried tools: what goes out is what comes back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ClientError
from gateway.protocols.claude_versions import claude_version
from gateway.protocols.history import NO_RESULT, settled
from gateway.protocols.legal_names import safe_id, safe_name
from gateway.protocols.messages.conversation import openai_proof, openai_signature
from gateway.protocols.model import (
    Item,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolName,
    ToolResult,
    Tools,
)
from gateway.protocols.options import Options
from gateway.protocols.tool_carrier import (
    as_arguments,
    as_object,
    call_item,
    local_shell_action,
    local_shell_fields,
    unwrap_custom,
    wrap,
)

LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}")


@given(st.text(max_size=90))
def test_safe_names_are_legal_and_stable(original: str) -> None:
    for safe in (safe_name, safe_id):
        assert LEGAL.fullmatch(safe(original))
        assert safe(original) == safe(safe(original)) == safe(original)


@given(st.from_regex(LEGAL, fullmatch=True))
def test_legal_names_are_kept(original: str) -> None:
    assert original == safe_name(original) == safe_id(original)


NAMES = st.text(alphabet="ab_.", min_size=1, max_size=6)
TOOL_NAMES = st.builds(
    ToolName,
    st.sampled_from(("function", "custom", "local_shell")),
    NAMES,
    st.one_of(st.just(""), NAMES),
)


@given(st.lists(TOOL_NAMES, unique=True, max_size=12))
def test_tools_find_every_tool_again(tools: list[ToolName]) -> None:
    names = Tools()
    wire = [names.wire_name(tool) for tool in tools]
    assert len(tools) == len(set(wire))
    assert all(LEGAL.fullmatch(name) for name in wire)
    assert tools == [names.resolve(name) for name in wire]
    assert wire == [names.wire_name(tool) for tool in tools]


def test_undeclared_name_is_a_function() -> None:
    assert ToolName("function", "f") == Tools().resolve("f")
    assert not Tools().wrapped("f")


@given(st.text())
def test_custom_input_survives_its_function(text: str) -> None:
    assert text == unwrap_custom(wrap("custom", text))


@pytest.mark.parametrize(
    "arguments, text",
    [
        pytest.param('{"input": "a"}', "a", id="as-declared"),
        pytest.param("*** Begin Patch", "*** Begin Patch", id="not-json"),
        pytest.param('"quoted"', "quoted", id="bare-string"),
        pytest.param("{}", "", id="empty-object"),
        pytest.param('{"patch": "a"}', '{"patch": "a"}', id="other-key"),
    ],
)
def test_custom_input_of_a_careless_model(arguments: str, text: str) -> None:
    assert text == unwrap_custom(arguments)


@given(st.text())
def test_arguments_survive_an_object(arguments: str) -> None:
    back = as_arguments(as_object(arguments))
    assert as_object(arguments) == as_object(back)


@pytest.mark.parametrize(
    "arguments, value",
    [
        pytest.param("", {}, id="none"),
        pytest.param(" ", {}, id="blank"),
        pytest.param('{"a": 1}', {"a": 1}, id="object"),
        pytest.param("[1]", {"__raw_arguments": "[1]"}, id="list"),
        pytest.param("null", {"__raw_arguments": "null"}, id="null"),
        pytest.param("{", {"__raw_arguments": "{"}, id="cut"),
    ],
)
def test_arguments_as_object(arguments: str, value: object) -> None:
    assert value == as_object(arguments)


def test_local_shell_survives_its_function() -> None:
    action = {
        "type": "exec",
        "command": ["ls", "-l"],
        "env": {"A": "b"},
        "timeout_ms": 5,
        "working_directory": "/tmp",
    }
    assert action == local_shell_action(local_shell_fields(action))


@pytest.mark.parametrize(
    "tool, arguments, item",
    [
        pytest.param(
            ToolName("function", "f", "ns"),
            "",
            {
                "type": "function_call",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
                "namespace": "ns",
            },
            id="namespaced-function",
        ),
        pytest.param(
            ToolName("custom", "p"),
            '{"input":"x"}',
            {"type": "custom_tool_call", "call_id": "c", "name": "p", "input": "x"},
            id="custom",
        ),
        pytest.param(
            ToolName("local_shell", "local_shell"),
            '{"command":"ls | wc"}',
            {
                "type": "local_shell_call",
                "call_id": "c",
                "action": {
                    "type": "exec",
                    "command": ["bash", "-lc", "ls | wc"],
                    "env": {},
                },
            },
            id="local-shell-with-one-string",
        ),
        pytest.param(
            ToolName("shell", "shell"),
            '{"commands":["ls"],"timeout_ms":5}',
            {
                "type": "shell_call",
                "call_id": "c",
                "action": {
                    "commands": ["ls"],
                    "timeout_ms": 5,
                    "max_output_length": None,
                },
            },
            id="shell",
        ),
        pytest.param(
            ToolName("apply_patch", "apply_patch"),
            '{"operation":{"type":"delete_file","path":"a"}}',
            {
                "type": "apply_patch_call",
                "call_id": "c",
                "operation": {"type": "delete_file", "path": "a"},
            },
            id="apply-patch",
        ),
        pytest.param(
            ToolName("tool_search", "tool_search"),
            '{"query":"mail"}',
            {
                "type": "tool_search_call",
                "call_id": "c",
                "execution": "client",
                "arguments": {"query": "mail"},
            },
            id="tool-search",
        ),
    ],
)
def test_call_comes_back_as_its_item(
    tool: ToolName, arguments: str, item: dict[str, object]
) -> None:
    assert item == call_item(tool, "c", arguments)


@given(st.text(), st.text())
def test_openai_proof_survives_a_signature(item_id: str, blob: str) -> None:
    assert (item_id, blob) == openai_proof(openai_signature(item_id, blob))


@pytest.mark.parametrize(
    "signature",
    ["", "c2ln", "gw1.openai.rs.", "gw1.openai.rs.!", "gw1.openai.rs.W10"],
)
def test_other_signatures_are_no_proof(signature: str) -> None:
    assert openai_proof(signature) is None


@pytest.mark.parametrize(
    "model, version",
    [
        pytest.param("claude-3-5-sonnet-20241022", (3, 5), id="number-first"),
        pytest.param("claude-sonnet-4-20250514", (4, 0), id="date-is-no-minor"),
        pytest.param("claude-haiku-4-5-20251001", (4, 5), id="minor-and-date"),
        pytest.param("eu.anthropic.claude-opus-4-6-v1:0", (4, 6), id="cloud"),
        pytest.param("claude-opus-4@20250514", (4, 0), id="at-date"),
        pytest.param("claude-sonnet-5", (5, 0), id="no-minor"),
        pytest.param("gpt-5.5", None, id="another-vendor"),
    ],
)
def test_claude_version(model: str, version: tuple[int, int] | None) -> None:
    assert version == claude_version(model)


# ---------------------------------------------------------------- history


def _call(call_id: str) -> ToolCall:
    return ToolCall(call_id, "f", "{}", path=f"call {call_id}")


def _result(call_id: str, text: str = "") -> ToolResult:
    return ToolResult(call_id, [Text(text)], path=f"result {call_id}")


def _said(role: str) -> Message:
    return Message(role, [Text(role)])  # type: ignore[arg-type]


def _short(items: list[Item]) -> list[str]:
    names = []
    for item in items:
        if isinstance(item, ToolCall):
            names.append(f"call {item.call_id}")
        elif isinstance(item, ToolResult):
            names.append(f"result {item.call_id}")
        else:
            names.append(item.role if isinstance(item, Message) else "reasoning")
    return names


@pytest.mark.parametrize(
    "items, order",
    [
        pytest.param(
            [_call("a"), _said("user"), _result("a")],
            ["call a", "result a", "user"],
            id="user-between",
        ),
        pytest.param(
            [_call("a"), _said("developer"), _result("a")],
            ["call a", "result a", "developer"],
            id="developer-between",
        ),
        pytest.param(
            [_call("a"), _result("a"), _call("b"), _result("b")],
            ["call a", "result a", "call b", "result b"],
            id="one-after-the-other",
        ),
        pytest.param(
            [_call("a"), _call("b"), _result("b"), _result("a")],
            ["call a", "call b", "result a", "result b"],
            id="parallel",
        ),
        pytest.param(
            [Reasoning(), _call("a"), _said("assistant"), _result("a")],
            ["reasoning", "call a", "assistant", "result a"],
            id="text-after-the-call",
        ),
        pytest.param(
            [_call("a"), _call("b"), _result("a"), _said("assistant"), _result("b")],
            ["call a", "call b", "result a", "result b", "assistant"],
            id="late-result",
        ),
        pytest.param(
            [_call("a"), _said("user")], ["call a", "user"], id="missing-result"
        ),
    ],
)
def test_results_follow_their_calls(items: list[Item], order: list[str]) -> None:
    assert order == _short(settled(items, Options()))


def test_last_result_wins() -> None:
    done = settled([_call("a"), _result("a", "1"), _result("a", "2")], Options())
    assert ["call a", "result a"] == _short(done)
    assert isinstance(done[1], ToolResult) and done[1].parts == [Text("2")]


def test_missing_result_is_filled_on_demand() -> None:
    done = settled([_call("a"), _said("user")], Options(fill_missing_results=True))
    assert ["call a", "result a", "user"] == _short(done)
    assert isinstance(done[1], ToolResult) and done[1].is_error
    assert done[1].parts == [Text(NO_RESULT)]


def test_ids_become_unique_and_legal() -> None:
    items: list[Item] = [
        _call("c 1"),
        _result("c 1"),
        _call("c_1"),
        _result("c_1"),
        _call("c_1"),
        _result("c_1"),
    ]
    calls = [
        item.call_id for item in settled(items, Options()) if isinstance(item, ToolCall)
    ]
    results = [
        item.call_id
        for item in settled(items, Options())
        if isinstance(item, ToolResult)
    ]
    assert calls == results
    assert 3 == len(set(calls)) and "c_1" == calls[1]


def test_result_without_call_is_refused_by_its_path() -> None:
    with pytest.raises(ClientError) as caught:
        settled([_result("a"), _call("a")], Options())
    assert "result a" == caught.value.param
