"""Slots are granted in order, handed over at once, and never lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from gateway.admission.interface import (
    AccountsChanged,
    Holder,
    HolderInfo,
    QueuePosition,
    Slot,
    SlotCount,
)
from gateway.admission.limiter import Limiter
from gateway.admission.registry import Registry
from gateway.admission.slot_table import MORE_LEAVING, Holders, SlotTable
from gateway.errors import GatewayError
from gateway.transport.timers import TICK_S
from tests.kit import virtual_time
from tests.kit.virtual_time import now

Test = Callable[[], Coroutine[Any, Any, None]]


def in_virtual_time(test: Test) -> Callable[[], None]:
    """Run the test in a loop whose time leaps."""

    def run() -> None:
        virtual_time.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class House:
    """A registry and what was granted by it."""

    def __init__(self, **accounts: int) -> None:
        self.registry = Registry(clock=asyncio.get_running_loop().time)
        self.granted: list[str] = []
        self._number = 0
        for name, limit in accounts.items():
            self.registry.set_account(name, limit)

    def user(
        self, *names: str, max_concurrent: int = 0, max_queued: int = 1000
    ) -> House:
        for name in names:
            self.registry.set_user(name, max_concurrent, max_queued)
        return self

    def holder(self, user: str) -> Holder:
        self._number += 1
        return Holder(f"{user}{self._number}", user)

    def ask_user(
        self, user: str, wait_s: float = 60.0, session: str = ""
    ) -> asyncio.Task[Slot]:
        holder = self.holder(user)
        return self._task(
            holder,
            self.registry.user_slot(user, holder, now() + wait_s, session=session),
        )

    def ask(
        self,
        user: str,
        *tiers: str,
        wait_s: float = 60.0,
        prefer: str = "",
        alone_s: float = 0.0,
    ) -> asyncio.Task[Slot]:
        """Ask for an account of *tiers*, each a string of one-letter names."""
        holder = self.holder(user)
        return self._task(
            holder,
            self.registry.account_slot(
                tiers or ("A",),
                holder,
                now() + wait_s,
                prefer=prefer,
                prefer_until=now() + alone_s if alone_s else 0.0,
            ),
        )

    def _task(self, holder: Holder, slot: Awaitable[Slot]) -> asyncio.Task[Slot]:
        async def wait() -> Slot:
            granted = await slot
            self.granted.append(holder.request_id)
            return granted

        return asyncio.create_task(wait(), name=holder.request_id)

    def counts(self, name: str) -> tuple[int, int]:
        """In use and waiting."""
        count = next(c for c in self.registry.counts() if c.name == name)
        return count.in_use, count.waiting

    def find(self, request_id: str) -> Holder:
        return next(h for h in self.registry._holders.all if h.request_id == request_id)

    def place(self, request_id: str) -> QueuePosition:
        place = self.registry.queue_position(self.find(request_id))
        assert place
        return place


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(4):
        await asyncio.sleep(0)


async def refusal(task: asyncio.Task[Slot]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await task
    return caught.value


# --- order ----------------------------------------------------------------------------


@in_virtual_time
async def test_ten_of_one_user_are_served_in_the_order_of_arrival() -> None:
    house = House().user("u", max_concurrent=1)
    tasks = [house.ask_user("u") for _ in range(11)]
    await turn()
    for task in tasks:
        (await task).release()
        await turn()

    assert [f"u{n}" for n in range(1, 12)] == house.granted


@in_virtual_time
async def test_a_newcomer_does_not_overtake_between_release_and_resumption() -> None:
    house = House(A=1).user("u", "v")
    slot = await house.ask("u")
    waiting = house.ask("u")
    await turn()
    slot.release()
    newcomer = house.ask("v")
    await turn()

    assert waiting.done()
    assert not newcomer.done()
    newcomer.cancel()


@in_virtual_time
async def test_the_next_has_the_slot_in_the_turn_of_the_release() -> None:
    house = House(A=1).user("u", "v")
    slot = await house.ask("u")
    waiting = house.ask("v")
    await turn()
    slot.release()

    assert "running" == house.find("v2").state
    assert (1, 0) == house.counts("A")
    await waiting


@in_virtual_time
async def test_users_take_turns_at_an_account() -> None:
    house = House(A=1).user("u", "v")
    tasks = [house.ask("u") for _ in range(5)] + [house.ask("v"), house.ask("v")]
    await turn()
    for _ in tasks:
        next(t for t in tasks if t.done()).result().release()
        await turn()
        tasks = [t for t in tasks if not t.done() or _held(t.result(), house)]

    assert ["u1", "u2", "v6", "u3", "v7", "u4", "u5"] == house.granted


def _held(slot: Slot, house: House) -> bool:
    return slot.holder in house.registry._holders.all


@in_virtual_time
async def test_the_better_tier_first_and_the_emptier_account_inside_it() -> None:
    house = House(A=2, B=2, C=0).user("u")
    slots = [await house.ask("u", "AB", "C") for _ in range(5)]

    assert "ABABC" == "".join(slot.account for slot in slots)


@in_virtual_time
async def test_a_waiter_takes_any_account_that_fits() -> None:
    house = House(A=1, B=1, C=1).user("u")
    a, b = await house.ask("u", "A"), await house.ask("u", "B")
    waiting = house.ask("u", "A", "B")
    await turn()
    b.release()

    assert "B" == (await waiting).account
    a.release()


# --- the session's own account --------------------------------------------------------


@in_virtual_time
async def test_the_sessions_own_account_is_taken_first() -> None:
    house = House(A=2, B=2).user("u")

    assert "B" == (await house.ask("u", "A", "B", prefer="B")).account


@in_virtual_time
async def test_it_is_waited_for_alone_for_a_moment() -> None:
    house = House(A=1, B=1).user("u")
    b = await house.ask("u", "B")
    waiting = house.ask("u", "A", "B", prefer="B", alone_s=3)
    await asyncio.sleep(2)
    b.release()

    assert "B" == (await waiting).account


@in_virtual_time
async def test_then_any_account_will_do() -> None:
    house = House(A=1, B=1).user("u")
    await house.ask("u", "B")
    began = now()
    slot = await house.ask("u", "A", "B", prefer="B", alone_s=3)

    assert "A" == slot.account
    assert 3 == pytest.approx(now() - began, abs=TICK_S)


@in_virtual_time
async def test_a_widened_waiter_stands_where_it_came() -> None:
    house = House(A=1, B=1).user("u", "v")
    a, _ = await house.ask("u", "A"), await house.ask("u", "B")
    first = house.ask("u", "A", "B", prefer="B", alone_s=3)
    await asyncio.sleep(1)
    second = house.ask("u", "A", "B")
    await asyncio.sleep(3)
    a.release()
    await turn()

    assert first.done()
    assert not second.done()
    second.cancel()


@in_virtual_time
async def test_a_preferred_account_that_is_gone_is_not_waited_for() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u", "A", prefer="Z", alone_s=3)

    assert "A" == slot.account


# --- caps, deadlines, sentences -------------------------------------------------------


@in_virtual_time
async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    house = House().user("u", max_concurrent=3, max_queued=2)
    tasks = [house.ask_user("u") for _ in range(5)]
    await turn()
    error = await refusal(house.ask_user("u"))

    assert ("queue_full", 429) == (error.code, error.status)
    assert (
        "Concurrency limit exceeded for user (3 of 3 running, 2 waiting), "
        f"please try again in {error.retry_after_s}s (request id: x)"
    ) == error.sentence("x")
    assert 5 == len(await house.registry.holders())
    for task in tasks:
        task.cancel()


@in_virtual_time
async def test_the_cap_counts_both_layers() -> None:
    house = House(A=1).user("u", max_queued=2)
    house.ask("u")
    waiting = [house.ask("u"), house.ask("u")]
    await turn()
    error = await refusal(house.ask("u"))

    assert "queue_full" == error.code
    assert (
        "Concurrency limit exceeded for account (1 of 1 running, 2 waiting)"
        == error.message
    )
    for task in waiting:
        task.cancel()


@in_virtual_time
async def test_a_request_that_waited_or_ran_is_not_refused_for_a_full_queue() -> None:
    house = House(A=1).user("u", max_queued=1)
    runner = house.holder("u")
    slot = await house.registry.account_slot([["A"]], runner, now() + 60)
    other = house.ask("u")
    await turn()
    slot.release()
    await turn()
    third = house.ask("u")
    await turn()
    again = asyncio.create_task(
        house.registry.account_slot([["A"]], runner, now() + 60)
    )
    await turn()
    (await other).release()
    await turn()

    assert again.done(), "and it goes before those who came later"
    assert not third.done()
    third.cancel()


@in_virtual_time
async def test_no_request_waits_where_none_may() -> None:
    house = House().user("u", max_concurrent=1, max_queued=0)
    await house.ask_user("u")

    assert "queue_full" == (await refusal(house.ask_user("u"))).code


@in_virtual_time
async def test_one_deadline_covers_both_layers() -> None:
    house = House(A=1).user("u", max_concurrent=1)
    house.user("v")
    await house.ask("v")
    first = await house.ask_user("u")
    holder, began = house.holder("u"), now()
    deadline = began + 30
    waiting = asyncio.create_task(house.registry.user_slot("u", holder, deadline))
    await asyncio.sleep(20)
    first.release()
    await waiting
    with pytest.raises(GatewayError) as caught:
        await house.registry.account_slot([["A"]], holder, deadline)

    assert 30 == pytest.approx(now() - began, abs=TICK_S)
    assert "queue_timeout" == caught.value.code
    assert (
        "Concurrency limit exceeded for account (1 of 1 running, 0 waiting)"
        == caught.value.message
    )


@pytest.mark.parametrize("wait_s", [-5.0, 0.0, float("-inf")])
def test_a_deadline_that_has_passed_refuses_only_who_must_wait(wait_s: float) -> None:
    async def scenario() -> None:
        house = House().user("u", max_concurrent=1)
        await house.ask_user("u", wait_s)

        assert "queue_timeout" == (await refusal(house.ask_user("u", wait_s))).code

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_deadline_may_be_never() -> None:
    house = House().user("u", max_concurrent=1)
    slot = await house.ask_user("u")
    waiting = house.ask_user("u", float("inf"))
    await asyncio.sleep(10_000)
    slot.release()

    assert "u" == (await waiting).name


@in_virtual_time
async def test_when_to_come_back_is_measured() -> None:
    """Requests of 8 s on one slot; the running one is 3 s old, two wait before."""
    house = House().user("u", max_concurrent=1, max_queued=2)
    for _ in range(3):
        with await house.ask_user("u"):
            await asyncio.sleep(8)
    await house.ask_user("u")
    waiting = [house.ask_user("u"), house.ask_user("u")]
    await asyncio.sleep(3)

    assert 5 + 8 + 8 == (await refusal(house.ask_user("u"))).retry_after_s
    for task in waiting:
        task.cancel()


@in_virtual_time
async def test_limits_of_several_accounts_are_summed() -> None:
    house = House(A=1, B=2).user("u")
    for tier in "ABB":
        await house.ask("u", tier)
    error = await refusal(house.ask("u", "AB", wait_s=1))

    assert (
        "Concurrency limit exceeded for account (3 of 3 running, 0 waiting)"
        == error.message
    )


@in_virtual_time
async def test_the_place_tells_position_wait_and_load() -> None:
    house = House(A=1).user("u", "v")
    with await house.ask("u"):
        await asyncio.sleep(10)
    await house.ask("u")
    tasks = [house.ask("u"), house.ask("u"), house.ask("v")]
    await asyncio.sleep(4)

    assert QueuePosition(1, 6.0, "account", 1, 1, 3) == house.place("u3")
    assert QueuePosition(2, 16.0, "account", 1, 1, 3) == house.place("v5")
    assert QueuePosition(3, 26.0, "account", 1, 1, 3) == house.place("u4")
    for task in tasks:
        task.cancel()


@in_virtual_time
async def test_the_wait_for_a_user_counts_the_wait_for_an_account() -> None:
    """Each request runs 10 s after it waited 5 s for its account."""
    house = House(A=1).user("u", max_concurrent=1)
    house.user("v")
    for _ in range(2):
        a = await house.ask("v")
        holder = house.holder("u")
        with await house.registry.user_slot("u", holder, now() + 99):
            asyncio.get_running_loop().call_later(5, a.release)
            with await house.registry.account_slot("A", holder, now() + 99):
                await asyncio.sleep(10)
    await house.ask_user("u")
    waiting = house.ask_user("u")
    await turn()

    assert 15 + 5 == house.place(waiting.get_name()).expected_s
    waiting.cancel()


# --- cancellation ---------------------------------------------------------------------


@in_virtual_time
async def test_leaving_the_line_frees_the_place_at_once() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u")
    first, second = house.ask("u"), house.ask("u")
    await turn()
    first.cancel()
    await turn()

    assert (1, 1) == house.counts("A")
    slot.release()
    await turn()
    assert second.done()


@pytest.mark.parametrize("layer", ["user", "account"])
@pytest.mark.parametrize("cancel_first", [True, False], ids=["before", "after"])
def test_cancel_and_grant_in_the_same_turn(layer: str, cancel_first: bool) -> None:
    """Whichever wins, the slot goes on to the next and is not lost or doubled."""

    async def scenario() -> None:
        house = House(A=1).user("u", max_concurrent=1 if layer == "user" else 0)
        ask = house.ask_user if layer == "user" else house.ask
        slot = await ask("u")
        first, second = ask("u"), ask("u")
        await turn()
        if cancel_first:
            first.cancel()
            slot.release()
        else:
            slot.release()
            first.cancel()
        await turn()

        assert first.cancelled()
        assert second.done()
        second.result().release()
        assert [] == await house.registry.holders()
        assert (0, 0) == house.counts("u" if layer == "user" else "A")

    virtual_time.run(scenario())


@in_virtual_time
async def test_deadline_and_grant_in_the_same_turn() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u")
    asyncio.get_running_loop().call_at(now() + 5, slot.release)
    waiting = house.ask("u", wait_s=5)
    with suppress(GatewayError):
        (await waiting).release()

    assert (0, 0) == house.counts("A")


@in_virtual_time
async def test_a_slot_that_is_handed_on_is_the_next_ones() -> None:
    house = House().user("u", max_concurrent=1)
    first = await house.ask_user("u")
    waits = house.ask_user("u")
    await turn()
    assert first.hand_on() and (1, 0) == house.counts("u")
    second = await waits
    assert not first.hand_on()  # it has none
    for _ in range(2):
        assert not first.release()
        assert (1, 0) == house.counts("u")

    assert not second.release()  # none waits
    assert (0, 0) == house.counts("u")


@in_virtual_time
async def test_those_who_have_handed_on_and_are_not_over_are_bounded() -> None:
    """Clients that do not read their answers hold no more than so many of them."""
    house = House().user("u", max_concurrent=2)
    handed = [await house.ask_user("u") for _ in range(2)]
    for slot in handed[:]:
        slot.hand_on()
    for _ in range(MORE_LEAVING):
        handed.append(await house.ask_user("u"))
        handed[-1].hand_on()
    kept = await house.ask_user("u")
    assert not kept.hand_on()
    assert (1, 0) == house.counts("u")
    handed[0].release()
    kept.hand_on()
    assert (0, 0) == house.counts("u")
    for slot in (*handed, kept):
        slot.release()

    [last] = [await house.ask_user("u")]
    last.hand_on()
    assert (0, 0) == house.counts("u")


@in_virtual_time
async def test_a_caller_that_raises_gives_the_slot_back() -> None:
    house = House(A=1).user("u")
    with pytest.raises(ZeroDivisionError):
        with await house.ask("u") as slot:
            raise ZeroDivisionError

    assert (0, 0) == house.counts("A")
    slot.release()
    assert (0, 0) == house.counts("A")


@in_virtual_time
async def test_a_slot_goes_back_once() -> None:
    house = House(A=1).user("u")
    first = await house.ask("u")
    first.release()
    second = await house.ask("u")
    first.release()

    assert (1, 0) == house.counts("A")
    assert "account" == second.scope


@in_virtual_time
async def test_a_waiter_that_is_thrown_away_leaves_nothing() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u")
    waiting = house.registry.account_slot(["A"], house.holder("u"), now() + 9)
    waiting.send(None)
    waiting.close()
    slot.release()

    assert (0, 0) == house.counts("A")


# --- changing limits ------------------------------------------------------------------


@in_virtual_time
async def test_a_larger_limit_lets_waiters_in_at_once() -> None:
    house = House(A=1).user("u")
    tasks = [house.ask("u") for _ in range(5)]
    await turn()
    house.registry.set_account("A", 3)
    await turn()

    assert ["u1", "u2", "u3"] == house.granted
    house.registry.set_account("A", 0)
    await turn()
    assert all(task.done() for task in tasks)


@in_virtual_time
async def test_a_smaller_limit_drops_no_request_and_holds_from_then_on() -> None:
    house = House(A=3).user("u")
    slots = [await house.ask("u") for _ in range(3)]
    waiting = house.ask("u")
    await turn()
    house.registry.set_account("A", 1)
    slots[0].release()
    slots[1].release()
    await turn()

    assert not waiting.done()
    slots[2].release()
    await turn()
    assert waiting.done()
    assert (1, 0) == house.counts("A")


@in_virtual_time
async def test_a_limit_may_be_none_and_come_back() -> None:
    house = House(A=0).user("u")
    slots = [await house.ask("u") for _ in range(4)]
    house.registry.set_account("A", 2)
    waiting = house.ask("u")
    for slot in slots[:2]:
        slot.release()
    await turn()

    assert not waiting.done()
    slots[2].release()
    await turn()
    assert waiting.done()


@in_virtual_time
async def test_a_negative_limit_is_none() -> None:
    house = House(A=-1).user("u", max_concurrent=-3)
    await house.ask_user("u")

    assert "A" == (await house.ask("u")).account


@in_virtual_time
async def test_a_removed_users_waiters_are_refused_and_its_runners_finish() -> None:
    house = House(A=1).user("u", max_concurrent=2)
    runner = await house.ask_user("u")
    slot = await house.ask("u")
    at_account = house.ask("u")
    await house.ask_user("u")
    at_user = house.ask_user("u")
    await turn()
    house.registry.remove_user("u")

    for task in (at_account, at_user, house.ask_user("u"), house.ask("u")):
        error = await refusal(task)
        assert ("user_removed", "client") == (error.code, error.origin)
    assert 2 == house.counts("u")[0]
    runner.release()
    slot.release()
    assert (0, 0) == house.counts("A")


@in_virtual_time
async def test_a_user_that_comes_back_finds_its_slots_counted() -> None:
    house = House().user("u", max_concurrent=2)
    slots = [await house.ask_user("u") for _ in range(2)]
    house.registry.remove_user("u")
    house.user("u", max_concurrent=2)
    waiting = house.ask_user("u")
    await turn()

    assert not waiting.done()
    slots[0].release()
    await turn()
    assert waiting.done()


@in_virtual_time
async def test_a_removed_account_is_left_by_its_waiters() -> None:
    house = House(A=1, B=1, C=1).user("u")
    a, b = await house.ask("u", "A"), await house.ask("u", "B")
    only_a, either = house.ask("u", "A"), house.ask("u", "AB")
    sticky = house.ask("u", "A", "C", prefer="A", alone_s=30)
    await turn()
    house.registry.remove_account("A")

    with pytest.raises(AccountsChanged):
        await only_a
    assert "C" == (await sticky).account
    assert not either.done()
    b.release()
    assert "B" == (await either).account
    a.release()
    assert ["B", "C", "u"] == sorted(c.name for c in house.registry.counts())
    with pytest.raises(AccountsChanged):
        await house.ask("u", "A")


@in_virtual_time
async def test_who_chooses_anew_keeps_its_place() -> None:
    """The user's turn and the order inside a user are as they were."""
    house = House(A=1, B=1).user("u", "v")
    slot = await house.ask("v", "A")
    waiters = [house.ask(user, "A") for user in ("u", "u", "v")]
    await turn()
    holders = [house.find(name) for name in ("u2", "u3", "v4")]
    house.registry.choose_anew()
    for task in waiters:
        with pytest.raises(AccountsChanged):
            await task
    again = [
        asyncio.ensure_future(
            house.registry.account_slot((("A",),), holder, now() + 60)
        )
        for holder in reversed(holders)  # in whichever order their tasks run
    ]
    await turn()
    late = house.ask("u", "A")
    await turn()
    order = []
    for _ in range(3):
        slot.release()
        await turn()
        [done] = [task for task in again if task.done()]
        again.remove(done)
        slot = done.result()
        order.append(slot.holder.request_id)

    assert ["u2", "v4", "u3"] == order
    assert not late.done()
    late.cancel()
    slot.release()


