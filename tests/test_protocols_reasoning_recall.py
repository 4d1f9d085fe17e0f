"""
What only its maker can use comes back to it, whatever the client speaks: conversations
of several turns, each made of what the client got of the turn before.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.accounts.kept_reasoning import (
    ENTRY_BYTES,
    MAX_BYTES,
    MAX_USER_BYTES,
    KeptReasoning,
)
from gateway.protocols import reasoning_recorder
from gateway.protocols.model import Reasoning
from gateway.protocols.opaque import Collected, Opaque, packed, unpacked
from gateway.protocols.options import Options
from gateway.protocols.request_converter import Converted, convert_request
from gateway.protocols.stream_facts import StreamFacts
from tests.protocols_answers import chunk, objects, relayed, sse, translation

MAKER, OTHER = "maker", "another"
TOOL = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOLS: dict[str, Any] = {
    "responses": [{"type": "function", **TOOL}],
    "messages": [{"name": "f", "input_schema": TOOL["parameters"]}],
    "chat": [{"type": "function", "function": TOOL}],
}
Memory = KeptReasoning


class Talk:
    """A client's conversation, which it repeats with every turn."""

    def __init__(self, client: str, upstream: str, **fields: Any) -> None:
        self.client, self.upstream, self.fields = client, upstream, fields
        self.options = fields.pop("options", Options(ids="verbatim"))
        self.history: list[Any] = [{"role": "user", "content": "Go"}]
        self.memory = KeptReasoning()
        self.call_ids: list[str] = []

    def ask(self, maker: str = MAKER, account: str = "a") -> tuple[Converted, Any]:
        """The next request as the upstream gets it, and its conversation."""
        name = "input" if self.client == "responses" else "messages"
        body = {"model": "m", name: self.history, "tools": TOOLS[self.client]}
        if self.client == "messages":
            body["max_tokens"] = 9
        converted = convert_request(
            self.client,
            self.upstream,
            {**body, **self.fields},
            model="m",
            upstream_model="m",
            options=self.options,
            maker=maker,
            recall=lambda call_id: self.memory.of("u", "s", account, call_id),
        )
        key = "input" if self.upstream == "responses" else "messages"
        return converted, converted.body[key]

    def hear(self, answer: Any, *, whole: bool = False) -> None:
        """Take an answer to the latest request, and answer its calls."""
        facts, (converted, _) = StreamFacts(), self.ask()
        following = translation(self.upstream, self.client, converted, facts=facts)
        if whole:
            body = json.loads(json.dumps(following.body(answer)[0]))
        else:
            body = folded(self.client, relayed(following, answer)[0])
        self.memory.keep("u", "s", "a", facts.kept)
        if self.client == "responses":
            self.history += body["output"]
            calls = [item["call_id"] for item in body["output"] if "call_id" in item]
            self.history += [
                {"type": "function_call_output", "call_id": id, "output": "ok"}
                for id in calls
            ]
        elif self.client == "messages":
            self.history.append({"role": "assistant", "content": body["content"]})
            calls = [part["id"] for part in body["content"] if "input" in part]
            results = [
                {"type": "tool_result", "tool_use_id": id, "content": "ok"}
                for id in calls
            ]
            self.history.append({"role": "user", "content": results or "Go on"})
        else:
            message = body["choices"][0]["message"]
            calls = [call["id"] for call in message.get("tool_calls") or ()]
            bare = {key: message[key] for key in ("role", "content", "tool_calls")}
            self.history.append(bare)  # no client sends reasoning back
            self.history += [
                {"role": "tool", "tool_call_id": id, "content": "ok"} for id in calls
            ]
        self.call_ids = calls


def folded(client: str, data: bytes) -> dict[str, Any]:
    """The answer that a client keeps of a stream."""
    events = list(objects(data))
    if client == "responses":
        last: dict[str, Any] = events[-1]["response"]
        return last
    if client == "messages":
        blocks: list[dict[str, Any]] = []
        fields = {"text_delta": "text", "thinking_delta": "thinking"}
        fields |= {"signature_delta": "signature", "input_json_delta": "partial_json"}
        for event in events:
            if event["type"] == "content_block_start":
                blocks.append(event["content_block"])
            elif event["type"] == "content_block_delta":
                field = fields[event["delta"]["type"]]
                known = blocks[-1].get(field, "")
                blocks[-1][field] = known + event["delta"][field]
        for block in blocks:
            if written := block.pop("partial_json", ""):
                block["input"] = json.loads(written)
        return {"content": blocks}
    calls: list[dict[str, Any]] = []
    for event in events:
        for choice in event["choices"]:
            for part in choice["delta"].get("tool_calls", ()):
                if part["index"] == len(calls):
                    calls.append({**part})
                else:
                    calls[-1]["function"]["arguments"] += part["function"]["arguments"]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    return {"choices": [{"message": message}]}


