"""The judge of the chaos runs: each rule notices what violates it, and only that."""

from __future__ import annotations

import dataclasses

import pytest

from tests.chaos import figures, judge
from tests.chaos.crowd import ending_of
from tests.chaos.journal import Asked, Journal, Limit, Over, Row, Served, Window
from tests.chaos.schedule import KILLS_A_MINUTE, KINDS, schedule
from tests.kit.asking import Reply

ACCOUNTS = ("one",)


def served(ident: str, began: float, ended: float, node: int = 0) -> Served:
    return Served(ident, "one", "alice", node, began, ended)


def asked(
    ident: str, at: float, ended: float, ending: str = "ok", **more: object
) -> Asked:
    one = Asked(ident, "alice", 0, at, ended, ending)
    return dataclasses.replace(one, **more)  # type: ignore[arg-type]


def journal(*things: object, limit: int = 1, end: float = 100.0) -> Journal:
    """A run in which *things* were seen, with one account."""
    found = Journal(begin=0.0, end=end)
    found.limits.append(Limit(-100.0, "account", "one", limit))
    lists: dict[type, list[object]] = {
        Served: found.served,  # type: ignore[dict-item]
        Asked: found.asked,  # type: ignore[dict-item]
        Window: found.windows,  # type: ignore[dict-item]
        Limit: found.limits,  # type: ignore[dict-item]
        Over: found.over,  # type: ignore[dict-item]
        Row: found.rows,  # type: ignore[dict-item]
    }
    for thing in things:
        lists[type(thing)].append(thing)
    return found


def rules(found: Journal) -> list[str]:
    return [one.rule for one in judge.judge(found)]


BOTH = (served("a", 10.0, 20.0), served("b", 15.0, 25.0, node=1))
PAUSE = Window("worker-stopped", 0, 11.0, 18.0)
BLIND = (
    Window("engine-killed", -1, 12.0, 18.0),
    Window("worker-killed", 1, 13.0, 13.5),
)


@pytest.mark.parametrize(
    ("things", "violated"),
    [
        pytest.param(BOTH, ["limit", "shown"], id="two-at-a-limit-of-one"),
        pytest.param((BOTH[0], served("b", 20.0, 25.0)), [], id="one-after-the-other"),
        pytest.param(
            (*BOTH, PAUSE, Over(19.0, "account", "one")), [], id="fenced-and-shown"
        ),
        pytest.param(
            (*BOTH, PAUSE._replace(end=13.0), Over(19.0, "account", "one")),
            ["limit"],
            id="a-pause-too-short-to-fence",
        ),
        pytest.param(
            (*BOTH, PAUSE._replace(node=2), Over(19.0, "account", "one")),
            ["limit"],
            id="another-node-was-fenced",
        ),
        pytest.param(
            (served("a", 10.0, 40.0), served("b", 15.0, 35.0, node=1), PAUSE),
            ["shown"],
            id="fenced-but-not-shown",
        ),
        pytest.param((*BOTH, *BLIND), [], id="began-without-the-engine"),
        pytest.param(
            (*BOTH, served("c", 15.0, 25.0, node=1), *BLIND),
            ["limit", "shown"],
            id="more-than-its-part-without-the-engine",
        ),
        pytest.param((*BOTH, BLIND[0]), ["limit"], id="the-engine-alone-is-no-reason"),
        pytest.param(
            (*BOTH, Limit(13.0, "account", "one", 2)), [], id="the-limit-was-raised"
        ),
        pytest.param(
            (*BOTH, Limit(1.0, "account", "one", 2), Limit(5.0, "account", "one", 1)),
            ["limit", "shown"],
            id="the-limit-was-lowered-long-before",
        ),
    ],
)
def test_more_than_a_limit_is_found(
    things: tuple[object, ...], violated: list[str]
) -> None:
    assert violated == rules(journal(*things))


ROWS = (Row("a", "ok", ""),)