@in_virtual_time
async def test_who_was_granted_a_slot_in_the_same_breath_keeps_it() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u", "A")
    waiting = house.ask("u", "A")
    await turn()
    slot.release()
    house.registry.choose_anew()

    (await waiting).release()
    assert (0, 0) == house.counts("A")


@in_virtual_time
async def test_who_left_just_before_a_removal_is_not_offered_another() -> None:
    house = House(A=1, B=1).user("u")
    await house.ask("u", "A")
    leaver = house.ask("u", "AB", prefer="A", alone_s=30)
    await turn()
    leaver.cancel()
    house.registry.remove_account("A")
    await turn()

    assert leaver.cancelled()
    assert (0, 0) == house.counts("B")


@in_virtual_time
async def test_who_left_just_before_it_was_widened_takes_nothing() -> None:
    house = House(A=1, B=1).user("u")
    await house.ask("u", "A")
    loop, came = asyncio.get_running_loop(), now()
    leaver = house.ask("u", "AB", prefer="A", alone_s=3)
    loop.call_at(came + 3, leaver.cancel)
    await asyncio.sleep(4)

    assert leaver.cancelled()
    assert (0, 0) == house.counts("B")


@in_virtual_time
async def test_a_full_limiter_is_not_taken() -> None:
    limiter = Limiter("A")
    limiter.resize(1)
    holder = Holder("x", "u")
    table = SlotTable("account", Holders(), lambda: 0.0)
    slots = [Slot("A", "account", holder, 0.0, table) for _ in range(2)]
    limiter.take(slots[0])

    with pytest.raises(RuntimeError):
        limiter.take(slots[1])
    assert list(limiter.slots) == slots[:1]
    limiter.give(slots[0])
    assert limiter.free