def signed(name: str) -> dict[str, Any]:
    return {"google": {"thought_signature": f"signature-of-{name}"}}


def gemini(*ids: str, text: str = "") -> bytes:
    """https://ai.google.dev/gemini-api/docs/openai: only the first call is signed."""
    calls = [
        {
            "index": 0,
            "id": id,
            "type": "function",
            "function": {"name": "f", "arguments": json.dumps({"n": n})},
            **({} if n else {"extra_content": signed(id)}),
        }
        for n, id in enumerate(ids)
    ]
    said = [chunk(content=text, extra_content=signed("text"))] if text else []
    return sse(*said, chunk(tool_calls=calls), chunk("stop"), "[DONE]")


def openrouter(*ids: str) -> bytes:
    """https://openrouter.ai/docs/use-cases/reasoning-tokens: details in pieces."""
    one = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1"}
    calls = [
        {"index": n, "id": id, "function": {"name": "f", "arguments": "{}"}}
        for n, id in enumerate(ids)
    ]
    return sse(
        chunk(reasoning="Let", reasoning_details=[{**one, "text": "Let"}]),
        chunk(reasoning=" me", reasoning_details=[{**one, "text": " me"}]),
        chunk(reasoning_details=[{**one, "signature": "sig"}]),
        chunk(reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]),
        chunk(tool_calls=calls),
        chunk("tool_calls"),
        "[DONE]",
    )


DETAILS = [
    {
        "type": "reasoning.text",
        "index": 0,
        "format": "anthropic-claude-v1",
        "text": "Let me",
        "signature": "sig",
    },
    {"type": "reasoning.encrypted", "data": "x"},
]
CLIENTS = [
    pytest.param("responses", {}, id="responses"),
    pytest.param("messages", {"thinking": {"type": "adaptive"}}, id="messages"),
    pytest.param("messages", {}, id="messages-without-thinking"),
]