@pytest.mark.parametrize(
    ("things", "violated"),
    [
        pytest.param((asked("a", 1, 2), *ROWS), [], id="well"),
        pytest.param((asked("a", 1, 2, "broken"),), ["ending"], id="broken"),
        pytest.param((asked("a", 1, 2, "hung"),), ["ending"], id="hung"),
        pytest.param((asked("a", 1, 2, "twice"),), ["ending"], id="two-endings"),
        pytest.param((asked("a", 1, 2, "503 draining"),), ["ending"], id="refused"),
        pytest.param(
            (asked("a", 1, 2, "broken"), Window("worker-killed", 0, 1.5, 1.5)),
            [],
            id="its-process-was-killed",
        ),
        pytest.param(
            (asked("a", 1, 2, "broken"), Window("worker-killed", 1, 1.5, 1.5)),
            ["ending"],
            id="another-process-was-killed",
        ),
        pytest.param(
            (asked("a", 1, 2, "503 x"), Window("engine-killed", -1, 1.0, 3.0)),
            ["ending"],
            id="the-engine-is-no-reason",
        ),
        pytest.param(
            (asked("a", 1, 2, "broken"), Window("account-busy", -1, 1.0, 3.0)),
            ["ending"],
            id="an-account-is-no-reason-to-break",
        ),
        pytest.param(
            (asked("a", 1, 2, "429 x"), Window("account-busy", -1, 1.0, 3.0)),
            [],
            id="an-account-is-a-reason-to-refuse",
        ),
        pytest.param((asked("a", 1, 2),), ["record"], id="no-row"),
        pytest.param((asked("a", 1, 2), *ROWS, *ROWS), ["record"] * 2, id="two-rows"),
        pytest.param(
            (asked("a", 1, 2), Row("a", "failed", "crashed")),
            ["record"],
            id="other-row",
        ),
        pytest.param(
            (asked("a", 1, 2, "left"), Row("a", "open", "")), ["record"], id="open-row"
        ),
    ],
)
def test_endings_and_records_are_judged(
    things: tuple[object, ...], violated: list[str]
) -> None:
    assert violated == rules(journal(*things))


def test_what_is_left_behind_and_said_twice_is_found() -> None:
    found = journal()
    found.left_behind.append("in the engine: run:aone")
    found.finished["a"] = 2
    assert ["record", "left-behind"] == rules(found)


def waiting(first: float, second: float, *more: object) -> Journal:
    """Two requests of one user, asked a second apart, that begin at these times."""
    line = (asked("a", 1.0, 9.0), asked("b", 2.0, 9.0), Row("a", "ok", ""))
    began = (served("a", first, first + 1), served("b", second, second + 1))
    return journal(*line, Row("b", "ok", ""), *began, *more, limit=2)


def test_who_came_later_is_not_served_first() -> None:
    assert [] == rules(waiting(4.0, 5.0))
    assert [] == rules(waiting(4.1, 4.0))
    assert ["order"] == rules(waiting(5.0, 4.0))
    assert [] == rules(waiting(5.0, 4.0, Window("link-cut", 0, 1.5, 1.5)))


@pytest.mark.parametrize(("took_s", "violated"), [(0.9, []), (0.1, ["order"])])
def test_an_order_may_be_late_by_what_a_free_way_took(
    took_s: float, violated: list[str]
) -> None:
    """Then the machine had no time for that node."""
    probe = asked("p", 4.0, 5.0, in_line=False), Row("p", "ok", "")
    began = served("p", 4.0 + took_s, 5.0)
    assert violated == rules(waiting(5.0, 4.0, *probe, began))


@pytest.mark.parametrize(
    ("wait_s", "windows", "violated"),
    [
        (1.0, (), []),
        (2.0, (), ["wait"]),
        (2.0, (Window("engine-killed", -1, 0.5, 2.0),), []),
        (4.0, (Window("engine-killed", -1, 0.5, 2.0),), ["wait"]),
        (4.0, (Window("worker-stopped", 0, 1.0, 4.0),), []),
        (4.0, (Window("worker-stopped", 1, 1.0, 4.0),), ["wait"]),
    ],
)
def test_a_wait_with_slots_free_is_found(
    wait_s: float, windows: tuple[Window, ...], violated: list[str]
) -> None:
    began = served("a", 1.0 + wait_s, 6.0)
    probe = asked("a", 1.0, 6.0, in_line=False)
    assert violated == rules(journal(began, probe, Row("a", "ok", ""), *windows))


# --- figures --------------------------------------------------------------------------


