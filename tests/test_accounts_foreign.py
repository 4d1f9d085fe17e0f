"""What another account encrypted or signed does not travel."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts import foreign as room
from gateway.accounts.foreign import Foreign, pinned, strip_foreign, tails


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


def test_messages_an_unsigned_block_binds_nobody() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": ""}
    body = {"messages": [said(block, TEXT), {"role": "user"}, "odd"]}
    assert (body, 0) == strip_foreign("messages", body)


def test_chat_carries_nothing_that_is_bound() -> None:
    body = {"messages": [{"role": "assistant", "reasoning_content": "plain"}]}
    assert (body, 0) == strip_foreign("chat", body)
    assert [] == tails("chat", body)


# -- over the turns of a session ------------------------------------------------------


def turn(*names: str) -> dict[str, Any]:
    return {"input": [item for name in names for item in (thought(name), ANSWER)]}


def left(body: dict[str, Any]) -> list[str]:
    return [tail[-1] for tail in tails("responses", body)]


def test_a_session_that_never_moved_is_not_looked_at() -> None:
    body = turn("a", "b")
    assert (body, 0) == Foreign().leave_out("s", "one", "one", "responses", body)
    assert (body, 0) == Foreign().leave_out("s", "", "one", "responses", body)


def test_after_a_move_the_old_stays_out_and_the_new_stays_in() -> None:
    memory = Foreign()

    def sent(latest: str, account: str, *names: str) -> list[str]:
        body = turn(*names)
        return left(memory.leave_out("s", latest, account, "responses", body)[0])

    assert ["a"] == sent("one", "one", "a")
    assert [] == sent("one", "two", "a")  # the move
    assert ["b"] == sent("two", "two", "a", "b")
    assert ["b", "c"] == sent("two", "two", "a", "b", "c")
    assert ["a"] == sent("two", "one", "a", "b", "c", "d")  # and back
    assert ["a", "e"] == sent("one", "one", "a", "b", "c", "d", "e")
    assert [] == sent("one", "three", "a", "b", "c", "d", "e")


def test_an_attempt_that_fails_makes_nothing_its_own() -> None:
    memory, body = Foreign(), turn("a")
    assert [] == left(memory.leave_out("s", "one", "two", "responses", body)[0])
    assert ["a"] == left(memory.leave_out("s", "one", "one", "responses", body)[0])


def test_what_an_account_could_not_read_stays_out_for_ever() -> None:
    """After a restart nobody knows who made what; the first refusal tells."""
    memory = Foreign()
    assert [] == left(memory.refused("s", "responses", turn("a", "b"))[0])
    body = turn("a", "b", "c")
    assert ["c"] == left(memory.leave_out("s", "one", "one", "responses", body)[0])
    assert ["a"] == left(
        memory.leave_out("other", "one", "one", "responses", turn("a"))[0]
    )


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_KNOWN", 5)
    monkeypatch.setattr(room, "MAX_WATCHED", 2)
    memory = Foreign()
    for n in range(9):
        memory.refused(f"s{n}", "responses", turn(f"n{n}"))
    assert 1 == len(
        tails("responses", memory.leave_out("s0", "", "x", "responses", turn("n0"))[0])
    )
    assert 5 == len(memory._made_by)


def test_a_turn_state_goes_back_to_its_maker_alone() -> None:
    memory = Foreign()
    memory.state_came("state-1", "one")
    assert memory.state_fits("state-1", "one", "one")
    assert not memory.state_fits("state-1", "one", "two")
    assert not memory.state_fits("unknown", "one", "two")
    assert memory.state_fits("unknown", "", "two")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"type": "compaction", "encrypted_content": "abc"}, True),
        ({"type": "compaction_summary", "encrypted_content": "abc"}, True),
        ({"type": "compaction", "encrypted_content": "gw1.compact.abc"}, False),
        ({"type": "compaction_trigger"}, False),
        (USER, False),
    ],
)
def test_a_compaction_pins_its_session(item: dict[str, Any], expected: bool) -> None:
    assert expected == pinned({"input": [item]})
    assert not pinned({"input": "text"})


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
