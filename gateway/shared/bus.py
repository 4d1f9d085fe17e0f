"""
What the nodes say to each other, over the engine's channels.

    tell   to all others; there is no answer
    ask    all others; each answers, or is passed over when the time is up

What is said is lost while the engine is: nothing that must hold is said here alone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from gateway.shared.answers import Push
from gateway.shared.membership import Membership

ASK_S = 0.3
GRACE_S = 0.01
MAX_QUESTIONS = 1000  # of this node, that wait for answers

Answerer = Callable[[str], str]
Listener = Callable[[str], object]


class Bus:
    """The channels of *engine*'s nodes."""

    def __init__(self, engine: Membership) -> None:
        self._engine = engine
        self._answerers: dict[str, Answerer] = {}
        self._listeners: dict[str, Listener] = {}
        self._questions: dict[str, tuple[list[str], int, str, asyncio.Event]] = {}
        self._numbers = itertools.count(1)
        engine.heard["Q"] = self._asked
        engine.heard["R"] = self._answered
        engine.heard["T"] = self._said

    def answer(self, topic: str, answerer: Answerer) -> None:
        """Answer the others' questions about *topic*."""
        self._answerers[topic] = answerer

    def listen(self, topic: str, listener: Listener) -> None:
        """Take what the others say about *topic*."""
        self._listeners[topic] = listener

    def tell(self, topic: str, text: str = "", node: str = "") -> None:
        """Say *text* to all other nodes, or to *node*."""
        self._engine.publish(f"T {self._engine.node} {topic} {text}", node)

    async def ask(
        self, topic: str, text: str = "", *, enough: str = "", within_s: float = ASK_S
    ) -> list[str]:
        """
        The answers of all other nodes that came within so long.

        Args:
            enough: the answer that makes all others unneeded.
        """
        others = self._engine.nodes - 1
        if not self._engine.up or others <= 0 or len(self._questions) >= MAX_QUESTIONS:
            return []
        number, answers, complete = str(next(self._numbers)), [""][:0], asyncio.Event()
        self._questions[number] = (answers, others, enough, complete)
        self._engine.publish(f"Q {number} {self._engine.node} {topic} {text}")
        try:
            async with asyncio.timeout(within_s):
                await complete.wait()
        except TimeoutError:
            if not answers:  # this event loop may have stood still: look once more
                await asyncio.sleep(GRACE_S)
        finally:
            del self._questions[number]
        return answers

    # --- what is heard --------------------------------------------------------------

    def _asked(self, push: Push) -> None:
        number, node, topic, text = push.rest.split(" ", 3)
        answerer = self._answerers.get(topic)
        if node != self._engine.node and answerer is not None:
            self._engine.publish(f"R {number} {answerer(text)}", node)

    def _answered(self, push: Push) -> None:
        number, _, text = push.rest.partition(" ")
        question = self._questions.get(number)
        if question is None:
            return  # too late
        answers, others, enough, complete = question
        answers.append(text)
        if len(answers) >= others or enough and text == enough:
            complete.set()

    def _said(self, push: Push) -> None:
        node, topic, text = push.rest.split(" ", 2)
        listener = self._listeners.get(topic)
        if node != self._engine.node and listener is not None:
            listener(text)
