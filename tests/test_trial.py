"""The trial account is a real upstream: the official SDKs read all that it says."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest

from gateway.trial import TrialResponse, answer
from gateway.trial.example import WORDS

ECHO = f"echo {WORDS}"
FREE_TEXT = f'"{WORDS}"'
PATHS = {
    "responses": "/responses",
    "chat": "/chat/completions",
    "messages": "/messages",
}
PROTOCOLS = tuple(PATHS)
EXEC = {
    "type": "object",
    "properties": {"cmd": {"type": "string"}, "workdir": {"type": "string"}},
    "required": ["cmd"],
}
NOW = 1_764_000_000


def ask(protocol: str, body: dict[str, Any], path: str = "") -> TrialResponse:
    return answer(
        protocol, path or PATHS[protocol], body, {}, now_unix=NOW, ident="a-1"
    )


def request(protocol: str, prompt: str, **more: Any) -> dict[str, Any]:
    """The smallest body of *protocol* that says *prompt*."""
    body: dict[str, Any] = {"model": "trial"}
    if protocol == "responses":
        body["input"] = prompt
    else:
        body["messages"] = [{"role": "user", "content": prompt}]
    if protocol == "messages":
        body["max_tokens"] = 1000
    return body | more


def tools(protocol: str) -> list[dict[str, Any]]:
    function = {"name": "exec_command", "parameters": EXEC}
    other = {"name": "other", "parameters": {"type": "object", "properties": {}}}
    return {
        "responses": [{"type": "function", **tool} for tool in (function, other)],
        "chat": [{"type": "function", "function": tool} for tool in (function, other)],
        "messages": [
            {"name": tool["name"], "input_schema": tool["parameters"]}
            for tool in (function, other)
        ],
    }[protocol]


def with_result(protocol: str, result: str) -> dict[str, Any]:
    """A conversation whose last word is a tool's."""
    body = request(protocol, "call the tool", tools=tools(protocol))
    if protocol == "responses":
        call = {"call_id": "c1", "name": "exec_command", "arguments": "{}"}
        body["input"] = [
            {"type": "message", "role": "user", "content": "call the tool"},
            {"type": "function_call", **call},
            {"type": "function_call_output", "call_id": "c1", "output": result},
        ]
    elif protocol == "chat":
        function = {"name": "exec_command", "arguments": "{}"}
        body["messages"] += [
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": result},
        ]
    else:
        use = {"type": "tool_use", "id": "c1", "name": "exec_command", "input": {}}
        output = [{"type": "text", "text": result}]
        body["messages"] += [
            {"role": "assistant", "content": [use]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": output},
                    {"type": "text", "text": "<system-reminder>x</system-reminder>"},
                ],
            },
        ]
    return body


# --- the official SDKs as readers ---------------------------------------------------


def transport(request: httpx2.Request) -> httpx2.Response:
    """Plays the trial account to an SDK."""
    protocol = next(p for p, path in PATHS.items() if path in request.url.path)
    trial = ask(protocol, orjson.loads(request.content), request.url.path)
    if trial.pieces is None:
        return httpx2.Response(trial.status, headers=trial.headers, content=trial.body)
    content = b"".join(piece for _, piece in trial.pieces)
    return httpx2.Response(trial.status, headers=trial.headers, content=content)


@pytest.fixture
def openai_sdk() -> Iterator[openai.OpenAI]:
    http = httpx2.Client(transport=httpx2.MockTransport(transport))
    with openai.OpenAI(
        api_key="k", base_url="http://127.0.0.1/v1", max_retries=0, http_client=http
    ) as client:
        yield client


@pytest.fixture
def anthropic_sdk() -> Iterator[anthropic.Anthropic]:
    http = httpx2.Client(transport=httpx2.MockTransport(transport))
    with anthropic.Anthropic(
        api_key="k", base_url="http://127.0.0.1", max_retries=0, http_client=http
    ) as client:
        yield client


def test_openai_responses_helper_follows_the_stream(openai_sdk: openai.OpenAI) -> None:
    with openai_sdk.responses.stream(model="trial", input="Hi, how are you?") as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()

    assert ["You", " said:", " Hi,", " how", " are", " you?"] == deltas
    assert "You said: Hi, how are you?" == final.output_text
    assert "completed" == final.status
    assert final.usage is not None
    assert (4, 6, 10) == (
        final.usage.input_tokens,
        final.usage.output_tokens,
        final.usage.total_tokens,
    )