@in_virtual_time
async def test_the_semaphore_decides_whether_a_slot_is_free() -> None:
    """What holds its permit takes the slot, also where no slot is counted."""
    house = House(A=1).user("u", max_concurrent=1)
    for table, name in ((house.registry._users, "u"), (house.registry._accounts, "A")):
        semaphore = table.limiters[name]._semaphore
        assert semaphore
        await semaphore.acquire()
        waiting = house.ask_user("u") if name == "u" else house.ask("u")
        await turn()
        assert not waiting.done()

        semaphore.release()
        table.set(name, 1)
        (await waiting).release()


@in_virtual_time
async def test_a_limit_is_lowered_below_what_is_taken_and_raised_again() -> None:
    house = House(A=3).user("u")
    slots = [await house.ask("u") for _ in range(3)]
    house.registry.set_account("A", 1)
    waiting = [house.ask("u") for _ in range(3)]
    slots.pop().release()
    slots.pop().release()
    await turn()
    assert house.counts("A") == (1, 3)

    house.registry.set_account("A", 2)
    assert (await waiting[0]).account == "A"
    house.registry.set_account("A", 0)
    assert [(await one).account for one in waiting[1:]] == ["A", "A"]
    house.registry.set_account("A", 4)
    last = house.ask("u")
    await turn()
    assert (house.counts("A"), last.done()) == ((4, 1), False)
    slots.pop().release()
    assert (await last).account == "A"