def line(gap_s: float, *more: object) -> Journal:
    """Two requests one after the other at one slot, while others wait."""
    waits = [asked(f"w{n}", 10.0, 90.0, "left") for n in range(3)]
    second = served("b", 40.0 + gap_s, 70.0, node=1)
    parts = (served("a", 10.0, 40.0), second, served("c", 70.0, 100.0))
    return journal(asked("b", 10.0, 70.0), *waits, *parts, *more)


def test_a_free_slot_while_somebody_waits_is_found() -> None:
    assert [] == figures.conserving(line(1.0), ACCOUNTS)
    assert ["conserving"] == [
        one.rule for one in figures.conserving(line(10.0), ACCOUNTS)
    ]
    fault = Window("engine-killed", -1, 38.0, 52.0)
    assert [] == figures.conserving(line(10.0, fault), ACCOUNTS)
    for took_s, found in ((9.8, []), (0.05, ["conserving"])):
        probe = asked("p", 40.1, 60.0, in_line=False)
        began = served("p", 40.1 + took_s, 40.1 + took_s)
        judged = figures.conserving(line(10.0, probe, began), ACCOUNTS)
        assert found == [one.rule for one in judged]


def test_a_user_at_its_own_limit_leaves_slots_free_rightly() -> None:
    found = line(10.0, Limit(-1.0, "user", "alice", 1))
    found.limits[0] = found.limits[0]._replace(most=4)
    assert figures.use(found, ACCOUNTS).used < 0.95  # the gap alone
    found = line(0.0, Limit(-1.0, "user", "alice", 1))
    found.limits[0] = found.limits[0]._replace(most=4)
    assert figures.use(found, ACCOUNTS).used == 1.0


def test_a_hand_off_is_from_an_end_to_the_beginning_of_who_waited() -> None:
    assert (1.0, True) in list(figures.hand_offs(line(1.0), "one"))


def test_the_slots_of_a_killed_process_are_back_when_others_have_them() -> None:
    cut = dataclasses.replace(served("a", 10.0, 20.0), cut=True)
    kill = Window("worker-killed", 0, 20.0, 20.0)
    found = journal(cut, kill, served("b", 20.3, 30.0, node=1))
    assert [("worker-killed", pytest.approx(0.3))] == list(
        figures.recoveries(found, ACCOUNTS)
    )
    lost = journal(cut, kill)
    assert [("worker-killed", float("inf"))] == list(figures.recoveries(lost, ACCOUNTS))


# --- clients and schedule -------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "body", "ending"),
    [
        ("chat", b"data: {}\n\ndata: [DONE]\n\n", "ok"),
        ("chat", b"data: {}\n\n", "no-ending"),
        ("chat", b"data: [DONE]\n\ndata: [DONE]\n\n", "twice"),
        ("chat", b"data: [DONE]\n\ndata: {}\n\n", "no-ending"),
        ("chat", b'data: {"error":{"code":"x"}}\n\n', "in stream: x"),
        ("responses", b'data: {"type":"response.completed"}\n\n', "ok"),
        (
            "responses",
            b'data: {"type":"response.completed"}\n\n'
            b'data: {"type":"response.failed"}\n\n',
            "twice",
        ),
    ],
)
def test_a_client_names_the_ending(protocol: str, body: bytes, ending: str) -> None:
    assert ending == ending_of(protocol, Reply(200, {}, 0.0, body))


def test_a_client_names_a_refusal_and_a_break() -> None:
    refusal = Reply(429, {}, 0.0, b'{"error":{"type":"x","code":"queue_full"}}')
    assert "429 queue_full" == ending_of("chat", refusal)
    assert "broken" == ending_of("chat", Reply(200, {}, 0.0, b"", broken=True))


def test_a_seed_is_a_schedule_that_has_every_kind() -> None:
    faults = schedule(7, 600.0, 4)
    assert faults == schedule(7, 600.0, 4) != schedule(8, 600.0, 4)
    assert set(KINDS) == {one.kind for one in faults}
    assert all(one.end_s < 600.0 for one in faults)
    kills = [one for one in faults if KINDS[one.kind].kills]
    for one in kills:
        near = [k for k in kills if k.node == one.node and 0 <= one.at_s - k.at_s < 60]
        assert len(near) <= KILLS_A_MINUTE
