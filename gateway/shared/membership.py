"""
This process as a node of the engine: it joins, beats, says what it has, and comes back.

    away ──dial──▶ BEAT join · CONF · RESYNC ──▶ beats ──lost──▶ away

Rule 1: the moment that the joining is written, the engine decides: what is asked behind
        it is answered behind it.
Rule 2: the number of leases in a beat proves that both lists are equal. It may differ
        once, by a refusal on its way; a second time running all is said again.
Rule 3: a node that was declared dead while it lived joins again and says what it has.
Rule 4: one line in the log for the loss, and one for the return.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from gateway.shared import steps
from gateway.shared.address import EngineAddress
from gateway.shared.answers import BeatAnswer, LeaseNews, Push, read_push
from gateway.shared.connection import EngineConnection
from gateway.shared.dialing import dial
from gateway.shared.errors import EngineLost
from gateway.shared.node_book import GateQuestion, NodeBook
from gateway.shared.node_timing import NodeTiming
from gateway.shared.standstill import Standstill
from gateway.shared.steps import EngineStep
from gateway.telemetry import log

HASTY_S = 0.1
"""The next beat comes after so long if what is set aside for this node has changed;"""
HASTY_NODE_S = 0.005  # with many nodes, after so long for each of them
DIFFERS_S = 60.0  # so long two nodes may have two configs, as during a reload
COUNT_S = 1.0  # between two counts of the nodes, while the engine is away
COUNT_WITHIN_S = 2.0
OWN_WORDS_BYTES = 4 * 1024 * 1024  # of one message between nodes

A = TypeVar("A")


class Membership:
    """
    Args:
        node: its name; never used before.
        config: the hash of the config that the limits come from.
        learn: the first join, too, gives an engine that knows no node the time to hear
            of all; False where the engine is known to be new.

    Attributes:
        clock: monotonic seconds, of how long two configs have differed.
        up: whether the engine decides.
        nodes, rank: how many nodes live, and which of them this is: as the engine has
            said at the last beat, and, while it is away, as ``alive`` says.
        alive: the names of all nodes that live, as something else than the engine
            knows them; none if it does not. It raises nothing.
        heard: takes what else is published, by its kind.
        reaped: called with the nodes that a beat has declared dead.
        generation: grows with each joining.
        lapsed: the engine was lost after this process had stood still for so long that
            what it had may be others'.
    """

    def __init__(
        self,
        address: EngineAddress,
        prefix: str,
        node: str,
        book: NodeBook,
        *,
        config: str = "",
        learn: bool = True,
        timing: NodeTiming = NodeTiming(),
    ) -> None:
        self.node = node
        self.clock: Callable[[], float] = time.monotonic
        self.nodes, self.rank = 1, 0
        self.up = False
        self.generation = 0
        self.config = config
        self.heard: dict[str, Callable[[Push], object]] = {}
        self.reaped: Callable[[Sequence[str]], object] = lambda nodes: None
        self.on_joined: Callable[[], object] = lambda: None
        self.alive: Callable[[], Awaitable[Sequence[str]]] = _unknown
        self._address, self._prefix = address, prefix
        self._keys = steps.key_prefix(prefix)
        self._own = steps.node_channel(prefix, node).encode()
        self._book = book
        self._learn = learn
        self._timing = timing
        self._connection: EngineConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._over: asyncio.Event = asyncio.Event()  # the connection is lost
        self._hasty = asyncio.Event()
        self._tried = asyncio.Event()
        self._lost_said = False
        self._differed = 0
        self._standstill = Standstill()
        self.lapsed = False
        self._other_config_since: float | None = None
        self._config_said = False

    # --- its life -------------------------------------------------------------------

    async def start(self) -> None:
        """Join; an engine that cannot be reached is tried again in the background."""
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name="engine-membership"
        )
        await self._tried.wait()
        await self.count()
        if not self.up:
            self._book.lost()
            self._count_on()

    async def stop(self) -> None:
        """Leave: whatever this node still has is free at once."""
        if self._task is None:
            return
        if self.up:
            with suppress(EngineLost):
                await self.asked(steps.reap(self.node))
        self._lost_said = True  # it is no loss
        tasks = [one for one in (self._task, self._counting) if one is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.up = False
        if self._connection is not None:
            await self._connection.closed()

    async def count(self) -> None:
        """See how many nodes live, unless the engine says so."""
        if self.up:
            return
        names: Sequence[str] = ()
        with suppress(TimeoutError):
            async with asyncio.timeout(COUNT_WITHIN_S):
                names = sorted(await self.alive())
        if self.up or self.node not in names:
            return
        before, self.nodes = (self.nodes, self.rank), len(names)
        self.rank = names.index(self.node)  # as the engine ranks them
        if before != (self.nodes, self.rank):
            self._book.counted()

    # --- what is asked --------------------------------------------------------------

    def ask(self, step: EngineStep[A], then: Callable[[A], object]) -> None:
        """
        Take *step*; only while ``up``.

        Args:
            then: called with the answer, in the order of answers and pushes; not called
                if the engine is lost before.
        """
        assert self._connection is not None
        read = step.read
        self._connection.ask(
            step.script, self._words(step), lambda reply: then(read(reply))
        )

    def tell(self, step: EngineStep[Any]) -> None:
        """Take *step*; its answer says nothing. Does nothing while not ``up``."""
        if self.up and self._connection is not None:
            self._connection.ask(step.script, self._words(step))

    async def asked(self, step: EngineStep[A]) -> A:
        """
        The answer of *step*.

        Raises:
            EngineLost: it is away, or was lost meanwhile.
        """
        if not self.up or self._connection is None:
            raise EngineLost("away")
        return step.read(await self._connection.call(step.script, *self._words(step)))

    def publish(self, text: str, node: str = "") -> None:
        """Say *text* to *node*, or to all nodes; lost while the engine is."""
        if self.up and self._connection is not None and len(text) <= OWN_WORDS_BYTES:
            channel = (
                steps.node_channel(self._prefix, node)
                if node
                else steps.common_channel(self._prefix)
            )
            self._connection.cast("PUBLISH", channel, text)

    def rejoin(self, generation: int) -> None:
        """The engine has forgotten this node since it joined in *generation*."""
        if self.up and generation == self.generation:
            self._join(learn=True)

    def resync(self) -> None:
        """Say everything again."""
        if self.up:
            self._say_all()

    def hasten(self) -> None:
        """Let the next beat come soon."""
        self._hasty.set()

    def set_config(self, config: str, limits: Sequence[tuple[str, int | None]]) -> None:
        """Make *limits* hold for all nodes; *config*: the hash of where they stand."""
        self.config = config
        for step in steps.conf(self.node, config, limits):
            self.tell(step)

    # --- inside ---------------------------------------------------------------------

    def _words(self, step: EngineStep[Any]) -> tuple[str | int, ...]:
        return (1, self._keys, *step.words)

    async def _run(self) -> None:
        first_s, most_s = self._timing.retry_s
        wait_s = first_s
        while True:
            try:
                self._over.clear()
                self._connection = await dial(
                    self._address, f"gateway:{self.node}", self._on_push, self._on_lost
                )
            except EngineLost as error:
                self._say_lost(error)
            else:
                wait_s = first_s
                self._connection.on_repeat = self._book.repeated
                self._begin()
                await self._beat_on()
            self._tried.set()
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(most_s, wait_s * 2)

    def _begin(self) -> None:
        assert self._connection is not None
        self._connection.subscribe(steps.node_channel(self._prefix, self.node))
        self._connection.subscribe(steps.common_channel(self._prefix))
        self.up = True
        self._join(learn=self._learn)
        self._learn = True

    def _join(self, *, learn: bool) -> None:
        """Written in one go, so nothing comes between."""
        expected = self.nodes if self.generation else 0
        self.generation += 1
        self._differed = 0
        self._beat(join=True, learn=learn, expected=expected)
        for step in steps.conf(self.node, self.config, self._book.limits()):
            self.tell(step)
        self._book.joined()
        self._say_all()
        self._beat()
        self.on_joined()

    def _say_all(self) -> None:
        self._differed = 0
        for step in steps.resync(self.node, self._book.reports()):
            self.ask(step, self._resynced)
        self._book.all_said()

    def _resynced(self, news: list[LeaseNews] | None) -> None:
        if news is None:
            self.rejoin(self.generation)
            return
        self._book.corrected(news)
        self._tried.set()
        if self._lost_said:
            self._lost_said = False
            log.get().info("engine.healed", engine=self._address.shown)

    async def _beat_on(self) -> None:
        beat_s = self._timing.beat_s
        while not self._over.is_set():
            soon_s = min(beat_s, max(HASTY_S, self.nodes * HASTY_NODE_S))
            if not await _comes(self._over, soon_s):
                await _comes(self._hasty, beat_s - soon_s)
            if self.up:
                self._beat()

    def _beat(
        self, *, join: bool = False, learn: bool = False, expected: int = 0
    ) -> None:
        self._hasty.clear()
        question, generation = self._book.question(), self.generation
        sent_at = self._standstill.beat(self._timing.still_s)
        step = steps.beat(
            self.node,
            self._book.lease_count(),
            join=join,
            learn=learn,
            expected=expected,
            place=self._connection.place if self._connection else "",
            ttl_s=self._timing.ttl_s,
            gates=question.gates,
        )

        def beaten(answer: BeatAnswer) -> None:
            self._standstill.answered(sent_at)
            self._beaten(answer, question, join, generation)

        self.ask(step, beaten)

    def _beaten(
        self, answer: BeatAnswer, question: GateQuestion, join: bool, generation: int
    ) -> None:
        if answer.fenced:
            self.rejoin(generation)
            return
        self.nodes, self.rank = answer.nodes, answer.rank
        if answer.learning_s:
            asyncio.get_running_loop().call_later(
                answer.learning_s + 0.005, self._end_learning, generation
            )
        if answer.reaped:
            self.reaped(answer.reaped)
        self._book.beaten(question, answer.counts)
        if join or generation != self.generation:
            return
        self._compare_config(answer.config)
        self._differed = self._differed + 1 if answer.resync else 0
        if self._differed >= 2:
            self._say_all()

    def _end_learning(self, generation: int) -> None:
        if self.up and generation == self.generation:
            self._beat()

    def _compare_config(self, config: str) -> None:
        if not config or config == self.config:
            self._other_config_since, self._config_said = None, False
            return
        now = self.clock()
        if self._other_config_since is None:
            self._other_config_since = now
        elif now - self._other_config_since >= DIFFERS_S and not self._config_said:
            self._config_said = True
            log.get().warning("config.differs", node=self.node)

    def _on_push(self, channel: bytes, message: bytes) -> None:
        push = read_push(message)
        if channel == self._own and push.kind in ("U", "A", "E"):
            self._book.pushed(push)
        elif channel == self._own and push.kind == "G":
            self._book.recalled(push.account, int(push.lease))
        elif push.kind == "N":
            self.hasten()
        elif hear := self.heard.get(push.kind):
            hear(push)

    def _on_lost(self, error: EngineLost) -> None:
        was_up, self.up = self.up, False
        self._over.set()
        self._hasty.set()
        self._say_lost(error)
        if was_up:
            self._standstill.beat(self._timing.still_s)
            self.lapsed = self._standstill.seen and self.nodes > 1
            self._standstill.rest()
            self._book.lost()
            self._count_on()

    def _count_on(self) -> None:
        """Count until the engine is back."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count_often())

    async def _count_often(self) -> None:
        while not self.up:
            await asyncio.sleep(COUNT_S)
            await self.count()

    def _say_lost(self, error: EngineLost) -> None:
        if not self._lost_said:
            self._lost_said = True
            log.get().warning(
                "engine.lost", engine=self._address.shown, detail=str(error)
            )


async def _unknown() -> Sequence[str]:
    return ()


async def _comes(event: asyncio.Event, within_s: float) -> bool:
    """Whether *event* is set within so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()
