"""
The parent's side of what several workers need: their engine, and their load page.

With one worker, and no engine from before, there is neither, and nothing is imported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.daemon.load_page import make_page, mark_absent
from gateway.daemon.parent_log import ParentLog
from gateway.daemon.process import StartError
from gateway.daemon.worker_handle import WorkerHandle, WorkerState
from gateway.daemon.worker_pool import WorkerPool

if TYPE_CHECKING:
    from gateway.daemon.private_engine import PrivateEngine


class ParentEngine:
    """
    Args:
        path: the config file.
    """

    def __init__(self, path: Path, log: ParentLog, pool: WorkerPool) -> None:
        self._path = path
        self._log = log
        self._pool = pool
        self._engine: PrivateEngine | None = None
        self.page: int | None = None

    def prepare(self, settings: dict[str, Any]) -> None:
        """
        Have what the workers of *settings* need. An engine that is there stays until
        the stop: workers that leave still use it.

        Raises:
            StartError: there is no engine, and it cannot be started.
            OSError: the system refuses it.
        """
        if settings["workers"] > 1 and self.page is None:
            self.page = make_page()
        if settings.get("engine") and self._engine is None:
            from gateway.daemon.private_engine import PrivateEngine
            from gateway.daemon.private_folder import private_folder

            engine = PrivateEngine(private_folder(self._path), self._log)
            try:
                engine.start()
            except BaseException:
                engine.stop()
                raise
            self._engine = engine

    def prepare_restart(self, before: dict[str, Any], settings: dict[str, Any]) -> None:
        """
        The same for workers that follow those of *before*.

        Raises:
            StartError: besides: those others have no engine, or another one. What they
                still run would not be counted there, so limits would be exceeded.
        """
        if before.get("shared", settings["shared"]) != settings["shared"]:
            raise StartError(
                "shared.url, shared.prefix: for another engine the gateway must be "
                "stopped and started once"
            )
        if settings.get("engine") and self._engine is None:
            raise StartError(
                "server.workers: from one process to several the gateway must be "
                "stopped and started once"
            )
        self.prepare(settings)

    def described(self) -> dict[str, Any]:
        """What a worker has to know of it, besides the descriptors."""
        engine = self._engine.choice()._asdict() if self._engine else None
        return {"engine": engine, "page": self.page is not None}

    @property
    def fds(self) -> list[int]:
        """What a worker gets behind the listeners."""
        return [] if self.page is None else [self.page]

    def all_serve(self) -> None:
        """The first workers serve: what joins from now on is not the first."""
        if self._engine is not None:
            self._engine.new = False

    def ended(self, worker: WorkerHandle) -> None:
        """No connection goes to *worker* any more."""
        if self.page is not None and worker.state == WorkerState.SERVING:
            mark_absent(self.page, worker.slot)

    def look(self) -> None:
        """Start the engine again if it has ended."""
        if self._engine is not None:
            self._engine.look()
            self._pool.watched = self._engine.fileno()

    def stop(self) -> None:
        """The workers have ended."""
        engine, self._engine = self._engine, None
        self._pool.watched = None
        if engine is not None:
            engine.stop()

    # --- over an exec ----------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """What the parent's new code has to know."""
        engine = self._engine.dump() if self._engine else None
        return {"engine": engine, "page": self.page}

    @property
    def kept_fds(self) -> list[int]:
        """The descriptors that the new code goes on with."""
        engine = [self._engine.dump()["use"]] if self._engine else []
        return [*self.fds, *engine]

    def load(self, known: dict[str, Any]) -> None:
        """Go on with what ``dump`` described."""
        self.page = known["page"]
        if self.page is not None:
            os.set_inheritable(self.page, False)
        if known["engine"]:
            from gateway.daemon.private_engine import PrivateEngine

            self._engine = PrivateEngine.load(known["engine"], self._log)