@in_virtual_time
async def test_removing_what_is_not_there_is_nothing() -> None:
    house = House()
    house.registry.remove_account("A")
    house.registry.remove_user("u")

    assert [] == house.registry.counts()


# --- draining -------------------------------------------------------------------------


@in_virtual_time
async def test_a_draining_slot_counts_until_somebody_needs_it() -> None:
    house = House(A=1).user("u")
    evicted: list[str] = []
    slot = await house.ask("u")
    slot.drain(lambda: (evicted.append("A"), slot.release()))
    await turn()

    assert [] == evicted
    assert (1, 0) == house.counts("A")
    assert "draining" == house.find("u1").state
    assert "A" == (await house.ask("u")).account
    assert ["A"] == evicted


@in_virtual_time
async def test_the_oldest_draining_slot_goes_first_and_one_for_each_waiter() -> None:
    house = House(A=2, B=1).user("u")
    evicted: list[int] = []
    slots = [await house.ask("u", tier) for tier in "AAB"]
    for n in (1, 2, 0):
        await asyncio.sleep(1)
        slots[n].drain(lambda n=n: evicted.append(n))  # type: ignore[misc]
    waiting = [house.ask("u", "AB")]
    await turn()

    assert [1] == evicted
    waiting.append(house.ask("u", "AB"))
    await turn()
    assert [1, 2] == evicted
    slots[1].release()
    slots[2].release()
    await turn()
    assert all(task.done() for task in waiting)
    assert [1, 2] == evicted


