"""The gateway's log as a test reads it: a list of dicts."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

Line = dict[str, Any]


class Log(io.TextIOBase):
    """Lines as they come, from a stream of text or written to as one."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self._begun = ""
        self._read: list[Line] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        self.text += [line for line in whole if line]
        return len(text)

    @property
    def lines(self) -> list[Line]:
        """Every line so far; what is no JSON object fails the test here."""
        for text in self.text[len(self._read) :]:
            line = json.loads(text)
            assert isinstance(line, dict), text
            self._read.append(line)
        return self._read

    def events(self, event: str, **facts: Any) -> list[Line]:
        """The lines of this *event* that say all of *facts*."""
        return [
            line
            for line in self.lines
            if line.get("event") == event and facts.items() <= line.items()
        ]

    def grep(self, text: str) -> list[Line]:
        """The lines that hold *text*, as ``grep`` finds them."""
        return [json.loads(line) for line in self.text if text in line]

    def finished(self, request_id: str) -> Line:
        """The one canonical line of a request that is over."""
        lines = self.events("request.finished", request_id=request_id)
        assert 1 == len(lines), f"{len(lines)} canonical lines for {request_id}"
        return lines[0]

    async def wait_finished(self, request_id: str) -> Line:
        """The canonical line, as soon as it is there."""
        await self.wait_for(
            lambda: self.events("request.finished", request_id=request_id),
            f"no canonical line for {request_id}",
        )
        return self.finished(request_id)

    async def wait_events(self, event: str, count: int = 1, **facts: Any) -> list[Line]:
        """
        The lines of *event*, once there are *count*: a daemon writes them a moment
        after a client has its answer.
        """
        await self.wait_for(
            lambda: len(self.events(event, **facts)) >= count,
            f"not {count} lines of {event}",
        )
        return self.events(event, **facts)

    async def wait_for(
        self, ready: Callable[[], object], failure: str, timeout_s: float = 10.0
    ) -> None:
        """Return once *ready* gives something true; fail with *failure*."""
        try:
            async with asyncio.timeout(timeout_s):
                while not ready():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            tail = "\n".join(self.text[-15:])
            raise AssertionError(f"{failure}\n{tail}") from None

    async def each_finished_once(self, request_ids: Iterable[str]) -> None:
        """Each of these requests has one canonical line, and no request has two."""
        wanted = set(request_ids)
        await self.wait_for(lambda: wanted <= set(self._finished()), "not all finished")
        counts = Counter(self._finished())
        assert [] == [one for one, count in counts.items() if count > 1]

    def _finished(self) -> list[str]:
        return [line["request_id"] for line in self.events("request.finished")]

    def explains(self, *ids: str) -> None:
        """Each id that a client saw leads to a line that says what went wrong."""
        for one in ids:
            lines = self.grep(one)
            assert any(line.get("error_code") for line in lines), (one, lines)