def calls_in(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [turn["tool_calls"] for turn in messages if "tool_calls" in turn]


@pytest.mark.parametrize("client, fields", CLIENTS)
def test_geminis_signature_comes_back_turn_after_turn(
    client: str, fields: dict[str, Any]
) -> None:
    talk = Talk(client, "chat", **fields)
    for names in (("a", "b"), ("c",), ("d", "e")):
        talk.hear(gemini(*names, text="Hm." if names == ("c",) else ""))

    turns = calls_in(talk.ask()[1])

    assert [["a", "b"], ["c"], ["d", "e"]] == [[c["id"] for c in t] for t in turns]
    assert [signed("a"), None, signed("c"), signed("d"), None] == [
        call.get("extra_content") for turn in turns for call in turn
    ]


@pytest.mark.parametrize("client, fields", CLIENTS[:2])
def test_a_signature_of_the_text_comes_back_to_its_message(
    client: str, fields: dict[str, Any]
) -> None:
    talk = Talk(client, "chat", **fields)
    talk.hear(sse(chunk(content="Hi", extra_content=signed("text")), chunk("stop")))
    talk.history.append({"role": "user", "content": "And?"})

    answers = [turn for turn in talk.ask()[1] if turn["role"] == "assistant"]

    assert [("Hi", signed("text"))] == [
        (turn["content"], turn["extra_content"]) for turn in answers
    ]


@pytest.mark.parametrize("client, fields", CLIENTS)
def test_openrouters_details_come_back_whole(
    client: str, fields: dict[str, Any]
) -> None:
    talk = Talk(client, "chat", **fields)
    talk.hear(openrouter("a"))
    talk.hear(openrouter("b", "c"))

    turns = [turn for turn in talk.ask()[1] if "tool_calls" in turn]

    assert [DETAILS, DETAILS] == [turn["reasoning_details"] for turn in turns]


@pytest.mark.parametrize("client, fields", CLIENTS)
@pytest.mark.parametrize("answer", (gemini("a"), openrouter("a")))
def test_no_other_server_gets_it(
    client: str, fields: dict[str, Any], answer: bytes
) -> None:
    talk = Talk(client, "chat", **fields)
    talk.hear(answer)
    bare = {"role", "content", "tool_calls"}

    for maker in (OTHER, ""):
        [turn] = [one for one in talk.ask(maker)[1] if "tool_calls" in one]
        assert bare >= turn.keys()
        assert {"id", "type", "function"} == turn["tool_calls"][0].keys()
    for upstream in {"responses", "messages"} - {client}:
        talk.upstream = upstream
        talk.options = Options()
        assert "signature-of" not in json.dumps(talk.ask()[0].body)


@pytest.mark.parametrize("client, fields", CLIENTS)
def test_a_whole_answer_is_kept_like_a_stream(
    client: str, fields: dict[str, Any]
) -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    message = {
        "tool_calls": [{**call, "extra_content": signed("a")}],
        "reasoning_details": DETAILS,
    }
    talk = Talk(client, "chat", **fields)
    talk.hear({"choices": [{"message": message, "finish_reason": "stop"}]}, whole=True)

    [turn] = [one for one in talk.ask()[1] if "tool_calls" in one]

    assert DETAILS == turn["reasoning_details"]
    assert signed("a") == turn["tool_calls"][0]["extra_content"]


@pytest.mark.parametrize("client, fields", CLIENTS)
def test_call_ids_come_back_as_they_were(client: str, fields: dict[str, Any]) -> None:
    """https://huggingface.co/moonshotai/Kimi-K2-Instruct: ``functions.name:number``."""
    talk = Talk(client, "chat", **fields)
    talk.hear(gemini("functions.f:0", "functions.f:1"))
    talk.hear(gemini("functions.f:2"))

    messages = talk.ask()[1]

    ids = [call["id"] for turn in calls_in(messages) for call in turn]
    assert [f"functions.f:{n}" for n in range(3)] == ids
    assert ids == [one["tool_call_id"] for one in messages if one["role"] == "tool"]
    assert signed("functions.f:2") == calls_in(messages)[1][0]["extra_content"]


# --- thinking that nothing proves ----------------------------------------------------


def thinking(signature: str = "", id: str = "toolu_1") -> bytes:
    """A Messages server's answer; DeepSeek, Kimi and MiMo sign nothing."""
    block = {"type": "tool_use", "id": id, "name": "f", "input": {}}
    begun = {"type": "thinking", "thinking": "", "signature": ""}
    deltas = [{"type": "thinking_delta", "thinking": "Hm."}]
    if signature:
        deltas.append({"type": "signature_delta", "signature": signature})
    return sse(
        {"type": "message_start", "message": {}},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        *({"type": "content_block_delta", "index": 0, "delta": d} for d in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": block},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}},
        {"type": "message_stop"},
    )


def reasoned(id: str = "call_1") -> bytes:
    """OpenAI's answer with encrypted reasoning."""
    call = {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}
    summary = [{"type": "summary_text", "text": "Hm."}]
    sealed = {"type": "reasoning", "id": "rs_1", "encrypted_content": "sealed"}
    output = [{**sealed, "summary": summary}, call]
    response = {"status": "completed", "output": output}
    return sse({"type": "response.completed", "response": response})


def thoughts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    parts = [
        p for m in messages if isinstance(m["content"], list) for p in m["content"]
    ]
    return [part for part in parts if part["type"] == "thinking"]


BACK = Options(ids="verbatim", thinking_back=True)


@pytest.mark.parametrize("client", ("responses", "chat"))
def test_unsigned_thinking_goes_back_to_servers_that_want_it(client: str) -> None:
    talk = Talk(client, "messages", options=BACK)
    talk.hear(thinking(id="toolu_1"))
    talk.hear(thinking(id="toolu_2"))

    unsigned = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert [unsigned, unsigned] == thoughts(talk.ask()[1])

    talk.options = Options()  # one that verifies refuses what it cannot
    assert [] == thoughts(talk.ask()[1])


@pytest.mark.parametrize("client, fields", CLIENTS)
def test_a_server_that_insists_gets_reasoning_with_every_call(
    client: str, fields: dict[str, Any]
) -> None:
    """https://api-docs.deepseek.com/guides/thinking_mode: else it answers 400."""
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    talk = Talk(client, "chat", options=BACK, **fields)
    talk.hear(
        sse(chunk(reasoning_content="Hm."), chunk(tool_calls=[call]), chunk("stop"))
    )
    talk.hear(sse(chunk(tool_calls=[{**call, "id": "b"}]), chunk("stop")))

    turns = [turn for turn in talk.ask()[1] if "tool_calls" in turn]

    assert ["Hm.", ""] == [turn["reasoning_content"] for turn in turns]


# --- what the gateway keeps for a client that can keep nothing -----------------------


def test_a_chat_clients_signed_thinking_is_kept_by_its_call() -> None:
    talk = Talk("chat", "messages", options=Options())
    talk.hear(thinking("sig-1", "toolu_1"))
    talk.hear(thinking("sig-2", "toolu_2"))

    kept = [
        {"type": "thinking", "thinking": "Hm.", "signature": f"sig-{n}"} for n in (1, 2)
    ]
    assert kept == thoughts(talk.ask()[1])
    assert [] == thoughts(talk.ask(account="b")[1])  # which could not verify it


def test_a_chat_clients_encrypted_reasoning_is_kept_by_its_call() -> None:
    talk = Talk("chat", "responses", options=Options())
    talk.hear(reasoned("call_1"))
    talk.hear(reasoned("call_2"))

    items = talk.ask()[1]

    kinds = [item.get("type") for item in items if item.get("role") != "user"]
    assert ["reasoning", "function_call", "function_call_output"] * 2 == kinds
    assert {"sealed"} == {
        item["encrypted_content"] for item in items if "encrypted_content" in item
    }


def test_what_is_kept_replaces_the_bare_text_that_a_client_has() -> None:
    talk = Talk("chat", "messages", options=BACK)
    talk.hear(thinking("sig-1"))
    talk.history[1]["reasoning_content"] = "Hm."

    kept = {"type": "thinking", "thinking": "Hm.", "signature": "sig-1"}
    assert [kept] == thoughts(talk.ask()[1])


def test_too_much_reasoning_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_recorder, "MAX_CHARS", 5)
    talk = Talk("chat", "messages", options=Options())
    talk.hear(thinking("sig-1"))

    assert [] == thoughts(talk.ask()[1])


def entry(size: int) -> list[Reasoning]:
    return [Reasoning(["x" * (size - ENTRY_BYTES)])]


def test_memory_is_a_users_and_a_sessions_own() -> None:
    memory = KeptReasoning()
    memory.keep("alice", "s", "a", {"c": [Reasoning(["Hm."], signature="sig")]})

    assert [Reasoning(["Hm."], signature="sig")] == memory.of("alice", "s", "a", "c")
    assert [Reasoning(["Hm."])] == memory.of("alice", "s", "b", "c")
    for user, session, call in (("bob", "s", "c"), ("alice", "t", "c")):
        assert [] == memory.of(user, session, "a", call)
    assert [] == memory.of("alice", "s", "a", "d")


def test_memory_is_bounded_for_each_user() -> None:
    memory = KeptReasoning()
    half = MAX_USER_BYTES // 2
    for call in "abc":
        memory.keep("u", "s", "a", {call: entry(half)})
        memory.of("u", "s", "a", "a")
    memory.keep("u", "s", "a", {"huge": entry(MAX_USER_BYTES + 1)})

    found = [call for call in "abc" if memory.of("u", "s", "a", call)]

    assert ["a", "c"] == found and memory.size == 2 * half
    assert [] == memory.of("u", "s", "a", "huge")


def test_memory_is_bounded_in_all() -> None:
    memory, users = KeptReasoning(), MAX_BYTES // MAX_USER_BYTES
    for n in range(users + 1):
        memory.keep(f"u{n}", "s", "a", {"c": entry(MAX_USER_BYTES)})
        memory.of("u0", "s", "a", "c")

    assert MAX_BYTES == memory.size
    assert [] == memory.of("u1", "s", "a", "c") and memory.of("u0", "s", "a", "c")


def test_the_same_call_is_kept_once() -> None:
    memory = KeptReasoning()
    for _ in range(3):
        memory.keep("u", "s", "a", {"c": entry(1000)})

    assert 1000 == memory.size


# --- the carrier ---------------------------------------------------------------------


def test_what_is_packed_comes_out_again() -> None:
    opaque = Opaque("m", {"extra_content": {"é": [1, None]}}, "functions.f:0")

    assert opaque == unpacked(packed(opaque))


@pytest.mark.parametrize(
    "text",
    ["", "sig", "gw1.opaque.", "gw1.opaque.!", "gw1.opaque.e30", "gw1.opaque.MQ"],
)
def test_another_text_is_none(text: str) -> None:
    assert unpacked(text) is None


def test_pieces_of_details_grow_together() -> None:
    own = Collected()
    for entry in (
        {"type": "reasoning.summary", "summary": "a", "id": "1"},
        {"type": "reasoning.summary", "summary": "b", "id": "1"},
        {"type": "reasoning.summary", "summary": "c", "id": "2"},
        "strange",
    ):
        own.add({"reasoning_details": [entry], "extra_content": entry})

    assert {
        "reasoning_details": [
            {"type": "reasoning.summary", "summary": "ab", "id": "1"},
            {"type": "reasoning.summary", "summary": "c", "id": "2"},
            "strange",
        ],
        "extra_content": "strange",
    } == own.taken()
    assert {} == own.taken()