@in_virtual_time
async def test_a_slot_that_starts_to_drain_before_a_waiter_is_evicted() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u")
    waiting = house.ask("u")
    await turn()
    slot.drain(slot.release)
    await turn()

    assert waiting.done()
    assert (1, 0) == house.counts("A")


@in_virtual_time
async def test_a_widened_waiter_evicts_too() -> None:
    house = House(A=1, B=1).user("u")
    a, _ = await house.ask("u", "A"), await house.ask("u", "B")
    a.drain(a.release)
    slot = await house.ask("u", "A", "B", prefer="B", alone_s=3)

    assert "A" == slot.account


@in_virtual_time
async def test_no_waiter_stays_behind_a_ghost_after_a_promise_went_elsewhere() -> None:
    """Two slots were evicted at B for waiters that left; one at A needs its own."""
    house = House(A=1, B=2).user("u")
    slots = [await house.ask("u", tier) for tier in "ABB"]
    for slot in slots[1:]:
        slot.drain(lambda: None)
    left = [house.ask("u", "B"), house.ask("u", "B")]
    await turn()
    for task in left:
        task.cancel()
    await turn()
    slots[0].drain(slots[0].release)
    either, only_a = house.ask("u", "AB"), house.ask("u", "A")
    await turn()
    slots[1].release()
    slots[2].release()
    await turn()

    assert {"A", "B"} == {either.result().account, only_a.result().account}