def test_openai_chat_helper_follows_the_stream(openai_sdk: openai.OpenAI) -> None:
    with openai_sdk.chat.completions.stream(
        model="trial",
        messages=[{"role": "user", "content": "Hi there"}],
        stream_options={"include_usage": True},
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()

    assert "You said: Hi there" == final.choices[0].message.content
    assert "stop" == final.choices[0].finish_reason
    assert final.usage is not None
    assert (2, 4) == (final.usage.prompt_tokens, final.usage.completion_tokens)


def test_anthropic_helper_follows_the_stream(
    anthropic_sdk: anthropic.Anthropic,
) -> None:
    with anthropic_sdk.messages.stream(
        model="trial", max_tokens=99, messages=[{"role": "user", "content": "Hi there"}]
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert "You said: Hi there" == text
    assert "end_turn" == final.stop_reason
    assert (2, 4) == (final.usage.input_tokens, final.usage.output_tokens)


def test_openai_reads_whole_answers(openai_sdk: openai.OpenAI) -> None:
    response = openai_sdk.responses.create(model="trial", input="Hi")
    completion = openai_sdk.chat.completions.create(
        model="trial", messages=[{"role": "user", "content": "Hi"}]
    )

    assert "You said: Hi" == response.output_text
    assert "You said: Hi" == completion.choices[0].message.content
    assert "resp_a1" == response.id
    assert "req_a1" == response._request_id


def test_anthropic_reads_whole_answers_and_counts(
    anthropic_sdk: anthropic.Anthropic,
) -> None:
    said: Any = [{"role": "user", "content": "Hi you"}]
    message = anthropic_sdk.messages.create(
        model="trial", max_tokens=9, messages=said, system="Be brief."
    )
    counted = anthropic_sdk.messages.count_tokens(
        model="trial", messages=said, system="Be brief."
    )

    assert "You said: Hi you" == message.content[0].text  # type: ignore[union-attr]
    assert 4 == message.usage.input_tokens == counted.input_tokens


def test_sdks_raise_what_the_trial_account_refuses(
    openai_sdk: openai.OpenAI, anthropic_sdk: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.BadRequestError, match="keeps no responses") as refused:
        openai_sdk.responses.create(
            model="trial", input="Hi", previous_response_id="resp_1"
        )
    with pytest.raises(anthropic.BadRequestError, match="at least one message"):
        anthropic_sdk.messages.create(model="trial", max_tokens=9, messages=[])

    assert "previous_response_not_found" == refused.value.code
    assert "previous_response_id" == refused.value.param


def test_compact_gives_the_users_words_and_one_blob(openai_sdk: openai.OpenAI) -> None:
    compacted = openai_sdk.responses.compact(
        model="trial",
        input=[
            {"role": "user", "content": "one two"},
            {"role": "assistant", "content": "three"},
        ],
    )

    assert ["message", "compaction"] == [item.type for item in compacted.output]
    assert "response.compaction" == compacted.object
    assert 3 == compacted.usage.input_tokens


# --- the order and the form of events, by independent rules --------------------------


def wirecheck() -> ModuleType:
    """The optional checker of streams; not part of this project."""
    beside = Path(__file__).parents[2] / "shared"
    path = Path(os.environ.get("GATEWAY_SHARED", beside)) / "vectors/wirecheck.py"
    if not path.exists():
        pytest.skip(f"no wire vectors at {path} (set GATEWAY_SHARED)")
    spec = importlib.util.spec_from_file_location("wirecheck", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


CASES = [
    pytest.param("Hello, wörld 🌍\n\nsecond line", {}, id="echo"),
    pytest.param("call the tool", {"tools": True}, id="tool"),
    pytest.param("", {}, id="nothing-said"),
    pytest.param("one two three four", {"cut": 3}, id="cut-by-the-limit"),
    pytest.param("say it", {"cut": 0}, id="no-word-allowed"),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("prompt", "more"), CASES)
def test_streams_are_legal_by_independent_rules(
    protocol: str, prompt: str, more: dict[str, Any]
) -> None:
    check = wirecheck()
    body = request(protocol, prompt, stream=True)
    if protocol == "chat":
        body["stream_options"] = {"include_usage": True}
    if more.get("tools"):
        body["tools"] = tools(protocol)
    if "cut" in more:
        body[limit_name(protocol)] = more["cut"]
    trial = ask(protocol, body)
    assert trial.pieces is not None
    raw = [piece for _, piece in trial.pieces]
    events = check.parse_sse(raw)

    assert [] == check.grammar(protocol, events)
    assert [] == [
        problem
        for event in events
        if event.data != "[DONE]"
        for problem in check.validate_event(protocol, event.json())
    ]
    run = check.sdk_run(protocol, raw)
    assert "ok" == run.raw
    tells = {"responses": "no-final", "chat": "LengthFinishReasonError"}
    assert (tells.get(protocol, "ok") if "cut" in more else "ok") == run.helper


def limit_name(protocol: str) -> str:
    names = {
        "responses": "max_output_tokens",
        "chat": "max_completion_tokens",
        "messages": "max_tokens",
    }
    return names[protocol]


# --- what it says ------------------------------------------------------------------


def events(trial: TrialResponse) -> list[dict[str, Any]]:
    assert trial.pieces is not None
    raw = b"".join(piece for _, piece in trial.pieces).decode()
    lines = [line for line in raw.split("\n") if line.startswith("data: {")]
    return [orjson.loads(line[6:]) for line in lines]


def folded(protocol: str, body: dict[str, Any]) -> tuple[str, list[Any], str]:
    """Text, calls as (name, arguments) and finish of the answer without stream."""
    trial = ask(protocol, body)
    assert 200 == trial.status
    got = orjson.loads(trial.body)
    if protocol == "responses":
        parts = [part for i in got["output"] for part in i.get("content", [])]
        calls = [
            (i["name"], orjson.loads(i["arguments"]))
            for i in got["output"]
            if i["type"] == "function_call"
        ]
        return "".join(part["text"] for part in parts), calls, got["status"]
    if protocol == "chat":
        choice = got["choices"][0]
        calls = [
            (c["function"]["name"], orjson.loads(c["function"]["arguments"]))
            for c in choice["message"].get("tool_calls", [])
        ]
        return choice["message"]["content"], calls, choice["finish_reason"]
    text = "".join(block.get("text", "") for block in got["content"])
    calls = [(b["name"], b["input"]) for b in got["content"] if b["type"] == "tool_use"]
    return text, calls, got["stop_reason"]


ENDS = {
    "responses": ("completed", "completed", "incomplete"),
    "chat": ("stop", "tool_calls", "length"),
    "messages": ("end_turn", "tool_use", "max_tokens"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_first_tool_is_called_when_the_prompt_says_so(protocol: str) -> None:
    body = request(protocol, "Please CALL the tool now.", tools=tools(protocol))
    text, calls, end = folded(protocol, body)

    assert "I call the tool exec_command." == text
    assert [("exec_command", {"cmd": ECHO})] == calls
    assert ENDS[protocol][1] == end


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_tool_that_the_prompt_names_is_called(protocol: str) -> None:
    body = request(protocol, "call the tool `other`.", tools=tools(protocol))

    assert [("other", {})] == folded(protocol, body)[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_tools_the_prompt_is_only_echoed(protocol: str) -> None:
    text, calls, end = folded(protocol, request(protocol, "call the tool"))

    assert ("You said: call the tool", []) == (text, calls)
    assert ENDS[protocol][0] == end


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_tool_result_is_quoted_and_no_tool_called_again(protocol: str) -> None:
    text, calls, end = folded(protocol, with_result(protocol, "Output:\nhello\n"))

    assert ('The tool said: "Output:\nhello"', []) == (text, calls)
    assert ENDS[protocol][0] == end


@pytest.mark.parametrize(
    ("protocol", "choice", "called"),
    [
        pytest.param("responses", "none", [], id="responses-none"),
        pytest.param("responses", "required", ["exec_command"], id="responses-any"),
        pytest.param(
            "responses", {"type": "function", "name": "other"}, ["other"], id="named"
        ),
        pytest.param("chat", "none", [], id="chat-none"),
        pytest.param("chat", "required", ["exec_command"], id="chat-any"),
        pytest.param(
            "chat",
            {"type": "function", "function": {"name": "other"}},
            ["other"],
            id="chat-named",
        ),
        pytest.param("messages", {"type": "none"}, [], id="messages-none"),
        pytest.param("messages", {"type": "any"}, ["exec_command"], id="messages-any"),
        pytest.param(
            "messages",
            {"type": "tool", "name": "other"},
            ["other"],
            id="messages-named",
        ),
    ],
)
def test_tool_choice_is_obeyed(protocol: str, choice: Any, called: list[str]) -> None:
    said = "call the tool" if not called else "no word of it"
    body = request(protocol, said, tools=tools(protocol), tool_choice=choice)

    assert called == [name for name, _ in folded(protocol, body)[1]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_answer_is_cut_at_the_clients_limit(protocol: str) -> None:
    body = request(protocol, "one two three") | {limit_name(protocol): 3}
    text, _, end = folded(protocol, body)

    assert "You said: one" == text
    assert ENDS[protocol][2] == end


@pytest.mark.parametrize(
    ("protocol", "field"),
    [
        pytest.param(
            "responses",
            {"text": {"format": {"type": "json_schema", "schema": EXEC}}},
            id="responses",
        ),
        pytest.param(
            "chat",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": EXEC},
                }
            },
            id="chat",
        ),
        pytest.param(
            "messages",
            {"output_config": {"format": {"type": "json_schema", "schema": EXEC}}},
            id="messages",
        ),
    ],
)
def test_a_wanted_schema_gives_json(protocol: str, field: dict[str, Any]) -> None:
    text = folded(protocol, request(protocol, "hello") | field)[0]

    assert {"cmd": ECHO} == orjson.loads(text)


def test_codex_offers_tools_in_an_input_item() -> None:
    """Newer models: no ``tools``, but an ``additional_tools`` item comes first."""
    body = request("responses", "", stream=True)
    exec_command = {"type": "function", "name": "exec_command", "parameters": EXEC}
    body["input"] = [
        {"type": "additional_tools", "role": "developer", "tools": [exec_command]},
        {"type": "message", "role": "developer", "content": "call the tool: never"},
        user("<environment_context>\n<cwd>/</cwd>\n</environment_context>"),
        user("call the tool"),
    ]
    got = events(ask("responses", body))
    calls = [e["item"] for e in got if e["type"] == "response.output_item.done"][1:]

    assert [{"cmd": ECHO}] == [orjson.loads(call["arguments"]) for call in calls]
    assert calls == got[-1]["response"]["output"][1:]


def user(text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


def test_a_custom_tool_gets_free_text() -> None:
    patch = {"type": "custom", "name": "apply_patch", "format": {"type": "text"}}
    body = request("responses", "call the tool", tools=[patch], stream=True)
    got = events(ask("responses", body))
    deltas = "".join(
        e["delta"] for e in got if e["type"] == "response.custom_tool_call_input.delta"
    )
    item = got[-1]["response"]["output"][1]

    assert "custom_tool_call" == item["type"]
    assert FREE_TEXT == item["input"] == deltas


def test_a_custom_tool_of_chat_gets_free_text() -> None:
    patch = {"type": "custom", "custom": {"name": "apply_patch"}}
    body = request("chat", "call the tool", tools=[patch])
    call = orjson.loads(ask("chat", body).body)["choices"][0]["message"]["tool_calls"]

    assert {"name": "apply_patch", "input": FREE_TEXT} == call[0]["custom"]


def test_a_tool_of_a_namespace_keeps_it() -> None:
    inner = {"type": "function", "name": "search", "parameters": {}}
    space = {"type": "namespace", "name": "mcp__docs", "tools": [inner]}
    body = request("responses", "call the tool", tools=[space])
    call = orjson.loads(ask("responses", body).body)["output"][1]

    assert ("search", "mcp__docs") == (call["name"], call["namespace"])


def test_a_compaction_trigger_gives_one_compaction_item() -> None:
    body = request("responses", "", stream=True)
    body["input"] = [user("hello"), {"type": "compaction_trigger"}]
    output = events(ask("responses", body))[-1]["response"]["output"]

    assert ["compaction"] == [item["type"] for item in output]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_it_does_not_know_does_not_break_it(protocol: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    content = [image, {"type": "unheard_of"}, {"type": "text", "text": "hello"}, None]
    said = {"role": "user", "content": content}
    body = request(protocol, "") | {"tools": [{"type": "web_search"}, 7], "new": {}}
    body["input" if protocol == "responses" else "messages"] = [
        {"type": "unheard_of", "content": {"deep": []}},
        said,
    ]

    assert "You said: hello" == folded(protocol, body)[0]


def test_a_long_prompt_is_quoted_in_part() -> None:
    text = folded("responses", request("responses", "word " * 50_000))[0]

    assert text.endswith("word … (229999 more characters)")


# --- time, ids, refusals ------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("model", "delay_s"), [("trial", 0.0), ("trial-slow", 0.05)])
def test_the_slow_model_gives_twenty_events_a_second(
    protocol: str, model: str, delay_s: float
) -> None:
    trial = ask(protocol, request(protocol, "hi", stream=True) | {"model": model})
    assert trial.pieces is not None
    pieces = list(trial.pieces)

    assert {delay_s} == {delay for delay, _ in pieces}
    assert all(
        piece.endswith(b"\n\n") and piece.count(b"\n\n") == 1 for _, piece in pieces
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_whole_answer_of_the_slow_model_takes_as_long(protocol: str) -> None:
    trial = ask(protocol, request(protocol, "one two") | {"model": "trial-slow"})

    assert pytest.approx(0.25) == trial.delay_s


def test_every_key_of_a_response_is_there() -> None:
    body = request("responses", "hi", temperature=0.5, text={"verbosity": "low"})
    got = orjson.loads(ask("responses", body | {"tools": tools("responses")}).body)
    required = (
        "id object created_at completed_at status model output tools tool_choice "
        "truncation parallel_tool_calls text top_p presence_penalty usage metadata "
        "frequency_penalty top_logprobs temperature store background service_tier "
        "incomplete_details previous_response_id instructions error reasoning "
        "max_output_tokens max_tool_calls safety_identifier prompt_cache_key"
    )

    assert set(required.split()) == set(got)
    assert 0.5 == got["temperature"]
    assert {"format": {"type": "text"}, "verbosity": "low"} == got["text"]
    unsaid = {"description": None, "strict": True}
    assert [unsaid | tool for tool in tools("responses")] == got["tools"]


@pytest.mark.parametrize(
    ("protocol", "change", "param"),
    [
        pytest.param("responses", {"input": None}, "input", id="no-input"),
        pytest.param("responses", {"input": 7}, "input", id="input-a-number"),
        pytest.param("responses", {"input": ["x"]}, "input[0]", id="item-a-string"),
        pytest.param("responses", {"background": True}, "background", id="background"),
        pytest.param(
            "responses",
            {"max_output_tokens": "9"},
            "max_output_tokens",
            id="limit-a-string",
        ),
        pytest.param("chat", {"messages": None}, "messages", id="chat-no-messages"),
        pytest.param("chat", {"messages": []}, "messages", id="chat-empty"),
        pytest.param("chat", {"messages": {}}, "messages", id="chat-an-object"),
        pytest.param("chat", {"n": 2}, "n", id="chat-two-choices"),
        pytest.param("chat", {"max_tokens": -1}, "max_tokens", id="chat-below-zero"),
        pytest.param("messages", {"messages": None}, "messages", id="none"),
        pytest.param("messages", {"messages": []}, "messages", id="empty"),
        pytest.param("messages", {"max_tokens": None}, "max_tokens", id="no-limit"),
        pytest.param("messages", {"max_tokens": True}, "max_tokens", id="limit-true"),
    ],
)
def test_a_bad_body_is_refused_in_the_protocols_form(
    protocol: str, change: dict[str, Any], param: str
) -> None:
    trial = ask(protocol, request(protocol, "hi") | change)
    error = orjson.loads(trial.body)

    assert 400 == trial.status
    assert "invalid_request_error" == error["error"]["type"]
    if protocol == "messages":
        assert ("error", "req_a1") == (error["type"], error["request_id"])
        assert param in error["error"]["message"]
    else:
        assert param == error["error"]["param"]


def test_an_unknown_path_is_not_found() -> None:
    statuses = [
        ask("responses", {}, "/responses/resp_1").status,
        ask("chat", {}, "/v1/embeddings").status,
        ask("messages", {}, "/messages/batches").status,
    ]

    assert [404, 404, 404] == statuses


@pytest.mark.parametrize(
    "path", ["/v1/messages?beta=true", "/messages", "/messages/", "/v1/messages"]
)
def test_a_path_is_known_in_every_spelling(path: str) -> None:
    assert 200 == ask("messages", request("messages", "hi"), path).status


def test_ids_are_made_of_the_ident_alone() -> None:
    bodies = [
        orjson.loads(
            answer(
                protocol,
                PATHS[protocol],
                request(protocol, "call the tool", tools=tools(protocol)),
                {},
                now_unix=NOW,
                ident=ident,
            ).body
        )
        for protocol, ident in itertools.product(PROTOCOLS, ("x-1\r\n", "x-2"))
    ]
    ids = re.findall(r'"id":"([a-z_-]+)(x\d)"', orjson.dumps(bodies).decode())

    assert {"x1", "x2"} == {ident for _, ident in ids}
    assert {"resp_", "msg_", "fc_", "chatcmpl-", "call_", "toolu_"} == {
        prefix for prefix, _ in ids
    }
