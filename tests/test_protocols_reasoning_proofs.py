"""What an account cannot read is left out of its body, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols import PROTOCOLS
from gateway.protocols.compaction import compaction_item
from gateway.protocols.messages import proofs as messages
from gateway.protocols.reasoning_proofs import ProofFilter
from gateway.protocols.responses import proofs as responses


def strip_foreign(
    protocol: str,
    body: dict[str, Any],
    is_foreign: Callable[[str], bool] = lambda proof: True,
    **account: bool,
) -> tuple[dict[str, Any], int]:
    proofs = PROTOCOLS[protocol].proofs
    assert proofs
    found = proofs.filtered(body, ProofFilter(is_foreign, **account))
    return found.body, found.removed


def blob(name: str) -> str:
    return f"{name}-" + "x" * 80 + name


def thought(name: str) -> dict[str, Any]:
    return {
        "type": "reasoning",
        "id": f"rs_{name}",
        "summary": [],
        "encrypted_content": blob(name),
    }


USER = {"type": "message", "role": "user", "content": "hi"}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c1",
    "name": "f",
    "arguments": "{}",
}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "1"}
ANSWER = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "yes"}],
}


def without_id(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "id"}


def test_responses_whole_items_go_and_their_followers_lose_the_link() -> None:
    given_input = [USER, thought("a"), CALL, OUTPUT, thought("b"), ANSWER, USER]
    body = {"model": "m", "input": given_input, "unknown": {"x": 1}}
    before = deepcopy(body)
    stripped, count = strip_foreign("responses", body)
    assert 2 == count
    assert [USER, without_id(CALL), OUTPUT, without_id(ANSWER), USER] == stripped[
        "input"
    ]
    assert {"x": 1} == stripped["unknown"]
    assert before == body


def test_responses_only_the_foreign_ones_go() -> None:
    body = {"input": [thought("a"), CALL, OUTPUT, thought("b"), ANSWER]}
    stripped, count = strip_foreign("responses", body, lambda tail: "xa" in tail)
    assert 1 == count
    assert [without_id(CALL), OUTPUT, thought("b"), ANSWER] == stripped["input"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"input": "hello"}, id="text-input"),
        pytest.param({"input": [USER, ANSWER, CALL]}, id="no-reasoning"),
        pytest.param({"input": [None, 5, "x", []]}, id="odd-items"),
        pytest.param({}, id="no-input"),
        pytest.param(
            {"input": [{"type": "compaction", "encrypted_content": "z"}]},
            id="a-compaction-is-the-history",
        ),
        pytest.param(
            {
                "input": [
                    {
                        "type": "reasoning",
                        "id": "rs_1",
                        "summary": [],
                        "content": [{"type": "reasoning_text", "text": "plain"}],
                    }
                ]
            },
            id="plain-reasoning-text",
        ),
    ],
)
def test_responses_nothing_foreign_is_the_same_body(body: dict[str, Any]) -> None:
    assert (body, 0) == strip_foreign("responses", body)
    assert body is strip_foreign("responses", body)[0]


def test_a_bare_reference_to_stored_reasoning_is_foreign() -> None:
    body = {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}, ANSWER]}
    assert ({"input": [without_id(ANSWER)]}, 1) == strip_foreign("responses", body)


def thinking(name: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "hm", "signature": blob(name)}


REDACTED = {"type": "redacted_thinking", "data": blob("r")}
TEXT = {"type": "text", "text": "yes"}
TOOL_USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
TOOL_RESULT = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}],
}
ASKED = {"role": "user", "content": "hi"}


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def test_messages_blocks_go_and_empty_messages_with_them() -> None:
    body = {
        "thinking": {"type": "adaptive"},
        "messages": [
            ASKED,
            said(thinking("a"), REDACTED, TEXT),
            ASKED,
            said(thinking("a")),
            ASKED,
        ],
    }
    before = deepcopy(body)
    stripped, count = strip_foreign("messages", body)
    assert 3 == count
    assert [ASKED, said(TEXT), ASKED, ASKED] == stripped["messages"]
    assert {"type": "adaptive"} == stripped["thinking"]
    assert before == body


def test_messages_a_tool_loop_that_lost_its_thinking_goes_on_without() -> None:
    body = {
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "context_management": {
            "edits": [{"type": "clear_thinking_20251015"}, {"type": "other"}]
        },
        "messages": [ASKED, said(thinking("a"), TOOL_USE), TOOL_RESULT],
    }
    stripped, count = strip_foreign("messages", body)
    assert 1 == count
    assert {"type": "disabled"} == stripped["thinking"]
    assert {"edits": [{"type": "other"}]} == stripped["context_management"]
    assert [ASKED, said(TOOL_USE), TOOL_RESULT] == stripped["messages"]


def test_messages_an_edit_list_that_is_left_empty_goes_whole() -> None:
    body = {
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
        "messages": [ASKED, said(thinking("a"), TOOL_USE), TOOL_RESULT],
    }
    assert "context_management" not in strip_foreign("messages", body)[0]


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(
            [ASKED, said(thinking("a"), TOOL_USE), TOOL_RESULT, said(TEXT), ASKED],
            id="loop-is-over",
        ),
        pytest.param(
            [
                ASKED,
                said(thinking("a"), TOOL_USE),
                TOOL_RESULT,
                said(thinking("b"), TOOL_USE),
                TOOL_RESULT,
            ],
            id="latest-turn-is-its-own",
        ),
    ],
)
def test_messages_thinking_stays_on_where_it_can(messages: list[Any]) -> None:
    budget = {"type": "enabled", "budget_tokens": 2048}
    body = {"thinking": budget, "messages": messages}
    stripped, count = strip_foreign("messages", body, lambda tail: "xa" in tail)
    assert (1, budget) == (count, stripped["thinking"])


UNSIGNED = [
    pytest.param({"type": "thinking", "thinking": "hm", "signature": ""}, id="empty"),
    pytest.param({"type": "thinking", "thinking": "hm"}, id="missing"),
    pytest.param({"type": "thinking", "thinking": "hm", "signature": 5}, id="odd"),
    pytest.param(
        {"type": "thinking", "thinking": "hm", "signature": "gw1.openai.rs.eA"},
        id="wrapped",
    ),
]


@pytest.mark.parametrize("block", UNSIGNED)
def test_messages_unsigned_thinking_goes_only_to_those_who_do_not_verify(
    block: dict[str, Any],
) -> None:
    body = {"messages": [said(block, TEXT), {"role": "user"}, "odd"]}
    own = {"is_foreign": lambda proof: False}
    stripped, count = strip_foreign("messages", body, **own)
    assert (1, said(TEXT)) == (count, stripped["messages"][0])
    assert (body, 0) == strip_foreign("messages", body, verifies=False, **own)


@pytest.mark.parametrize("block", UNSIGNED)
def test_messages_a_conversion_gets_unsigned_thinking(block: dict[str, Any]) -> None:
    body = {"messages": [said(block, TEXT)]}
    own = {"is_foreign": lambda proof: False}
    assert (body, 0) == strip_foreign("messages", body, native=False, **own)


def test_messages_who_does_not_verify_reads_what_others_signed() -> None:
    """But not what has no text."""
    sealed = {"type": "thinking", "thinking": "", "signature": blob("a")}
    body = {"messages": [said(thinking("a"), sealed, REDACTED, TEXT)]}
    stripped, count = strip_foreign("messages", body, verifies=False)
    assert (2, [said(thinking("a"), TEXT)]) == (count, stripped["messages"])


def test_messages_thinking_is_turned_off_where_the_request_says_so() -> None:
    budget = {"type": "enabled", "budget_tokens": 2048}
    body = {"thinking": budget, "messages": [ASKED, said(TOOL_USE), TOOL_RESULT]}
    assert body is messages.filtered(body, ProofFilter(lambda proof: True)).body
    off = messages.filtered(body, ProofFilter(lambda proof: True, thinking_off=True))
    assert ({"type": "disabled"}, True) == (off.body["thinking"], off.thinking_off)


def test_chat_carries_nothing_that_is_bound() -> None:
    assert PROTOCOLS["chat"].proofs is None


def test_proofs_are_named_by_their_end() -> None:
    wanted = [blob("a")[-48:], "rs_1", blob("c")[-48:]]
    items = [
        thought("a"),
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "compaction", "encrypted_content": blob("c")},
        {"type": "compaction", "encrypted_content": "gw1.compact.abc"},
        USER,
    ]
    assert wanted == responses.proofs_in({"input": items})
    blocks = said(thinking("a"), {"type": "redacted_thinking", "data": "short"})
    assert [blob("a")[-48:], "short"] == messages.proofs_in({"messages": [blocks]})


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"type": "compaction", "encrypted_content": "abc"}, "abc"),
        ({"type": "compaction_summary", "encrypted_content": "abc"}, "abc"),
        ({"type": "compaction", "encrypted_content": "gw1.compact.abc"}, ""),
        ({"type": "compaction_trigger"}, ""),
        (thought("a"), ""),
        (USER, ""),
    ],
)
def test_the_latest_compaction_counts(item: dict[str, Any], expected: str) -> None:
    assert expected == responses.compaction_in({"input": [USER, item, USER]})
    assert "" == responses.compaction_in({"input": "text"})
    earlier = {"type": "compaction", "encrypted_content": "earlier"}
    assert (expected or "earlier") == responses.compaction_in(
        {"input": [earlier, item]}
    )


@pytest.mark.parametrize("kind", [[], {}, ["reasoning"], 3, None])
def test_a_strange_type_is_no_crash(kind: object) -> None:
    """What is wrong with it is for the account to say."""
    body = {"input": [USER, {"type": kind, "encrypted_content": blob("a")}]}

    assert (body, 0) == strip_foreign("responses", body)
    assert [] == responses.proofs_in(body) and "" == responses.compaction_in(body)


def test_a_compaction_of_ours_is_a_text_to_the_clients_own_protocol() -> None:
    ours = compaction_item("the summary", "cmp_1")
    body = {"input": [ours, USER]}
    stripped, count = strip_foreign("responses", body)
    assert (1, "user") == (count, stripped["input"][0]["role"])
    assert "the summary" in stripped["input"][0]["content"][0]["text"]
    assert (body, 0) == strip_foreign("responses", body, native=False)


def test_what_was_wrapped_is_foreign_to_the_clients_own_protocol() -> None:
    item = {**thought("a"), "encrypted_content": "gw1.anthropic.thinking." + blob("a")}
    body = {"input": [item, USER]}
    own = {"is_foreign": lambda proof: False}
    assert ({"input": [USER]}, 1) == strip_foreign("responses", body, **own)
    assert (body, 0) == strip_foreign("responses", body, native=False, **own)


ITEMS = st.lists(
    st.sampled_from([USER, CALL, OUTPUT, ANSWER, thought("a"), thought("b")]),
    max_size=12,
)


@given(ITEMS)
def test_whatever_the_order_all_else_survives(items: list[dict[str, Any]]) -> None:
    stripped, count = strip_foreign("responses", {"input": items})
    others = [without_id(i) for i in items if i["type"] != "reasoning"]
    assert others == [without_id(i) for i in stripped["input"]]
    assert len(items) - len(others) == count