@in_virtual_time
async def test_draining_is_no_service_time() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u")
    await asyncio.sleep(2)
    slot.drain(slot.release)
    await asyncio.sleep(500)
    slot.release()
    await house.ask("u")
    waiting = house.ask("u")
    await turn()

    assert 2 == pytest.approx(house.place("u3").expected_s)
    waiting.cancel()


@in_virtual_time
async def test_a_released_slot_cannot_drain() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u")
    slot.release()
    slot.drain(slot.release)

    assert (0, 0) == house.counts("A")


@in_virtual_time
async def test_an_evict_that_raises_hurts_no_other_request() -> None:
    house = House(A=1).user("u")
    heard: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
    slot = await house.ask("u")
    slot.drain(lambda: 1 / 0)
    waiting = house.ask("u")
    await turn()
    slot.release()

    assert "A" == (await waiting).account
    assert [ZeroDivisionError] == [type(error) for error in heard]


# --- the kept place -------------------------------------------------------------------


@in_virtual_time
async def test_a_repeat_after_a_timeout_gets_its_place_back() -> None:
    house = House().user("u", max_concurrent=1)
    slot = await house.ask_user("u")
    early = house.ask_user("u", wait_s=10, session="s")
    await turn()
    late = house.ask_user("u")
    assert "queue_timeout" == (await refusal(early)).code
    await asyncio.sleep(1)
    repeat = house.ask_user("u", session="s")
    await turn()
    slot.release()
    await turn()

    assert repeat.done()
    assert not late.done()
    late.cancel()


@pytest.mark.parametrize(
    ("session", "pause_s"),
    [
        pytest.param("other", 1.0, id="another-session"),
        pytest.param("", 1.0, id="no-session"),
        pytest.param("s", 6.0, id="too-late"),
    ],
)
def test_a_place_is_kept_for_its_session_and_not_for_long(
    session: str, pause_s: float
) -> None:
    async def scenario() -> None:
        house = House().user("u", max_concurrent=1)
        slot = await house.ask_user("u")
        early = house.ask_user("u", wait_s=10, session="s")
        await turn()
        late = house.ask_user("u")
        await refusal(early)
        await asyncio.sleep(pause_s)
        repeat = house.ask_user("u", session=session)
        await turn()
        slot.release()
        await turn()

        assert late.done()
        assert not repeat.done()
        repeat.cancel()

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_repeat_is_not_refused_because_its_place_was_taken() -> None:
    house = House().user("u", max_concurrent=1, max_queued=1)
    slot = await house.ask_user("u")
    assert await refusal(house.ask_user("u", wait_s=10, session="s"))
    late = house.ask_user("u")
    await turn()
    repeat = house.ask_user("u", session="s")
    await turn()
    slot.release()

    assert "u" == (await repeat).name
    late.cancel()


@in_virtual_time
async def test_the_place_between_users_is_kept_too() -> None:
    house = House(A=1).user("u", "v", max_queued=1)

    async def both(user: str, wait_s: float) -> Slot:
        holder, deadline = house.holder(user), now() + wait_s
        await house.registry.user_slot(user, holder, deadline, session="s")
        return await house.registry.account_slot(["A"], holder, deadline)

    slot = await house.ask("w") if house.user("w") else None
    early = asyncio.create_task(both("u", 10))
    await turn()
    other = asyncio.create_task(both("v", 60))
    await refusal(early)
    repeat = asyncio.create_task(both("u", 60))
    await turn()
    assert slot
    slot.release()
    await turn()

    assert repeat.done()
    assert not other.done()
    other.cancel()


@in_virtual_time
async def test_a_kept_place_is_good_for_one_wait() -> None:
    """After its turn, a request that fails over waits behind the other users."""
    house = House(A=1).user("u", "v", "w", "x")
    slot = await house.ask("w")
    early = house.holder("u")
    await house.registry.user_slot("u", early, now() + 10, session="s")
    with pytest.raises(GatewayError):
        await house.registry.account_slot("A", early, now() + 10)
    first, second = house.ask("v"), house.ask("x")
    repeat, deadline = house.holder("u"), now() + 60
    await house.registry.user_slot("u", repeat, deadline, session="s")
    granted = asyncio.create_task(house.registry.account_slot("A", repeat, deadline))
    await turn()
    slot.release()
    (await granted).release()
    again = asyncio.create_task(house.registry.account_slot("A", repeat, deadline))
    await turn()
    (await first).release()
    await turn()

    assert second.done()
    assert not again.done()
    again.cancel()


# --- what can be seen -----------------------------------------------------------------


@in_virtual_time
async def test_every_holder_is_listed_with_its_state() -> None:
    house = House(A=1).user("u", max_concurrent=1)
    house.user("v")
    user_slot = await house.ask_user("u")
    queued = house.ask_user("u")
    slot = await house.ask("v")
    at_account = house.ask("v")
    await asyncio.sleep(5)
    listed = await house.registry.holders()

    assert listed == [
        HolderInfo("u1", "u", "", "running", 5.0),
        HolderInfo("u2", "u", "", "queued_user", 5.0),
        HolderInfo("v3", "v", "A", "running", 5.0),
        HolderInfo("v4", "v", "", "queued_account", 5.0),
    ]
    assert house.registry.queue_position(house.find("v3")) is None
    for task in (queued, at_account):
        task.cancel()
    await turn()
    user_slot.release()
    slot.release()
    assert [] == await house.registry.holders()


@in_virtual_time
async def test_a_waiter_that_is_ended_gets_the_error_and_leaves_the_queue() -> None:
    house = House(A=1).user("u")
    slot = await house.ask("u")
    ended, other = house.ask("u"), house.ask("u")
    await turn()
    error = GatewayError("gateway_shutdown")

    assert await house.registry.end("u2", error)
    assert (await refusal(ended)) is error
    assert house.counts("A") == (1, 1)
    slot.release()
    assert (await other).account == "A"
    assert not await house.registry.end("u2", error)


