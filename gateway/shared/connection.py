"""
One RESP3 connection to the engine: replies and pushes come in one order.

Rule 1: commands that are given in one turn of the event loop leave in one write.
Rule 2: a command's reply belongs to its place in the order, whatever became of the
        task that waited for it: cancellation never shifts a reply to another command.
Rule 3: an engine that owes a reply and sends nothing for ``HUNG_S`` is lost, and so is
        one whose reply is an error: what it holds can no longer be trusted.
Rule 4: all that is queued is bounded.

A script is sent whole the first time on a connection and by its hash from then on; an
engine may forget it at any time. Then it and every script behind it is said again, in
their order, and only that second answer counts: what was said last stands, whatever was
overtaken, because a script that is said twice changes nothing more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import hiredis

from gateway.shared.errors import EngineLost
from gateway.shared.script import Script

HUNG_S = 0.95
HUNG_GRACE_S = 0.05
"""For an event loop that stood still itself: what came meanwhile is read first."""
MAX_COMMANDS = 50_000
"""Commands without a reply. An engine of one core carries as many in a second."""
MAX_REPLY_BYTES = 64 * 1024 * 1024
MAX_UNSENT_BYTES = 64 * 1024 * 1024

Word = str | bytes | int | float
OnPush = Callable[[bytes, bytes], None]
"""Takes the channel and the message."""


class _Pending(NamedTuple):
    """
    A command without a reply.

    Attributes:
        then: called with the reply, in the order of replies and pushes.
        again: how to say it to an engine that forgot the script; None for what is no
            script, and for what has been said again since.
    """

    future: asyncio.Future[Any] | None
    then: Callable[[Any], object] | None = None
    again: tuple[Script, tuple[Word, ...]] | None = None


_SAID_AGAIN = _Pending(None)
"""Its reply is of no use: the command stands behind it once more."""


class EngineConnection(asyncio.Protocol):
    """
    Args:
        on_push: called with each message of a subscribed channel. It must not raise.
        on_lost: called once, with why, when the connection is over.

    Attributes:
        on_repeat: called when scripts were said again, before their answers come.
        place: host and port that sentinels named; "" without sentinels.
    """

    def __init__(
        self,
        on_push: OnPush = lambda channel, message: None,
        on_lost: Callable[[EngineLost], object] = lambda error: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_push = on_push
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._pending: deque[_Pending] = deque()
        self._out: list[bytes] = []
        self._sent_scripts: set[str] = set()
        self._unread_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._moved_at = 0.0  # when the last reply came, or the first command waited
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.lost: EngineLost | None = None
        self.on_repeat: Callable[[], object] = lambda: None
        self.place = ""

    # --- what is asked ---------------------------------------------------------------

    def send(self, *words: Word) -> asyncio.Future[Any]:
        """
        The reply of a command. The future may be cancelled at any time.

        Raises (the future): EngineLost.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue(_packed(words), _Pending(future))
        return future

    def cast(self, *words: Word) -> None:
        """As ``send``, for who needs no reply."""
        self._queue(_packed(words), _Pending(None))

    def call(self, script: Script, *words: Word) -> asyncio.Future[Any]:
        """The reply of *script* to *words*: the number of its keys, keys, arguments."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._run(script, words, future)
        return future

    def ask(
        self,
        script: Script,
        words: tuple[Word, ...],
        then: Callable[[Any], object] | None = None,
    ) -> None:
        """
        As ``call``, without a task that waits.

        Args:
            then: called with the reply, before what comes behind it is looked at; not
                called if the connection is lost. It must not raise.
        """
        self._run(script, words, None, then)

    def subscribe(self, channel: str) -> None:
        """Take part in *channel*."""
        self.cast("SUBSCRIBE", channel)

    def close(self, why: str = "closed") -> None:
        """End the connection; whatever waits for a reply gets ``EngineLost``."""
        self._end(EngineLost(why))

    async def closed(self) -> None:
        """``close``, and wait until the socket is."""
        self.close()
        if self._transport is not None:
            await asyncio.shield(self._gone)

    # --- asyncio.Protocol ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's have the methods of asyncio.Transport, and another base class.
        self._transport = cast(asyncio.Transport, transport)
        if self.lost:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
        reason = getattr(exc, "strerror", None) or (exc and type(exc).__name__)
        self._end(EngineLost(f"connection lost: {reason or 'closed by the engine'}"))

    def data_received(self, data: bytes) -> None:
        if self.lost:
            return
        self._moved_at = self._loop.time()
        self._unread_bytes += len(data)
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._unread_bytes = 0
                self._take(reply)
                if self.lost:
                    return
        except hiredis.ProtocolError as error:
            self._end(EngineLost(f"not RESP3: {error}"))
        except Exception as error:  # an answer that is none: nothing can be trusted
            self._end(EngineLost(f"a reply cannot be read: {error!r}"))
            context = {"message": "reply of the engine", "exception": error}
            self._loop.call_exception_handler(context)
        if self._unread_bytes > MAX_REPLY_BYTES:
            self._end(EngineLost("a reply is too large"))

    # --- inside ----------------------------------------------------------------------

    def _run(
        self,
        script: Script,
        words: tuple[Word, ...],
        future: asyncio.Future[Any] | None,
        then: Callable[[Any], object] | None = None,
    ) -> None:
        if script.sha in self._sent_scripts:
            data = _packed(("EVALSHA", script.sha, *words))
        else:
            self._sent_scripts.add(script.sha)
            data = _packed(("EVAL", script.text, *words))
        self._queue(data, _Pending(future, then, (script, words)))

    def _queue(self, data: bytes, pending: _Pending) -> None:
        if self.lost:
            if pending.future:
                pending.future.set_exception(EngineLost(str(self.lost)))
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        if not self._pending:
            self._moved_at = self._loop.time()
        self._out.append(data)
        self._pending.append(pending)
        if self._watch is None:
            self._watch = self._loop.call_later(HUNG_S, self._look)
        if len(self._pending) > MAX_COMMANDS:
            self._end(EngineLost("too many commands without a reply"))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is None or self.lost or not out:
            return
        self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._end(EngineLost("it does not read what is sent"))

    def _look(self) -> None:
        """Whether the engine still moves, as long as it owes a reply."""
        self._watch = None
        if not self._pending or self.lost:
            return
        left_s = self._moved_at + HUNG_S - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
        else:
            self._watch = self._loop.call_later(
                HUNG_GRACE_S, self._judge, self._moved_at
            )

    def _judge(self, moved_at: float) -> None:
        if self._moved_at == moved_at and self._pending:
            self._end(EngineLost("no answer"))
        else:
            self._look()

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if reply[0] == b"message":
                self._on_push(reply[1], reply[2])
            elif reply[0] == b"subscribe":
                self._pending.popleft()
            return
        if not self._pending:
            self._end(EngineLost("a reply to nothing"))
            return
        pending = self._pending.popleft()
        if isinstance(reply, hiredis.ReplyError):
            self._failed(str(reply), pending)
        elif pending.then is not None:
            pending.then(reply)
        elif pending.future is not None and not pending.future.done():
            pending.future.set_result(reply)

    def _failed(self, text: str, pending: _Pending) -> None:
        if text.startswith("NOSCRIPT"):
            if pending is not _SAID_AGAIN:
                self._say_again(pending)
            return
        future = pending.future
        error = EngineLost(f"the engine refused: {text[:200]}")
        if future is not None and not future.done():
            future.set_exception(error)
        self._end(error)

    def _say_again(self, first: _Pending) -> None:
        """*first* was not done, and what came behind it has overtaken it."""
        self._sent_scripts.clear()  # what has forgotten one has forgotten all
        repeated = [first, *[one for one in self._pending if one.again]]
        self._pending = deque(
            [_SAID_AGAIN if one.again else one for one in self._pending]
        )
        for future, then, again in repeated:
            # For a caller that is gone, what it wanted is not done any more.
            if again and (future is None or not future.done()):
                self._run(*again, future, then)
        self.on_repeat()

    def _end(self, error: EngineLost) -> None:
        if self.lost:
            return
        self.lost = error
        if self._watch is not None:
            self._watch.cancel()
        pending, self._pending = self._pending, deque()
        for one in pending:
            if one.future is not None and not one.future.done():
                one.future.set_exception(EngineLost(str(error)))
        if self._transport is not None:
            self._transport.abort()
        self._on_lost(error)


def _packed(words: tuple[Word, ...]) -> bytes:
    # Its stub says a tuple of one word; it takes one of any length.
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed
