"""Conversion as a whole: nothing is lost that both sides can say, nothing crashes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import ClientError
from gateway.protocols import CODECS
from gateway.protocols.model import (
    Format,
    Image,
    Item,
    Message,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolName,
    ToolResult,
)
from gateway.protocols.options import Options
from gateway.protocols.request_converter import Converted, convert_request
from gateway.protocols.responses.request import with_earlier
from gateway.protocols.token_estimate import estimate_tokens

PAIRS = Path(__file__).parent / "wire" / "requests"
CROSS = [(a, b) for a in CODECS for b in CODECS if a != b]
MODELS = ("m", "claude-haiku-4-5", "claude-opus-5-5", "gpt-5", "gpt-4o")


def _convert(source: str, target: str, body: dict[str, Any], **more: Any) -> Converted:
    more.setdefault("upstream_model", "up")
    return convert_request(source, target, body, model="m", **more)


def _user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


# ---------------------------------------------------------------- there and back

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
TEXTS = st.text(min_size=1, max_size=12).filter(lambda text: text == text.strip())
SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(NAMES, st.just({}))}
)
CLOSED = SCHEMAS.map(  # what every vendor forces as it stands
    lambda schema: {
        **schema,
        "required": list(schema["properties"]),
        "additionalProperties": False,
    }
)
ARGUMENTS = st.dictionaries(NAMES, TEXTS | st.integers(-9, 9), max_size=3).map(
    lambda value: orjson.dumps(value).decode()
)
IMAGES = st.one_of(
    NAMES.map(lambda name: Image(url=f"https://example.com/{name}", detail="auto")),
    st.just(Image(media_type="image/png", data="iVBORw0KGgo=", detail="auto")),
)


@st.composite
def _turns(draw: st.DrawFn) -> list[Item]:
    """A conversation that every protocol writes the same way each time."""
    items: list[Item] = []
    for n in range(draw(st.integers(0, 3))):
        items.append(
            Message(
                "user", draw(st.lists(TEXTS.map(Text) | IMAGES, min_size=1, max_size=2))
            )
        )
        said = draw(st.none() | TEXTS)
        calls = draw(st.lists(st.tuples(NAMES, ARGUMENTS, TEXTS), max_size=2))
        if said is not None or not calls:
            items.append(Message("assistant", [Text(said or "ok")]))
        ids = [f"call_{n}_{k}" for k in range(len(calls))]
        for call_id, (name, arguments, _) in zip(ids, calls):
            items.append(ToolCall(call_id, name, arguments))
        for call_id, (_, _, result) in zip(ids, calls):
            items.append(ToolResult(call_id, [Text(result)]))
    items.append(Message("user", [Text(draw(TEXTS))]))
    return items


@st.composite
def _requests(draw: st.DrawFn, source: str, target: str) -> Request:
    """A request of what *source* and *target* can both say."""
    pair = {source, target}
    request = Request("m", items=draw(_turns()), max_tokens=draw(st.integers(16, 9999)))
    if draw(st.booleans()):
        request.instructions = [Text(draw(TEXTS))]
    for name in draw(st.lists(NAMES, unique=True, max_size=3)):
        tool = Tool("function", name, parameters=draw(SCHEMAS))
        tool.description = draw(st.just("") | TEXTS)
        tool.strict = False if "messages" not in pair else None
        request.tools.append(tool)
    if request.tools:
        forced = ToolName("function", request.tools[0].name)
        request.choice = draw(
            st.sampled_from(
                [
                    ToolChoice(),
                    ToolChoice("auto"),
                    ToolChoice("none"),
                    ToolChoice("required"),
                    ToolChoice("tool", forced),
                ]
            )
        )
        if request.choice.mode in ("auto", "required", "tool"):
            request.parallel = draw(st.sampled_from([None, False]))
    request.stream = draw(st.sampled_from([None, True]))
    request.user = draw(st.just("") | NAMES)
    request.temperature = draw(st.none() | st.sampled_from([0, 0.5, 1]))
    if draw(st.booleans()):
        request.thinking = _thinking(draw(st.sampled_from(["low", "high"])), pair)
    if draw(st.booleans()):
        request.format = Format("json_schema", "output", draw(CLOSED), True)
    _add_what_two_say(draw, request, pair)
    return request


def _thinking(effort: str, pair: set[str]) -> Thinking:
    if pair == {"responses", "messages"}:
        return Thinking(effort, "auto", kept=True)
    return Thinking(effort)


def _add_what_two_say(draw: st.DrawFn, request: Request, pair: set[str]) -> None:
    if "messages" not in pair:
        request.cache_key = draw(st.just("") | NAMES)
        request.verbosity = draw(st.sampled_from(["", "low"]))
        request.service_tier = draw(st.sampled_from(["", "auto", "flex"]))
        request.top_p = draw(st.none() | st.just(0.9))
    else:
        request.service_tier = draw(st.sampled_from(["", "auto", "default"]))
    if "responses" not in pair:
        request.stop = draw(st.lists(TEXTS, max_size=4))
    if "messages" in pair and request.thinking is not None:
        request.temperature = None  # Messages takes no other beside thinking


ROUND = settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("source, target", CROSS)
def test_there_and_back_is_the_same(source: str, target: str) -> None:
    @ROUND
    @given(_requests(source, target))
    def check(request: Request) -> None:
        first = CODECS[source].write_request(request, Options()).body
        first["model"] = "m"
        there = _convert(source, target, first)
        back = _convert(target, source, there.body, upstream_model="m")
        expected = json.loads(orjson.dumps(first))
        got = json.loads(back.encoded())
        assert _neutral(expected) == _neutral(got)
        hints = {"store", "include"}
        assert hints >= set(there.dropped) | set(back.dropped)

    check()


def _neutral(body: dict[str, Any]) -> dict[str, Any]:
    """
    *body* with the instructions in one place (a system message is an item too) and
    without an image's detail, whose default some write and others do not.
    """
    body = copy.deepcopy(body)
    for holder, key in _places(body, []):
        if key == "detail":
            holder.pop(key)
    items = body.get("input")
    if items and items[0].get("role") == "system":
        body["instructions"] = items.pop(0)["content"][0]["text"]
    return body


# ---------------------------------------------------------------- what comes back


def test_asked_of_a_responses_client() -> None:
    tools = [{"type": "web_search"}]
    body = {
        "model": "m",
        "input": "x",
        "stream": True,
        "store": False,
        "tools": tools,
        "temperature": 0.5,
        "metadata": {"k": "v"},
        "user": None,
    }
    asked = _convert("responses", "messages", body).asked
    assert ("m", True, True, True) == (
        asked.model,
        asked.stream,
        asked.encrypted_reasoning,
        asked.web_search,
    )
    assert {
        "store": False,
        "tools": tools,
        "temperature": 0.5,
        "metadata": {"k": "v"},
    } == asked.echo


@pytest.mark.parametrize(
    "more, expected",
    [
        pytest.param({}, False, id="stored"),
        pytest.param({"store": True, "include": []}, False, id="store-true"),
        pytest.param({"store": False}, True, id="not-stored"),
        pytest.param(
            {"include": ["reasoning.encrypted_content"]}, True, id="asked-for"
        ),
    ],
)
def test_encrypted_reasoning(more: dict[str, Any], expected: bool) -> None:
    asked = _convert("responses", "chat", {"model": "m", "input": "x", **more}).asked
    assert expected is asked.encrypted_reasoning


@pytest.mark.parametrize(
    "thinking, shown, hidden",
    [
        pytest.param(None, False, False, id="unsaid"),
        pytest.param({"type": "disabled"}, False, False, id="off"),
        pytest.param({"type": "adaptive"}, True, False, id="on"),
        pytest.param(
            {"type": "adaptive", "display": "omitted"}, True, True, id="omitted"
        ),
    ],
)
def test_asked_of_a_messages_client(
    thinking: dict[str, Any] | None, shown: bool, hidden: bool
) -> None:
    body = {
        "model": "m",
        "max_tokens": 9,
        "thinking": thinking,
        "messages": [{"role": "user", "content": "x" * 350}],
    }
    asked = _convert("messages", "responses", body).asked
    assert (shown, hidden) == (asked.thinking, asked.thinking_hidden)
    assert estimate_tokens(body) == asked.input_tokens


@pytest.mark.parametrize("wish", [True, False, None])
def test_usage_chunk_is_asked_upstream_and_remembered(wish: bool | None) -> None:
    body: dict[str, Any] = {"model": "m", "stream": True, "messages": [_user("x")]}
    if wish is not None:
        body["stream_options"] = {"include_usage": wish}
    assert bool(wish) is _convert("chat", "messages", body).asked.include_usage
    upstream = _convert(
        "messages", "chat", {"max_tokens": 9, "messages": [_user("x")], "stream": True}
    )
    assert {"include_usage": True} == upstream.body["stream_options"]


def test_stream_upstream_is_the_callers_choice() -> None:
    body = {"model": "m", "input": "x"}
    converted = _convert("responses", "chat", body, stream=True)
    assert converted.body["stream"] is True and converted.asked.stream is False
    assert "stream" not in _convert("responses", "chat", body).body


def test_stop_sequences_that_the_gateway_cuts() -> None:
    body = {"model": "m", "stop": ["a", "\n"], "messages": [_user("x")]}
    to_messages = _convert("chat", "messages", body)
    to_responses = _convert("chat", "responses", body)
    assert (("\n",), ("a", "\n")) == (to_messages.asked.cut, to_responses.asked.cut)
    assert ["a"] == to_messages.body["stop_sequences"]
    assert ("a", "\n") == to_messages.asked.stop


def test_tools_lead_back_to_the_clients_names() -> None:
    body = {
        "model": "m",
        "input": "x",
        "tools": [
            {"type": "custom", "name": "patch"},
            {"type": "local_shell"},
            {
                "type": "namespace",
                "name": "mail",
                "tools": [{"type": "function", "name": "send.now"}],
            },
        ],
    }
    converted = _convert("responses", "messages", body)
    wire = [tool["name"] for tool in converted.body["tools"]]
    assert [
        ToolName("custom", "patch"),
        ToolName("local_shell", "local_shell"),
        ToolName("function", "send.now", "mail"),
    ] == [converted.tools.resolve(name) for name in wire]
    wrapped = [converted.tools.wrapped(name) for name in wire]
    assert [True, True, False] == wrapped


def test_custom_tool_is_native_in_responses() -> None:
    tool = {"type": "custom", "custom": {"name": "patch"}}
    body = {"model": "m", "messages": [_user("x")], "tools": [tool]}
    assert not _convert("chat", "responses", body).tools.wrapped("patch")


def test_function_called_web_search_does_not_meet_the_server_tool() -> None:
    body = {
        "model": "m",
        "input": "x",
        "tools": [{"type": "web_search"}, {"type": "function", "name": "other"}],
    }
    body["input"] = [
        _user("x"),
        {
            "type": "function_call",
            "call_id": "c",
            "name": "web_search",
            "arguments": "",
        },
        {"type": "function_call_output", "call_id": "c", "output": ""},
    ]
    converted = _convert("responses", "messages", body)
    names = [tool["name"] for tool in converted.body["tools"]]
    assert ["web_search", "other"] == names


def test_cache_marks_can_be_left_out() -> None:
    block = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    body = {"max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}
    plain = Options(responses_cache_marks=False)
    converted = _convert("messages", "responses", body, options=plain)
    assert [{"type": "input_text", "text": "x"}] == converted.body["input"][0][
        "content"
    ]
    assert ("messages[].content[].cache_control",) == converted.dropped


def test_refusal_names_path_model_and_protocol() -> None:
    with pytest.raises(ClientError) as caught:
        _convert("responses", "chat", {"model": "m", "input": "x", "background": True})
    assert (
        "'background' is not supported for model 'm' (its upstream speaks chat)"
        == caught.value.message
    )


def test_earlier_turn_goes_before_the_input() -> None:
    body = {"model": "m", "input": "b", "previous_response_id": "resp_1"}
    whole = with_earlier(body, [_user("a")])
    assert {"model": "m", "input": [_user("a"), _user("b")]} == whole
    assert "previous_response_id" in body


def test_deep_arguments_are_the_clients_mistake() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f"}
    call["arguments"] = '{"a":' + "[" * 400 + "]" * 400 + "}"
    result = {"type": "function_call_output", "call_id": "c", "output": ""}
    body = {"model": "m", "input": [_user("x"), call, result]}
    with pytest.raises(ClientError) as caught:
        _convert("responses", "messages", body).encoded()
    assert "invalid_request" == caught.value.code


# ---------------------------------------------------------------- bad input

WORDS = st.sampled_from(
    (
        "",
        "x",
        "user",
        "assistant",
        "text",
        "function",
        "auto",
        "none",
        "data:",
        "data:image/png;base64,AA",
        "{}",
        "[]",
        "tool_result",
        "tool_use",
        "thinking",
        "web_search",
        "custom",
        "image",
        "input_file",
        "gw1.compact.!",
        "gw1.openai.rs.e30",
    )
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.sampled_from((0, 1, -1, 16, 2**63, 0.5, -0.5, 1e300))
    | WORDS
    | st.text(max_size=4)
)
KEYS = st.sampled_from(
    "type role content name id call_id input text source function tools arguments "
    "output action format schema url image_url encrypted_content".split()
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)
BODY_KEYS = st.sampled_from(
    "model input messages system instructions tools functions tool_choice "
    "function_call stream stop stop_sequences max_tokens max_output_tokens thinking "
    "output_config reasoning reasoning_effort response_format text include metadata "
    "stream_options n modalities temperature top_k user safety_identifier "
    "parallel_tool_calls web_search_options cache_control service_tier".split()
)


def _bodies(source: str) -> list[dict[str, Any]]:
    return [
        pair["input"]
        for path in sorted(PAIRS.glob(f"{source}_to_*.json"))
        for pair in json.loads(path.read_text())
        if "expected" in pair
    ]


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        found.append((value, key))
        _places(value[key], found)
    return found


@st.composite
def _damaged(draw: st.DrawFn, source: str) -> dict[str, Any]:
    """A good body with one to three places replaced, doubled or taken out."""
    body = copy.deepcopy(draw(st.sampled_from(_bodies(source))))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(body, [])
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(("replace", "replace", "double", "remove")))
        if how == "replace":
            holder[key] = draw(JUNK)
        elif how == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
    return body


FUZZ = settings(
    max_examples=150,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def _only_client_errors(source: str, body: dict[str, Any], model: str) -> None:
    for target in CODECS:
        if target == source:
            continue
        try:
            converted = _convert(source, target, body, upstream_model=model)
            sent = orjson.loads(converted.encoded())
        except ClientError as error:
            assert 400 == error.status and error.message
            continue
        assert sent["messages" if "messages" in sent else "input"]
        budget = (sent.get("thinking") or {}).get("budget_tokens")
        assert budget is None or 1024 <= budget < sent["max_tokens"]


@pytest.mark.parametrize("source", CODECS)
def test_damaged_bodies_give_client_errors_only(source: str) -> None:
    @FUZZ
    @given(_damaged(source), st.sampled_from(MODELS))
    def check(body: dict[str, Any], model: str) -> None:
        _only_client_errors(source, body, model)

    check()


@pytest.mark.parametrize("source", CODECS)
def test_arbitrary_bodies_give_client_errors_only(source: str) -> None:
    @FUZZ
    @given(st.dictionaries(BODY_KEYS, JUNK, max_size=6), st.sampled_from(MODELS))
    def check(body: dict[str, Any], model: str) -> None:
        _only_client_errors(source, body, model)

    check()