@in_virtual_time
async def test_a_running_holder_is_ended_where_it_runs() -> None:
    ended: list[tuple[str, str]] = []

    def end_running(request_id: str, error: GatewayError) -> bool:
        ended.append((request_id, error.code))
        return request_id == "r"

    registry = Registry(end_running=end_running)
    registry.set_user("u", 1, 10)
    slot = await registry.user_slot("u", Holder("r", "u"), now() + 60)

    assert await registry.end("r", GatewayError("gateway_shutdown"))
    assert ended == [("r", "gateway_shutdown")]
    assert not await registry.end("other", GatewayError("gateway_shutdown"))
    slot.hand_on()  # it is no holder any more, and still runs
    assert [] == await registry.holders()
    assert await registry.end("r", GatewayError("gateway_shutdown"))
    assert ended == [(one, "gateway_shutdown") for one in ("r", "other", "r")]
    slot.release()


@in_virtual_time
async def test_a_holder_that_drains_is_evicted_once_when_it_is_ended() -> None:
    house = House(A=1).user("u", max_concurrent=1)
    holder = house.holder("u")
    slots = [
        await house.registry.user_slot("u", holder, now()),
        await house.registry.account_slot(["A"], holder, now()),
    ]
    evicted: list[str] = []
    for slot in slots:
        slot.drain(partial(_evict, slot, evicted))

    error = GatewayError("gateway_shutdown")
    assert await house.registry.end(holder.request_id, error)
    waiting = house.ask_user("u")  # it needs no further eviction
    assert (await waiting).name == "u"
    assert sorted(evicted) == ["A", "u"]
    assert house.counts("A") == (0, 0)


def _evict(slot: Slot, evicted: list[str]) -> None:
    evicted.append(slot.name)
    slot.release()


@in_virtual_time
async def test_counts_of_users_and_accounts() -> None:
    house = House(A=1, B=0).user("u", max_concurrent=1)
    await house.ask_user("u")
    await house.ask("u")
    tasks = [house.ask_user("u"), house.ask("u")]
    await turn()

    assert [
        SlotCount("user", "u", 1, 1, 1),
        SlotCount("account", "A", 1, 1, 1),
        SlotCount("account", "B", 0, 0, 0),
    ] == house.registry.counts()
    assert ["A", "B"] == [c.name for c in house.registry.counts("account")]
    for task in tasks:
        task.cancel()


@in_virtual_time
async def test_without_limits_nothing_waits_and_no_future_is_made() -> None:
    house = House(A=0).user("u")
    loop = asyncio.get_running_loop()
    monkeypatch = pytest.MonkeyPatch()
    made: list[int] = []
    monkeypatch.setattr(loop, "create_future", lambda: made.append(1))
    for _ in range(100):
        holder = house.holder("u")
        await house.registry.user_slot("u", holder, now())
        await house.registry.account_slot(["A"], holder, now())

    monkeypatch.undo()

    assert [] == made
    assert (100, 0) == house.counts("A")


def test_a_clock_that_jumps_does_no_harm() -> None:
    async def scenario() -> None:
        clock = [1000.0]
        registry = Registry(clock=lambda: clock[0])
        registry.set_user("u", 1, 10)
        holders = [Holder(f"r{n}", "u") for n in range(4)]
        slot = await registry.user_slot("u", holders[0], 1060.0, session="s")
        tasks = [
            asyncio.create_task(registry.user_slot("u", h, 1060.0, session="s"))
            for h in holders[1:]
        ]
        await turn()
        for leap in (-990.0, 1e8, -1e7):
            clock[0] += leap
            place = registry.queue_position(holders[3])
            assert place is None or place.expected_s >= 0
            slot.release()
            await turn()
            slot = await tasks.pop(0)
        slot.release()

        assert [] == await registry.holders()

    virtual_time.run(scenario())


@in_virtual_time
async def test_five_thousand_waiters_come_and_go() -> None:
    house = House(A=4, B=4).user(
        *(f"u{n}" for n in range(50)), max_concurrent=0, max_queued=200
    )
    tasks = [house.ask(f"u{n % 50}", "AB", wait_s=9e9) for n in range(5008)]
    await turn()

    assert (4, 5000) == house.counts("A")
    holders = list(house.registry._holders.all)
    places = [p.position for h in holders if (p := house.registry.queue_position(h))]
    assert list(range(1, 5001)) == sorted(places)
    for task in tasks:
        (await task).release()
    assert [] == await house.registry.holders()
    assert (0, 0) == house.counts("A") == house.counts("B")


@in_virtual_time
async def test_a_mass_of_cancellations_leaves_nothing() -> None:
    house = House(A=1).user("u", max_queued=5000)
    slot = await house.ask("u")
    tasks = [house.ask("u") for _ in range(1000)]
    await turn()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    slot.release()
    del tasks, slot
    gc.collect()

    assert (0, 0) == house.counts("A")
    assert not any(isinstance(o, Slot) for o in gc.get_objects())
